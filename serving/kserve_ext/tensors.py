"""V2 tensors in and out, the same for V2 JSON, V2 binary, gRPC contents and gRPC raw.

KServe's own conversions decode BYTES as UTF-8, take 1.5 for a UINT8, raise ``struct.error`` on a short buffer
and answer a JSON request's bytes with an exception; here each is read strictly, or refused with a reason.
"""

from __future__ import annotations

import base64
import math
import uuid
from typing import Any

import numpy as np
from kserve import InferInput, InferOutput, InferRequest, InferResponse
from kserve.protocol.grpc.grpc_predict_v2_pb2 import InferParameter, InferTensorContents, ModelInferResponse
from kserve.protocol.infer_type import RequestedOutput, to_http_parameters
from numpy.typing import NDArray

from data.errors import RequestError
from serving.blobs import pack, unpack
from serving.kserve_ext.errors import TooLarge

_DATATYPES = {"float32": "FP32", "bool": "BOOL", "uint8": "UINT8", "int64": "INT64"}
_CONTENTS = {
    "FP32": "fp32_contents",
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "INT64": "int64_contents",
}


def parameters(request: InferRequest) -> dict[str, Any]:
    """A request's own parameters as plain values."""
    return dict(to_http_parameters(request.parameters or {}))


def only_input(request: InferRequest, name: str, datatype: str, shape: str) -> InferInput:
    """The one input that a model takes.

    Raises:
        RequestError: there are others, or it has another name or type.
    """
    names = [item.name for item in request.inputs]
    if names != [name]:
        raise RequestError(f"The model takes one input {name!r}, {datatype} {shape}, not {names}.")
    found = request.inputs[0]
    if found.datatype != datatype:
        raise RequestError(f"The input {name!r} is {datatype} {shape}, not {found.datatype}.")
    return found


def check_count(count: int, most: int) -> None:
    """``TooLarge`` for more images than the server takes at once."""
    if count > most:
        raise TooLarge(f"{count} images are over the limit of {most} a request.")


def read_blobs(tensor: InferInput, most: int) -> list[bytes | str]:
    """The elements of a BYTES tensor [N]: bytes, or from JSON the strings as they came (base64).

    Raises:
        TooLarge: the shape says that there are more than ``most``; none is read then.
        RequestError: the shape or the buffer is wrong.
    """
    shape = list(tensor.shape)
    if len(shape) != 1 or shape[0] < 1:
        raise RequestError(f"The input {tensor.name!r} has the shape [N] with N of at least 1, not {shape}.")
    check_count(shape[0], most)
    raw = tensor._raw_data
    # An element may be four bytes long: a body can hold millions, and this is the event loop.
    elements: list[bytes | str] = (
        list(tensor.data or ()) if raw is None else [*unpack(raw, tensor.name, shape[0])]
    )
    if len(elements) != shape[0]:
        raise RequestError(f"The input {tensor.name!r} says {shape[0]} elements and holds {len(elements)}.")
    if not all(isinstance(element, bytes | str) for element in elements):
        raise RequestError(f"In JSON, each element of {tensor.name!r} is a base64 string of an image file.")
    return elements


def from_base64(element: bytes | str) -> bytes:
    """An element's bytes.

    Raises:
        RequestError: it is text that isn't base64.
    """
    if isinstance(element, bytes):
        return element
    try:
        return base64.b64decode(element, validate=True)
    except ValueError as error:
        raise RequestError(f"An image is not base64 ({error}).") from None


def read_uint8(tensor: InferInput) -> NDArray[np.uint8]:
    """A UINT8 tensor in its shape; from a raw buffer without a copy, and then read-only.

    Raises:
        RequestError: the shape and the data disagree, or a value is no whole number from 0 to 255.
    """
    shape = [int(n) for n in tensor.shape]
    if any(n < 0 for n in shape):
        raise RequestError(f"The input {tensor.name!r} can't have the shape {shape}.")
    if tensor._raw_data is not None:
        values: NDArray[np.uint8] = np.frombuffer(tensor._raw_data, np.uint8)
    else:
        try:
            given = np.asarray(tensor.data)
        except (ValueError, OverflowError) as error:
            raise RequestError(f"The input {tensor.name!r} is not a tensor ({error}).") from None
        if given.dtype.kind not in "iu" or (given.size and not (given.min() >= 0 and given.max() <= 255)):
            raise RequestError(f"The input {tensor.name!r} holds whole numbers from 0 to 255 only.")
        values = given.astype(np.uint8)
    if values.size != math.prod(shape):
        raise RequestError(
            f"The input {tensor.name!r} of shape {shape} has {math.prod(shape)} values, not {values.size}."
        )
    try:
        return values.reshape(shape)
    except (ValueError, OverflowError):  # no values, and the other dimensions larger than there can be
        raise RequestError(f"The input {tensor.name!r} can't have the shape {shape}.") from None


