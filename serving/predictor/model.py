"""One served bundle as a KServe model: V2 in and out, work on threads of its own, a bounded queue."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from kserve import InferRequest, Model
from numpy.typing import NDArray

from data.errors import RequestError
from serving.engine import Engine
from serving.identity import ModelInfo, classes_of
from serving.kserve_ext.errors import PreprocessingMismatch, TooLarge
from serving.kserve_ext.gate import Gate, Workers
from serving.kserve_ext.tensors import Outputs, only_input, parameters, read_uint8
from serving.metrics import REQUESTS, step


class PredictorModel(Model):  # type: ignore[misc]
    """Answers ``image`` UINT8 [N, H, W, 3] with each head's decisions, and its map when ``explain`` is true.

    Outputs, per head: ``<head>.probabilities`` FP32 [N, C], ``.label`` INT64 [N], ``.uncertain`` BOOL [N],
    ``.set`` BOOL [N, C], and on demand ``.cam`` FP32 [N, h, w], the map of the label's class.
    """

    def __init__(self, engine: Engine, gate: Gate, workers: Workers, max_batch: int) -> None:
        super().__init__(engine.served.task)
        self._engine, self._gate, self._workers, self._max_batch = engine, gate, workers, max_batch
        card = engine.card
        self.info = ModelInfo.of(engine.served, engine.runtime.precision)
        self._parameters = {
            **self.info.to_dict(),
            "preprocessing_digest": card.preprocessing_digest,
            "classes": json.dumps(classes_of(card.heads)),
        }
        self.ready = True  # an Engine exists only after its golden answers were right

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
        images, explain = self._read(payload)
        with self._gate.enter():
            outputs = await self._workers.run(self._answer, images, explain)
        return outputs.respond(payload, version=self.version, parameters=self._parameters)

    def _read(self, request: InferRequest) -> tuple[NDArray[np.uint8], bool]:
        given = parameters(request)
        digest = given.get("preprocessing_digest")
        if digest != self._engine.card.preprocessing_digest:
            raise PreprocessingMismatch(
                f"This version of {self.name!r} takes pixels preprocessed as "
                f"{self._engine.card.preprocessing_digest}, not as {digest}.",
                hint="Preprocess as its card says, and send that digest as `preprocessing_digest`.",
            )
        explain = given.get("explain", False)
        if not isinstance(explain, bool):
            raise RequestError("A predictor's `explain` is true or false.")
        height, width = self._engine.card.input.size
        images = read_uint8(only_input(request, "image", "UINT8", f"[N, {height}, {width}, 3]"))
        if images.ndim != 4 or images.shape[1:] != (height, width, 3) or not len(images):
            raise RequestError(f"The input 'image' is [N, {height}, {width}, 3], not {list(images.shape)}.")
        if len(images) > self._max_batch:
            raise TooLarge(f"{len(images)} images are over the limit of {self._max_batch} a request.")
        return images, explain

    def _answer(self, images: NDArray[np.uint8], explain: bool) -> Outputs:
        with step(self.name, "inference"):
            answers = self._engine.answer(images, explain=explain)
        outputs = Outputs()
        for head, answer in answers.items():
            decision = answer.decision
            outputs.array(f"{head}.probabilities", decision.probabilities)
            outputs.array(f"{head}.label", decision.label.astype(np.int64))
            outputs.array(f"{head}.uncertain", decision.uncertain)
            outputs.array(f"{head}.set", decision.set)
            if answer.cam is not None:
                outputs.array(f"{head}.cam", answer.cam)
        return outputs

    def get_input_types(self) -> list[dict[str, Any]]:
        """V2 metadata."""
        height, width = self._engine.card.input.size
        return [{"name": "image", "datatype": "UINT8", "shape": [-1, height, width, 3]}]

    def get_output_types(self) -> list[dict[str, Any]]:
        """V2 metadata."""
        types = []
        for head in self._engine.card.heads:
            count = len(head.classes)
            types += [
                {"name": f"{head.name}.probabilities", "datatype": "FP32", "shape": [-1, count]},
                {"name": f"{head.name}.label", "datatype": "INT64", "shape": [-1]},
                {"name": f"{head.name}.uncertain", "datatype": "BOOL", "shape": [-1]},
                {"name": f"{head.name}.set", "datatype": "BOOL", "shape": [-1, count]},
            ]
        return types

    def describe(self) -> dict[str, Any]:
        """What the metadata says beyond tensors."""
        card = self._engine.card
        return {
            **self.info.to_dict(),
            "title": card.title,
            "preprocessing_digest": card.preprocessing_digest,
            "classes": classes_of(card.heads),
            "runtime": self._engine.runtime.name,
        }
