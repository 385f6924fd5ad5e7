"""A window without a server: images through the same preparation, model and decisions, in this process."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.errors import ImageError
from data.image import STORED_LIMITS
from data.preprocess import Preprocessing
from data.provenance import cpu_quota
from data.quality import Prepared, QualityProfile, prepare
from serving.core.bundle import Bundle
from serving.core.decisions import decide
from serving.core.drift import Window
from serving.core.patchcore.detector import Detector, open_detector
from serving.core.runtimes import Runtime, open_runtime
from training.export.reference import channels

_BATCH = 16


@dataclass(frozen=True, slots=True)
class Collector:
    """Answers images with a bundle and keeps what drift is judged on."""

    bundle: Bundle
    preprocessing: Preprocessing
    quality: QualityProfile | None
    model: Runtime | Detector

    @classmethod
    def open(cls, bundle: Bundle) -> Collector:
        """Load the bundle's model, fp32, and hold it against the golden answers."""
        card = bundle.card
        return cls(
            bundle,
            Preprocessing.from_dict(card.preprocessing),
            QualityProfile.from_dict(card.quality) if card.quality else None,
            open_detector(bundle) if card.kind == "anomaly" else open_runtime(bundle),
        )

    def window(self, files: Iterable[bytes]) -> Window:
        """Encoded images, in the order in which they came. One that can't be decoded counts as refused."""
        with ThreadPoolExecutor(cpu_quota()) as pool:
            return self.of(list(pool.map(self._prepare, files)))

    def of(self, prepared: list[Prepared | None]) -> Window:
        """Prepared images; None for one that could not be."""
        count = len(prepared)
        sharpness, exposure = np.full(count, np.nan), np.full(count, np.nan)
        gradable = np.zeros(count, bool)
        for i, one in enumerate(prepared):
            if one is None:
                continue
            gradable[i] = one.verdict is None or one.verdict.verdict == "gradable"
            if one.verdict:
                sharpness[i], exposure[i] = (one.verdict.scores[name] for name in ("sharpness", "exposure"))
        answered = np.flatnonzero(gradable)
        height, width = self.preprocessing.size
        pixels = np.empty((len(answered), height, width, 3), np.uint8)
        for row, one in enumerate(one for one, fine in zip(prepared, gradable, strict=True) if one and fine):
            pixels[row] = one.pixels

        def spread(values: NDArray[Any]) -> NDArray[np.float64]:
            whole = np.full((count, *values.shape[1:]), np.nan)
            whole[answered] = values
            return whole

        answers = self._answers(pixels) if len(answered) else {}
        probabilities = {
            head.name: spread(answers[head.name]) for head in self.bundle.card.heads if head.name in answers
        }
        return Window(
            images=count,
            gradable=gradable if self.quality else None,
            sharpness=sharpness if self.quality else None,
            exposure=exposure if self.quality else None,
            colour=spread(channels(pixels)),
            embedding=spread(answers["/embedding"]) if answers else None,
            probabilities=probabilities,
            score=spread(answers["/score"]) if "/score" in answers else None,
        )

    def close(self) -> None:
        """Let the model go."""
        if not isinstance(self.model, Detector):
            self.model.close()

    def _prepare(self, data: bytes) -> Prepared | None:
        try:
            return prepare(data, self.preprocessing, self.quality, STORED_LIMITS)
        except ImageError:
            return None

    def _answers(self, pixels: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """By head's name; ``/embedding`` and ``/score`` are no head's names."""
        if isinstance(self.model, Detector):
            found = self.model.score(pixels, embeddings=True)
            assert found.embedding is not None
            return {"/embedding": found.embedding, "/score": found.score}
        parts = [
            self.model.run(pixels[start : start + _BATCH], ("logits", "embedding"))
            for start in range(0, len(pixels), _BATCH)
        ]
        logits, embedding = (
            np.concatenate([part[name] for part in parts]) for name in ("logits", "embedding")
        )
        card = self.bundle.card
        return {
            "/embedding": embedding,
            **{
                head.name: decide(logits[:, card.slices[head.name]], head).probabilities
                for head in card.heads
            },
        }
