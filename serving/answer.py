"""An answer about one image, and the V1 document that says it (contract S5)."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.errors import ImageError
from data.quality import QualityVerdict
from serving.identity import ModelInfo
from serving.kinds.base import Result


@dataclass(frozen=True, slots=True)
class ImageAnswer:
    """What is said about one image: an error, or a verdict and, where gradable, the model's result.

    ``view`` is the model's input as a PNG. ``overlay`` and ``map`` (the first head's) are there when they
    were asked for and the model has an explanation; where it has several heads, the document then holds each
    one's map too. ``unexplained`` says why there is none although it was asked for.
    """

    model: ModelInfo
    error: ImageError | None = None
    verdict: QualityVerdict | None = None
    result: Result | None = None
    overlay: bytes | None = None
    map: NDArray[np.float32] | None = None
    view: bytes | None = None
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
            "heads": {},
        }
        if self.result is not None:
            document.update(self.result.to_dict())
        explanation: dict[str, Any] = {}
        if self.overlay is not None:
            explanation["overlay_png"] = {"b64": base64.b64encode(self.overlay).decode()}
        if self.view is not None:
            explanation["view_png"] = {"b64": base64.b64encode(self.view).decode()}
        if self.map is not None:
            explanation["map"] = self.map.tolist()
            maps = self.result.maps() if self.result is not None else {}
            if maps:
                explanation["maps"] = {head: found.tolist() for head, found in maps.items()}
        if self.unexplained is not None:
            explanation["unavailable"] = self.unexplained
        if explanation:
            document["explanation"] = explanation
        document["model"] = self.model.to_dict()
        return document
