"""An anomaly bundle that answers: the detector's scores and regions. Without a web framework."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.errors import BundleError, RequestError
from serving.core.bundle import Card
from serving.core.patchcore.detector import Detector, open_detector
from serving.core.runtimes import AUTO
from serving.features.unusual import Embedded, Sight, sight_of
from serving.kinds.anomaly.answers import AnomalyForm, AnomalyResult, Spot, regions_text
from serving.kinds.anomaly.kind import KIND
from serving.kinds.base import Sink, put_embedded
from serving.source import Served

# The extractor is exported in one precision, and retiderm tune has nothing to choose.
PRECISION = "fp32"


@dataclass(frozen=True, slots=True)
class AnomalyBatch:
    """N images' answers. See ``serving.kinds.base.Batch``."""

    answers: tuple[AnomalyResult, ...]
    embedded: Embedded | None = None

    def put(self, sink: Sink) -> None:
        """``anomaly.score``, ``.label``, ``.regions`` and, when explained, ``.map``: the distances."""
        sink.array("anomaly.score", np.array([one.score for one in self.answers], np.float32))
        sink.texts("anomaly.label", [one.label or "" for one in self.answers])
        sink.texts("anomaly.regions", [regions_text(one.spots) for one in self.answers])
        maps = [one.map for one in self.answers if one.map is not None]
        if maps:
            sink.array("anomaly.map", np.stack(maps))
        if self.embedded is not None:
            put_embedded(sink, self.embedded)

    def results(self) -> tuple[AnomalyResult, ...]:
        """One result an image."""
        return self.answers


@dataclass(frozen=True, slots=True)
class AnomalyEngine:
    """A proved bundle. See ``serving.kinds.base.Engine``."""

    served: Served
    card: Card
    form: AnomalyForm
    detector: Detector
    sight: Sight

    @property
    def precision(self) -> str:
        """The extractor's."""
        return PRECISION

    def describe(self) -> dict[str, Any]:
        """What runs the extractor, and what searches the memory."""
        return {"runtime": f"onnxruntime {version('onnxruntime')}", "index": self.detector.scorer.index.name}

    def answer(
        self, images: NDArray[np.uint8], *, explain: bool = False, features: bool = False
    ) -> AnomalyBatch:
        """Score preprocessed images, uint8 [N, H, W, 3].

        Raises:
            RequestError: the images have another shape or type, or there are none.
            ServingError: the model gave something that is not a number.
        """
        scores = self.detector.score(images, maps=True, embeddings=features)
        if scores.maps is None:
            raise RequestError("There is no image to answer.")
        return AnomalyBatch(
            tuple(
                AnomalyResult(
                    form=self.form,
                    score=float(score),
                    label=self.detector.label(float(score)),
                    spots=self._spots(full),
                    map=distances if explain else None,
                )
                for score, distances, full in zip(scores.score, scores.distances, scores.maps, strict=True)
            ),
            None if scores.embedding is None else self.sight.embedded(scores.embedding),
        )

    def _spots(self, full: NDArray[np.float32]) -> tuple[Spot, ...]:
        return tuple(
            Spot(one.bbox, one.area_px, np.array(one.contour, np.int32))
            for one in self.detector.regions(full)
        )


def load_anomaly(served: Served, *, precision: str, threads: int | None) -> AnomalyEngine:
    """See ``serving.engine.load_engine``."""
    bundle = served.open(verify=True)
    if precision not in (PRECISION, AUTO):
        raise BundleError(
            f"The bundle of {bundle.card.task!r} has no approved precision {precision!r}.",
            hint=f"Approved: {PRECISION}.",
        )
    detector = open_detector(bundle, threads=threads)
    sight = sight_of(bundle, KIND.embedding(bundle.card))
    return AnomalyEngine(served, bundle.card, KIND.form(bundle), detector, sight)
