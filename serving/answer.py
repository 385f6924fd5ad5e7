"""An answer about one image, and the V1 document that says it (contract S5)."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.errors import ImageError
from data.quality import QualityVerdict
from serving.core.bundle import Card
from serving.engine import HeadAnswer
from serving.identity import ModelInfo

NO_EXPLANATION = "This model has no explanation."


@dataclass(frozen=True, slots=True)
class HeadResult:
    """One head's answer for one image: ``probabilities`` and ``members`` [C], ``cam`` [h, w]."""

    classes: tuple[str, ...]
    probabilities: NDArray[np.float32]
    label: int
    members: NDArray[np.bool_]
    uncertain: bool
    cam: NDArray[np.float32] | None = None

    @classmethod
    def first(cls, classes: tuple[str, ...], answer: HeadAnswer) -> HeadResult:
        """The first image's answer of an engine."""
        decision = answer.decision
        return cls(
            classes=classes,
            probabilities=decision.probabilities[0],
            label=int(decision.label[0]),
            members=decision.set[0],
            uncertain=bool(decision.uncertain[0]),
            cam=None if answer.cam is None else answer.cam[0],
        )

    def to_dict(self) -> dict[str, Any]:
        """The V1 form."""
        values = [float(value) for value in self.probabilities]
        return {
            "label": self.classes[self.label],
            "confidence": values[self.label],
            "probabilities": dict(zip(self.classes, values, strict=True)),
            "set": [name for name, inside in zip(self.classes, self.members, strict=True) if inside],
            "uncertain": self.uncertain,
        }


@dataclass(frozen=True, slots=True)
class ImageAnswer:
    """What is said about one image: an error, or a verdict and, where gradable, every head's answer.

    ``overlay`` and ``map`` are there when they were asked for and the model has an explanation;
    ``unexplained`` says why there is none although it was asked for.
    """

    model: ModelInfo
    error: ImageError | None = None
    verdict: QualityVerdict | None = None
    heads: Mapping[str, HeadResult] = field(default_factory=dict)
    overlay: bytes | None = None
    map: NDArray[np.float32] | None = None
    unexplained: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The V1 document."""
        if self.error is not None:
            return {"error": {"code": self.error.code, "message": str(self.error)}}
        assert self.verdict is not None
        document: dict[str, Any] = {
            "quality": {
                "verdict": self.verdict.verdict,
                "reasons": list(self.verdict.reasons),
                "scores": {name: float(value) for name, value in self.verdict.scores.items()},
            },
            "heads": {name: head.to_dict() for name, head in self.heads.items()},
        }
        explanation: dict[str, Any] = {}
        if self.overlay is not None:
            explanation["overlay_png"] = {"b64": base64.b64encode(self.overlay).decode()}
        if self.map is not None:
            explanation["map"] = self.map.tolist()
        if self.unexplained is not None:
            explanation["unavailable"] = self.unexplained
        if explanation:
            document["explanation"] = explanation
        document["model"] = self.model.to_dict()
        return document


def unexplained(card: Card) -> str | None:
    """Why a model has no explanation; None when it has one."""
    return None if "cam" in card.outputs else card.explanation.reason or NO_EXPLANATION
