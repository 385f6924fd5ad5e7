"""Intervals by resampling the test images, as often from each class as it has images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.calibrate import Floats

LEVEL = 0.95

# A block of weights stays under this many entries (32 MB), whatever the number of images.
_BLOCK = 4_000_000


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure and the range that holds 95 % of its resampled values. ``None`` where it is not defined."""

    value: float | None
    low: float | None
    high: float | None

    def to_dict(self) -> dict[str, float | None]:
        """``{"value", "low", "high"}``."""
        return {"value": self.value, "low": self.low, "high": self.high}


def resamples(strata: NDArray[np.intp], count: int, seed: int) -> Iterator[Floats]:
    """Yield blocks [b, n] of stratified resampling counts, ``count`` rows in all, the same for one seed.

    ``strata`` [n] is each image's class. Drawing n_c of n_c images with replacement is one multinomial draw.
    """
    rng = np.random.default_rng(seed)
    groups = [np.flatnonzero(strata == value) for value in np.unique(strata)]
    block = max(1, _BLOCK // max(1, len(strata)))
    for start in range(0, count, block):
        rows = min(block, count - start)
        weights = np.empty((rows, len(strata)))
        for group in groups:
            draws = rng.integers(0, len(group), size=(rows, len(group)))
            # One bincount over shifted indices counts all rows at once.
            shifted = draws + np.arange(rows)[:, None] * len(group)
            counts = np.bincount(shifted.ravel(), minlength=rows * len(group))
            weights[:, group] = counts.reshape(rows, len(group))
        yield weights


def interval(value: float, resampled: Floats, level: float = LEVEL, *, centred: bool = False) -> Interval:
    """The figure with its percentile interval over the resamples where it is defined.

    ``centred`` moves the resamples' mean to the figure and cuts at 0. ECE needs it: resampling repeats
    images, which adds noise to every bin and so to a sum of absolute gaps; the plain interval may not even
    hold the figure.
    """
    if np.isnan(value):
        return Interval(None, None, None)
    usable = resampled[~np.isnan(resampled)]
    if not len(usable):
        return Interval(float(value), None, None)
    if centred:
        usable = np.maximum(usable - usable.mean() + value, 0.0)
    low, high = np.quantile(usable, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(value), float(low), float(high))
