"""One served bundle as a KServe model: V2 in and out, work on threads of its own, a bounded queue."""

from __future__ import annotations

from typing import Any

import numpy as np
from kserve import InferRequest, Model
from numpy.typing import NDArray

from data.errors import RequestError
from serving.engine import Engine
from serving.identity import ModelInfo
from serving.kserve_ext.errors import PreprocessingMismatch, TooLarge
from serving.kserve_ext.gate import Gate, Workers
from serving.kserve_ext.tensors import Outputs, only_input, parameters, read_uint8
from serving.metrics import REQUESTS, step
from serving.source import Served


class PredictorModel(Model):  # type: ignore[misc]
    """Answers ``image`` UINT8 [N, H, W, 3] with its kind's tensors, and maps when ``explain`` is true.

    With ``features`` true also ``embedding`` and ``unusual``; ``features_unavailable`` says why not both.

    ``docs/serving.md`` lists the outputs of each kind.
    """

    def __init__(self, served: Served, engine: Engine, gate: Gate, workers: Workers, max_batch: int) -> None:
        super().__init__(served.name)
        self._engine, self._gate, self._workers, self._max_batch = engine, gate, workers, max_batch
        card = engine.card
        self._form = engine.form
        runtime = str(engine.describe().get("runtime", ""))
        self.info = ModelInfo.of(served, card, engine.precision, runtime)
        self._parameters = {
            **self.info.parameters(),
            "preprocessing_digest": card.preprocessing_digest,
            **self._form.parameters(),
        }
        self.ready = True  # an Engine exists only after its golden answers were right

    @property
    def engine_of(self) -> Engine:
        """What answers: a challenger's goes on as the champion's when it is promoted."""
        return self._engine

    @property
    def version(self) -> str:
        """The registry's version."""
        return self.info.version

    def start(self) -> None:
        """Nothing: an engine is ready when it exists."""

    def stop(self) -> None:
        """Nothing: requests that are in flight keep the engine; it goes with the last of them."""

    async def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> Any:
        """Answer a V2 request.

        Raises:
            RequestError, PreprocessingMismatch, TooLarge, QueueFull: see ``kserve_ext.errors``.
        """
        try:
            answer = await self._predict(payload)
        except Exception as error:
            REQUESTS.labels(self.name, "predictor", getattr(error, "code", "internal")).inc()
            raise
        REQUESTS.labels(self.name, "predictor", "ok").inc()
        return answer

    async def _predict(self, payload: Any) -> Any:
        if not isinstance(payload, InferRequest):
            raise RequestError(
                "A predictor takes V2 requests with preprocessed pixels.",
                hint="Send image files to the transformer.",
            )
        images, explain, features = self._read(payload)
        with self._gate.enter():
            outputs = await self._workers.run(self._answer, images, explain, features)
        said = self._parameters
        unavailable = self._engine.sight.unavailable
        if features and unavailable is not None:
            said = {**said, "features_unavailable": unavailable}
        return outputs.respond(payload, version=self.version, parameters=said)

    def _read(self, request: InferRequest) -> tuple[NDArray[np.uint8], bool, bool]:
        given = parameters(request)
        digest = given.get("preprocessing_digest")
        if digest != self._engine.card.preprocessing_digest:
            raise PreprocessingMismatch(
                f"This version of {self.name!r} takes pixels preprocessed as "
                f"{self._engine.card.preprocessing_digest}, not as {digest}.",
                hint="Preprocess as its card says, and send that digest as `preprocessing_digest`.",
            )
        asked = [given.get(name, False) for name in ("explain", "features")]
        if not all(isinstance(value, bool) for value in asked):
            raise RequestError("A predictor's `explain` and `features` are true or false.")
        explain, features = asked
        height, width = self._engine.card.input.size
        images = read_uint8(only_input(request, "image", "UINT8", f"[N, {height}, {width}, 3]"))
        if images.ndim != 4 or images.shape[1:] != (height, width, 3) or not len(images):
            raise RequestError(f"The input 'image' is [N, {height}, {width}, 3], not {list(images.shape)}.")
        if len(images) > self._max_batch:
            raise TooLarge(f"{len(images)} images are over the limit of {self._max_batch} a request.")
        return images, explain, features

    def _answer(self, images: NDArray[np.uint8], explain: bool, features: bool) -> Outputs:
        with step(self.name, "inference"):
            batch = self._engine.answer(images, explain=explain, features=features)
        outputs = Outputs()
        batch.put(outputs)
        return outputs

    def get_input_types(self) -> list[dict[str, Any]]:
        """V2 metadata."""
        height, width = self._engine.card.input.size
        return [{"name": "image", "datatype": "UINT8", "shape": [-1, height, width, 3]}]

    def get_output_types(self) -> list[dict[str, Any]]:
        """V2 metadata."""
        return self._form.tensor_types()

    def describe(self) -> dict[str, Any]:
        """What the metadata says beyond tensors."""
        card = self._engine.card
        return {
            **self.info.parameters(),
            "title": card.title,
            "preprocessing_digest": card.preprocessing_digest,
            **self._form.describe(),
            **self._engine.describe(),
        }
