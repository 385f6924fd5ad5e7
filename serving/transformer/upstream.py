"""The hop to the predictor: grpc-v2, raw tensors, over a channel that finds a restarted predictor again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
from kserve.protocol.grpc.grpc_predict_v2_pb2 import (
    InferParameter,
    ModelInferRequest,
    ModelInferResponse,
    ModelReadyRequest,
)
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub
from numpy.typing import NDArray

from data.errors import ServingError
from serving.blobs import unpack
from serving.features.columns import EMBEDDING, UNUSUAL
from serving.features.unusual import Embedded
from serving.identity import ModelInfo
from serving.kinds import CLASSIFICATION, kind_of
from serving.kinds.base import Form, Result
from serving.kserve_ext.errors import PreprocessingMismatch, QueueFull, Unavailable

_TYPES = {"FP32": np.float32, "BOOL": np.bool_, "INT64": np.int64}
_AWAY = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.CANCELLED,
}


@dataclass(frozen=True, slots=True)
class Upstream:
    """What the predictor answered: who it is, how its answers look, and one for each image.

    ``embedded`` is there when features were asked for and the model gives an embedding; ``unavailable`` says
    which of them it can't give, and why.
    """

    model: ModelInfo
    form: Form
    images: tuple[Result, ...]
    embedded: Embedded | None = None
    unavailable: str | None = None


class PredictorClient:
    """A predictor at ``host:port``. Made on the event loop that uses it."""

    def __init__(self, address: str, timeout_s: float = 30.0) -> None:
        options = [
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", -1),
            ("grpc.enable_retries", 0),
            # gRPC would wait up to two minutes before it looks for a predictor that came back.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1000),
            # A proxy named in the environment has no business between two processes of one pod.
            ("grpc.enable_http_proxy", 0),
        ]
        self._channel = grpc.aio.insecure_channel(address, options=options)
        self._stub = GRPCInferenceServiceStub(self._channel)
        self._timeout_s = timeout_s

    async def infer(
        self,
        task: str,
        pixels: NDArray[np.uint8],
        preprocessing_digest: str,
        *,
        explain: bool,
        features: bool = False,
    ) -> Upstream:
        """Have uint8 [N, H, W, 3] answered.

        Raises:
            PreprocessingMismatch: the predictor serves a version with another preprocessing.
            QueueFull, Unavailable: ask again later.
            ServingError: the predictor failed.
        """
        request = ModelInferRequest(
            model_name=task,
            parameters={
                "preprocessing_digest": InferParameter(string_param=preprocessing_digest),
                "explain": InferParameter(bool_param=explain),
            },
        )
        if features:
            request.parameters["features"].CopyFrom(InferParameter(bool_param=True))
        request.inputs.add(name="image", datatype="UINT8", shape=pixels.shape)
        request.raw_input_contents.append(pixels.tobytes())
        try:
            response = await self._stub.ModelInfer(request, timeout=self._timeout_s)
        except grpc.aio.AioRpcError as error:
            raise _translate(error, task) from None
        return _read(response)

    async def is_ready(self, task: str) -> bool:
        """Whether the predictor serves a task."""
        try:
            answer = await self._stub.ModelReady(ModelReadyRequest(name=task), timeout=2.0)
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.ready)

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()


def _translate(error: Any, task: str) -> Exception:
    trailing = dict(error.trailing_metadata() or ())
    code = trailing.get("error-code")
    wait = int(trailing.get("retry-after", 1))
    if code == PreprocessingMismatch.code:
        return PreprocessingMismatch(error.details())
    if code == QueueFull.code:
        return QueueFull(error.details(), retry_after=wait)
    if error.code() in _AWAY:
        return Unavailable(f"The predictor of {task!r} is away.", retry_after=wait)
    return ServingError(f"The predictor of {task!r} failed: {error.code().name}, {error.details()}")


def _read(response: ModelInferResponse) -> Upstream:
    given = {key: value.string_param for key, value in response.parameters.items()}
    tensors = {
        output.name: _tensor(output, raw)
        for output, raw in zip(response.outputs, response.raw_output_contents, strict=True)
    }
    form = kind_of(given.get("kind", CLASSIFICATION)).form_of_response(given)
    embedded = Embedded(tensors[EMBEDDING], tensors[UNUSUAL]) if UNUSUAL in tensors else None
    unavailable = given.get("features_unavailable")
    return Upstream(ModelInfo.of_parameters(given), form, form.read(tensors), embedded, unavailable)


def _tensor(output: Any, raw: bytes) -> Any:
    if output.datatype == "BYTES":
        return unpack(raw, output.name)
    return np.frombuffer(raw, _TYPES[output.datatype]).reshape(tuple(output.shape))
