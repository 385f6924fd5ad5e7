"""KServe's data plane with some of its habits changed.

- A binary V2 request: upstream turns every tensor into Python lists and every BYTES element into UTF-8, so a
  JPEG is a 500 and a large tensor takes seconds. Here the raw bytes are kept. (A test fails when
  upstream mends this.)
- ``:explain`` answers with every header of the request, ``Authorization`` included. Here with ours alone.
- A model that is not ready is loaded on the event loop by the first request. Here it is a 503.
- Ready is a constant. Here it is asked of the server.
- A cloud event without a body is a 500. Here a 400.
- A JSON answer is validated by pydantic and copied by FastAPI before it is written. Here it is written.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from kserve import InferInput, InferRequest, InferResponse, ModelRepository
from kserve.errors import InvalidInput, ModelNotFound, ModelNotReady
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.infer_type import RequestedOutput
from kserve.protocol.model_repository_extension import ModelRepositoryExtension

from data.errors import RequestError
from serving.kserve_ext.errors import Forbidden

_HEADER = "inference-header-content-length"


class GuardedDataPlane(DataPlane):  # type: ignore[misc]
    """The data plane that our servers use. ``is_ready`` answers ``/v2/health/ready``."""

    def __init__(self, model_registry: ModelRepository, is_ready: Callable[[], Awaitable[bool]]) -> None:
        super().__init__(model_registry)
        self._is_ready = is_ready

    async def ready(self) -> bool:
        """Whether this server can answer."""
        return await self._is_ready()

    async def model_ready(self, model_name: str, disable_predictor_health_check: bool = False) -> bool:
        """Whether a model can answer; before a request (``disable…``) only whether it is there."""
        model = self._model_registry.get_model(model_name)
        if model is None:
            raise ModelNotFound(model_name)
        return bool(model.ready) and (disable_predictor_health_check or await model.healthy())

    async def get_model(self, name: str) -> Any:
        """A model that is there and ready."""
        model = self._model_registry.get_model(name)
        if model is None:
            raise ModelNotFound(name)
        if not model.ready:
            raise ModelNotReady(name)
        return model

    async def explain(self, model_name: str, request: Any, headers: Any = None) -> tuple[Any, dict[str, str]]:
        """V1 ``:explain``. Upstream puts the response's headers into the request's and sends both."""
        response, _ = await super().explain(model_name, request, dict(headers or {}))
        return response, {}

    def encode(
        self, model_name: str, response: Any, headers: Any, req_attributes: Any
    ) -> tuple[Any, dict[str, str]]:
        """A V2 answer as the bytes that are sent; anything else, and cloud events, as upstream has it."""
        if not isinstance(response, InferResponse) or any(name.startswith("ce-") for name in headers or ()):
            return super().encode(model_name, response, headers, req_attributes)  # type: ignore[no-any-return]
        body, json_length = response.to_rest()
        if json_length is None:
            body = orjson.dumps(body)
            kind = {"Content-Type": "application/json"}
        else:
            kind = {
                "Content-Type": "application/octet-stream",
                "Inference-Header-Content-Length": str(json_length),
            }
        # In capitals, since KServe's route takes away "content-type" and "content-length" as it spells them.
        return body, {**kind, "Content-Length": str(len(body))}

    @staticmethod
    def get_binary_cloudevent(body: Any, headers: Any) -> Any:
        """A cloud event. Upstream fails on one whose body, and not its headers, should hold it all."""
        try:
            return DataPlane.get_binary_cloudevent(body, headers)
        except InvalidInput:
            raise
        except (AttributeError, KeyError, TypeError, ValueError):
            raise RequestError("The body is not a cloud event.") from None

    def decode_cloudevent(self, body: Any) -> tuple[Any, dict[str, Any]]:
        """A cloud event's data. Upstream fails on an event without any."""
        try:
            return super().decode_cloudevent(body)  # type: ignore[no-any-return]
        except (AttributeError, KeyError, TypeError):
            raise RequestError("The cloud event has no data that is JSON.") from None

    def decode_inference_request(self, body: Any, headers: Any, model_name: str) -> InferRequest:
        """A V2 request from JSON, or from JSON followed by raw tensors."""
        if isinstance(body, bytes):
            return read_binary(body, headers.get(_HEADER), model_name)
        return super().decode_inference_request(body, headers, model_name)


