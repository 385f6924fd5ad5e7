"""Intervals by resampling the test images, or the groups (patients, lesions) they come in, class by class."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

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


def resamples(
    strata: NDArray[np.intp], count: int, seed: int, groups: NDArray[Any] | None = None
) -> Iterator[Floats]:
    """Yield blocks [b, n] of stratified resampling counts, ``count`` rows in all, the same for one seed.

    ``strata`` [n] is each image's class. Drawing n_c of n_c images with replacement is one multinomial draw.

    ``groups`` [n] names what images belong to that are not independent: a patient, a lesion. Where one holds
    several images, groups are drawn instead, whole, from among those of the same class: a group's class is
    its most frequent one (the lowest of equals). That is a cluster bootstrap: each resample then has as many
    groups of each class as there are, and about as many images.
    """
    rng = np.random.default_rng(seed)
    member: NDArray[np.intp] | None = None
    units = strata
    if groups is not None and (found := np.unique(groups, return_inverse=True))[0].size < len(strata):
        member = found[1].reshape(-1)
        units = _commonest(strata, member, found[0].size)
    parts = [np.flatnonzero(units == value) for value in np.unique(units)]
    block = max(1, _BLOCK // max(1, len(strata)))
    for start in range(0, count, block):
        rows = min(block, count - start)
        weights = np.empty((rows, len(units)))
        for part in parts:
            draws = rng.integers(0, len(part), size=(rows, len(part)))
            # One bincount over shifted indices counts all rows at once.
            shifted = draws + np.arange(rows)[:, None] * len(part)
            counts = np.bincount(shifted.ravel(), minlength=rows * len(part))
            weights[:, part] = counts.reshape(rows, len(part))
        yield weights if member is None else weights[:, member]


def _commonest(strata: NDArray[np.intp], member: NDArray[np.intp], count: int) -> NDArray[np.intp]:
    """Each group's most frequent class, as an index into the classes that occur; the lowest of equals."""
    kinds, kind = np.unique(strata, return_inverse=True)
    cells = np.bincount(member * len(kinds) + kind.reshape(-1), minlength=count * len(kinds))
    return np.asarray(cells.reshape(count, len(kinds)).argmax(axis=1))


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
