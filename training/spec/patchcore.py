"""What a task of kind ``anomaly`` says about its memory: ``patchcore:`` in a task file, with its limits.

Backbone, weights and input size are the task's own keys, as for every other kind.
"""

# ruff: noqa: RUF009 - knob() is dataclasses.field() with a doc and limits
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from training.spec.reader import knob


@dataclass(frozen=True, slots=True)
class ScoreRule:
    """How an image's distances become one score."""

    kind: Literal["percentile", "top_mean"] = knob(
        "percentile", "of the blurred map, or the mean of the highest patch distances"
    )
    percentile: float = knob(99.0, "percentile: which one, of the map's pixels", low=0, high=100)
    top: int = knob(3, "top_mean: over how many patches", low=1, high=10_000)

    @staticmethod
    def shorthand(value: Any, where: str) -> Mapping[str, Any]:
        """``score: top_mean`` for ``score: {kind: top_mean}``."""
        return {"kind": value}


@dataclass(frozen=True, slots=True)
class PatchAugment:
    """Copies of the OK images that join the memory: for parts that lie in any direction."""

    turns: int = knob(
        1, "directions in the full circle, the image's own among them; 1 for none", low=1, high=64
    )
    mirror: bool = knob(False, "a mirrored copy of each as well")


@dataclass(frozen=True, slots=True)
class PatchCoreSpec:
    """``patchcore:`` in a task file."""

    layers: tuple[int, ...] = knob(
        (),
        "feature levels of a CNN (0 is the finest) or blocks of a transformer, negative from the end; "
        "none named: the two levels at strides 8 and 16, or the last block",
        low=-64,
        high=64,
    )
    stride: int | None = knob(
        None, "pixels a patch; the finest chosen level's when not given", low=1, high=64
    )
    neighbourhood: int = knob(
        3, "patches a side that are averaged, an odd number; 1 for none", low=1, high=15
    )
    balance: bool = knob(False, "give every level the same length before they are joined")
    project: int | None = knob(None, "dimensions left by a fixed random projection", low=8, high=4096)
    augment: PatchAugment = knob(PatchAugment, "copies of the OK images")
    max_patches: int = knob(1_000_000, "patches that the coreset is chosen from, at most", low=1, high=10**8)
    coreset_rate: float = knob(0.02, "part of the patches that the memory keeps", low=1e-6, high=1)
    blur_sigma: float = knob(1.0, "of the map, in pixels of the input; 0 for none", low=0, high=64)
    score: ScoreRule = knob(ScoreRule, "how a map becomes a score")
    seed: int = knob(0, "of the sampling, the projection and the coreset's start", low=0, high=2**31 - 1)