class GuardedRepositoryExtension(ModelRepositoryExtension):  # type: ignore[misc]
    """What is served follows the promoted versions. Upstream lets anyone load and unload over the network."""

    async def load(self, model_name: str) -> None:
        """Refused."""
        raise Forbidden("Models are loaded by promoting a version, not by a request.")

    async def unload(self, model_name: str) -> None:
        """Refused."""
        raise Forbidden("Models are unloaded by promoting another version, not by a request.")


def read_binary(body: bytes, header: str | None, model_name: str) -> InferRequest:
    """A V2 request whose tensors follow its JSON part as raw bytes; they are sliced, never converted.

    Raises:
        RequestError: the header, the JSON part or a size is wrong.
    """
    if header is None:
        raise RequestError("A binary request needs the header Inference-Header-Content-Length.")
    # Python's digits are more than ten (²), and its int() refuses thousands of them.
    number = header.isascii() and header.isdigit() and len(header) <= 10
    if not number or int(header) > len(body):
        raise RequestError(
            f"Inference-Header-Content-Length is {header[:20]!r}, the body has {len(body)} bytes."
        )
    length = int(header)
    try:
        document = orjson.loads(body[:length])
    except orjson.JSONDecodeError as error:
        raise RequestError(f"The JSON part is not JSON ({error}).") from None
    if not isinstance(document, dict):
        raise RequestError("The JSON part is not an object.")
    start, inputs = length, []
    for i, item in enumerate(_list(document, "inputs")):
        read = _input(item, i)
        size = (read.parameters or {}).get("binary_data_size")
        if read.data is None:
            if isinstance(size, bool) or not isinstance(size, int) or size < 0:
                raise RequestError(f"inputs.{i} has neither data nor a binary_data_size.")
            if start + size > len(body):
                raise RequestError(f"inputs.{i} names {size} bytes, {len(body) - start} follow.")
            read._raw_data = body[start : start + size]
            start += size
        inputs.append(read)
    if start != len(body):
        raise RequestError(f"{len(body) - start} bytes follow the last tensor.")
    outputs = [_output(item, i) for i, item in enumerate(_list(document, "outputs", required=False))]
    identifier = document.get("id")
    if identifier is not None and not isinstance(identifier, str):
        raise RequestError("id is not a string.")
    return InferRequest(
        model_name=model_name,
        request_id=identifier,
        parameters=_parameters(document, "of the request"),
        infer_inputs=inputs,
        request_outputs=outputs or None,
    )


def _input(item: Any, i: int) -> InferInput:
    where = f"inputs.{i}"
    if not isinstance(item, dict):
        raise RequestError(f"{where} is not an object.")
    name, datatype, shape = item.get("name"), item.get("datatype"), item.get("shape")
    if not isinstance(name, str) or not isinstance(datatype, str):
        raise RequestError(f"{where} needs a name and a datatype.")
    if not isinstance(shape, list) or not all(isinstance(n, int) and not isinstance(n, bool) for n in shape):
        raise RequestError(f"{where}.shape is not a list of integers.")
    data = item.get("data")
    if data is not None and not isinstance(data, list):
        raise RequestError(f"{where}.data is not a list.")
    return InferInput(name, shape, datatype, data=data, parameters=_parameters(item, f"of {where}"))


def _output(item: Any, i: int) -> RequestedOutput:
    if not isinstance(item, dict) or not isinstance(item.get("name"), str):
        raise RequestError(f"outputs.{i} needs a name.")
    return RequestedOutput(item["name"], parameters=_parameters(item, f"of outputs.{i}"))


def _parameters(item: dict[str, Any], where: str) -> dict[str, Any] | None:
    value = item.get("parameters")
    if value is None:
        return None
    if not isinstance(value, dict) or not all(
        isinstance(v, str | int | float | bool) for v in value.values()
    ):
        raise RequestError(f"The parameters {where} are numbers, texts, true or false only.")
    return value


def _list(document: dict[str, Any], key: str, required: bool = True) -> list[Any]:
    value = document.get(key)
    if value is None and not required:
        return []
    if not isinstance(value, list) or (required and not value):
        raise RequestError(f"{key} is not a list of tensors.")
    return value
