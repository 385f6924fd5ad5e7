"""A scan's result, or the typed reason why there is none, and the documents that say so (contract S3)."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.core.face import Face, Refusal
from serving.core.measures import Measures
from serving.replies import HeadReply, ModelReply


@dataclass(frozen=True, slots=True)
class Asked:
    """A model that S3 asks: its task, its head, and the classes in the contract's order."""

    task: str
    head: str
    classes: tuple[str, ...]


ACNE = Asked("acne", "acne", ("no_acne", "acne"))
CONDITION = Asked("skin_condition", "condition", ("normal", "acne", "rosacea", "eczema", "pigmentation"))

#: The code of a face that the models' quality gate turned down; the others are ``Refusal``'s.
NOT_GRADABLE = "not_gradable"


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """The one face of a photograph, before any model is asked.

    - ``pixels``: the face's square ``uint8 [S, S, 3]``, RGB, what the models are shown.
    - ``face``: in pixels of the picture that was looked at; ``scale`` of the photograph's make one of those.
    """

    face: Face
    measures: Measures
    pixels: NDArray[np.uint8]
    scale: float


@dataclass(frozen=True, slots=True)
class ScanFailure:
    """No result. ``code`` is stable and for machines, ``message`` one sentence that says what to do.

    ``code`` is a face's ``Refusal`` (``no_face``, ``several_faces``, …) or ``not_gradable``, whose
    ``reasons`` are the quality gate's.
    """

    code: str
    message: str
    reasons: tuple[str, ...] = ()

    @classmethod
    def of(cls, refusal: Refusal) -> ScanFailure:
        """Of a photograph without one face to answer for."""
        return cls(str(refusal), refusal.message)

    def to_dict(self, scan_id: str, generated_at: datetime.datetime | None = None) -> dict[str, Any]:
        """As the result of a scan whose status is ``failed``: nothing in it could be taken for an answer."""
        reason: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.reasons:
            reason["details"] = list(self.reasons)
        return {
            "scan_id": scan_id,
            "status": "failed",
            "reason": reason,
            "generated_at": _when(generated_at),
        }


@dataclass(frozen=True, slots=True, eq=False)
class FaceScan:
    """A result. A model's part is None where no such model is served; it is then not made up either."""

    seen: Seen
    acne: ModelReply | None
    condition: ModelReply | None

    @property
    def confidence(self) -> float | None:
        """The lower of the two models' calibrated confidences; None unless both answered."""
        if self.acne is None or self.condition is None:
            return None
        return min(_head(self.acne, ACNE).confidence, _head(self.condition, CONDITION).confidence)

    def to_dict(self, scan_id: str, generated_at: datetime.datetime | None = None) -> dict[str, Any]:
        """S3's ``result``, keys in the contract's order; ``generated_at`` is now where not given."""
        return {
            "scan_id": scan_id,
            "status": "completed",
            "ml_analysis": {
                "acne_analysis": _acne(self.acne),
                "condition_analysis": _condition(self.condition),
                "ml_models_used": {
                    "acne_model": self.acne is not None,
                    "condition_model": self.condition is not None,
                },
            },
            "cv_analysis": self.seen.measures.to_dict(),
            "confidence": self.confidence,
            "generated_at": _when(generated_at),
        }


def _acne(reply: ModelReply | None) -> dict[str, Any] | None:
    if reply is None:
        return None
    head = _head(reply, ACNE)
    return {
        "detected": head.label == "acne",
        "confidence": head.confidence,
        "label": head.label,
        "probabilities": dict(head.probabilities),
    }


def _condition(reply: ModelReply | None) -> dict[str, Any] | None:
    if reply is None:
        return None
    head = _head(reply, CONDITION)
    return {
        "condition": head.label,
        "confidence": head.confidence,
        "probabilities": dict(head.probabilities),
    }


def _head(reply: ModelReply, asked: Asked) -> HeadReply:
    return reply.head(asked.head, asked.classes)


def _when(moment: datetime.datetime | None) -> str:
    return (moment or datetime.datetime.now(datetime.UTC)).isoformat()