class Outputs:
    """A V2 answer in the making; ``respond`` writes it in the form that the request asked for."""

    def __init__(self) -> None:
        self._items: dict[str, tuple[list[int], NDArray[Any] | list[str] | list[bytes]]] = {}

    def array(self, name: str, values: NDArray[Any]) -> None:
        """Numbers or booleans."""
        self._items[name] = (list(values.shape), values)

    def texts(self, name: str, values: list[str]) -> None:
        """BYTES that are UTF-8 text: as it is in JSON."""
        self._items[name] = ([len(values)], values)

    def blobs(self, name: str, values: list[bytes]) -> None:
        """BYTES that aren't text: base64 in JSON."""
        self._items[name] = ([len(values)], values)

    def respond(
        self, request: InferRequest, *, version: str, parameters: dict[str, str]
    ) -> InferResponse | ModelInferResponse:
        """The answer: a gRPC message to gRPC, KServe's response object to REST.

        Raises:
            RequestError: an output was asked for that there isn't.
        """
        wanted = {item.name: item.binary_data for item in request.request_outputs or ()}
        unknown = sorted(set(wanted) - set(self._items))
        if unknown:
            raise RequestError(
                f"There is no output {', '.join(unknown)}; there are {', '.join(self._items)}."
            )
        items = {name: self._items[name] for name in wanted or self._items}
        identifier = request.id or str(uuid.uuid4())
        if request.from_grpc:
            return _message(request, items, identifier, version, parameters)
        default = bool(request.use_binary_outputs)
        binary = {name: default if wanted.get(name) is None else bool(wanted[name]) for name in items}
        return InferResponse(
            response_id=identifier,
            model_name=request.model_name,
            model_version=version,
            infer_outputs=[
                InferOutput(name, shape, datatype(values), data=_rest(values, binary[name]))
                for name, (shape, values) in items.items()
            ],
            parameters=parameters,
            requested_outputs=[RequestedOutput(name, {"binary_data": flag}) for name, flag in binary.items()],
        )


def datatype(values: NDArray[Any] | list[str] | list[bytes]) -> str:
    """V2's name for an output's type."""
    return "BYTES" if isinstance(values, list) else _DATATYPES[values.dtype.name]


def _rest(values: NDArray[Any] | list[str] | list[bytes], binary: bool) -> Any:
    if not isinstance(values, list):
        return np.ascontiguousarray(values)
    elements: list[Any] = list(values)
    if not binary:
        elements = [base64.b64encode(v).decode() if isinstance(v, bytes) else v for v in elements]
    array = np.empty(len(elements), dtype=object)
    array[:] = elements
    return array


def _message(
    request: InferRequest, items: dict[str, Any], identifier: str, version: str, parameters: dict[str, str]
) -> ModelInferResponse:
    raw = bool(request.use_binary_outputs)
    message = ModelInferResponse(
        model_name=request.model_name,
        model_version=version,
        id=identifier,
        parameters={key: InferParameter(string_param=value) for key, value in parameters.items()},
    )
    for name, (shape, values) in items.items():
        output = message.outputs.add(name=name, datatype=datatype(values), shape=shape)
        if isinstance(values, list):
            blobs = [value.encode() if isinstance(value, str) else value for value in values]
            if raw:
                message.raw_output_contents.append(pack(blobs))
            else:
                output.contents.CopyFrom(InferTensorContents(bytes_contents=blobs))
        elif raw:
            message.raw_output_contents.append(np.ascontiguousarray(values).tobytes())
        else:
            contents = {_CONTENTS[output.datatype]: values.reshape(-1).tolist()}
            output.contents.CopyFrom(InferTensorContents(**contents))
    return message
