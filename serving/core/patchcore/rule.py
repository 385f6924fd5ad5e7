"""How an anomaly bundle turns patch distances into a score: what its card says in ``extra.patchcore``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.errors import BundleError
from serving.core.bundle.codec import from_plain, to_plain
from serving.core.patchcore.score import image_score

#: Where a card holds the settings: ``card.extra[KEY]``.
KEY = "patchcore"

#: The files of an anomaly bundle, beside ``card.json``, ``reference.npz`` and ``golden.npz``.
EXTRACTOR, EXTRACTOR_CARD = "extractor.onnx", "extractor.json"
MEMORY, INDEX, CALIBRATION = "memory.npz", "index.faiss", "calib.json"

#: How far a runtime's scores may lie from those stored at export, in squared L2 (which is in 0 to 4).
SCORE_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class ScoreRule:
    """One number of an image, in the unit of the distances (squared L2 between unit vectors).

    ``percentile``: that percentile of the upsampled, blurred map, as contract S4 scores. ``top_mean``: the
    mean of the ``top`` largest patch distances, before any upsampling; small defects raise it more.
    """

    kind: str = "percentile"
    percentile: float = 99.0
    top: int = 3

    def __post_init__(self) -> None:
        if self.kind not in ("percentile", "top_mean"):
            raise _wrong(f"there is no score rule {self.kind!r}")
        if not 0 <= self.percentile <= 100 or self.top < 1:
            raise _wrong(f"the score rule's numbers are {self.percentile:g} and {self.top}")

    def __call__(self, distances: NDArray[np.float32], map_: NDArray[np.float32] | None) -> float:
        """Score one image from its patch distances [Ht, Wt] and the map [h, w] made of them.

        ``top_mean`` needs no map.
        """
        if self.kind == "percentile":
            assert map_ is not None
            return image_score(map_, np.ones(map_.shape, bool), self.percentile)
        values = distances.ravel()
        top = min(self.top, values.size)
        return float(np.partition(values, values.size - top)[-top:].astype(np.float64).mean())


@dataclass(frozen=True, slots=True)
class Settings:
    """What serving an anomaly bundle needs beside its files. ``card.extra["patchcore"]`` holds it as JSON.

    ``grid`` is (Ht, Wt), the patches of an image; ``dim`` their length; ``blur_sigma`` is in pixels of the
    model's input. ``memory`` says how the memory was made: for people. Threshold and smallest region are in
    ``calib.json``.
    """

    grid: tuple[int, int]
    dim: int
    score: ScoreRule = ScoreRule()
    blur_sigma: float = 1.0
    memory: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON's own types."""
        plain: dict[str, Any] = to_plain(self)
        return plain

    @classmethod
    def from_dict(cls, value: Any) -> Settings:
        """Read them strictly; ``BundleError`` names what is wrong."""
        return from_plain(cls, value, f"card.extra.{KEY}")


def _wrong(what: str) -> BundleError:
    return BundleError(
        f"The bundle's settings can't be used: {what}.", hint="Export the bundle again from its run."
    )
