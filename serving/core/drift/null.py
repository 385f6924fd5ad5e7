"""How far windows without a shift lie from the reference: thresholds by drawing from the reference itself.

Both sides are drawn anew with replacement, the reference as well as the window, since a reference of 500
images is itself only a sample. Images of one patient or lesion are drawn together, as they come together.

The far tail of a sum of squares falls off exponentially, so beyond the largest 2 % of the draws an
exponential is fitted: a level of 1 in 10,000 needs no million draws. Its mean is known from those few draws
alone, and the threshold allows for that: it is the one that a new draw exceeds with the chance asked for, the
mean's own chance counted in (the exponential's predictive distribution, a Lomax).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: The share of the draws that the tail is fitted to.
TAIL = 0.02
_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Null:
    """The distribution of a statistic where nothing has shifted: ``values`` sorted [draws]."""

    values: Floats
    start: float
    excess: float

    @classmethod
    def of(cls, values: Floats) -> Null:
        """From draws [draws], in any order."""
        ordered = np.sort(values)
        start = float(np.quantile(ordered, 1.0 - TAIL))
        beyond = ordered[ordered > start]
        return cls(ordered, start, float((beyond - start).mean()) if len(beyond) else 0.0)

    @property
    def beyond(self) -> int:
        """How many draws the tail is fitted to."""
        return max(1, round(TAIL * len(self.values)))

    def threshold(self, level: float) -> float:
        """What is exceeded with the chance ``level``."""
        if level >= TAIL:
            return float(np.quantile(self.values, 1.0 - level))
        beyond = self.beyond
        return self.start + self.excess * beyond * float((TAIL / level) ** (1.0 / beyond) - 1.0)

    def chance(self, statistic: float) -> float:
        """The chance that a window without a shift lies at least so far off."""
        if statistic <= self.start or self.excess == 0.0:
            above = len(self.values) - np.searchsorted(self.values, statistic, side="left")
            return float((above + 1) / (len(self.values) + 1))
        far = (statistic - self.start) / (self.excess * self.beyond)
        return TAIL * float((1.0 + far) ** -self.beyond)


def distance(difference: Floats, weights: Floats, reference: Floats | int, window: Floats | int) -> Floats:
    """The statistic of mean differences [..., f]: 1 is what chance gives on average, whatever the sizes."""
    return np.asarray((difference**2) @ weights / (1.0 / reference + 1.0 / window))


def draw(
    columns: Floats, weights: Floats, groups: NDArray[np.intp], images: int, draws: int, seed: int
) -> Null:
    """The null of windows of ``images``, from the reference's columns [n, f] and groups [n] (0 to G - 1)."""
    count = int(groups.max()) + 1
    sizes = np.bincount(groups, minlength=count).astype(np.float32)
    sums = np.zeros((count, columns.shape[1]), np.float32)
    # Centred first: single precision then loses nothing that matters.
    np.add.at(sums, groups, (columns - columns.mean(axis=0)).astype(np.float32))
    drawn = max(2, round(images * count / len(columns)))
    rng = np.random.default_rng(seed)
    found = []
    for start in range(0, draws, _AT_ONCE):
        rows = min(_AT_ONCE, draws - start)
        one, one_size = _means(rng, rows, count, sums, sizes)
        other, other_size = _means(rng, rows, drawn, sums, sizes)
        found.append(distance(other - one, weights, one_size, other_size))
    # A draw with replacement varies by (G - 1) / G of what it should.
    return Null.of(np.concatenate(found) * (count / max(1, count - 1)))


def _means(
    rng: np.random.Generator, rows: int, drawn: int, sums: NDArray[np.float32], sizes: NDArray[np.float32]
) -> tuple[Floats, Floats]:
    count = len(sizes)
    chosen = rng.integers(0, count, (rows, drawn)) + count * np.arange(rows)[:, None]
    times = np.bincount(chosen.ravel(), minlength=rows * count).reshape(rows, count).astype(np.float32)
    images = (times @ sizes).astype(np.float64)
    return np.asarray((times @ sums) / images[:, None], dtype=np.float64), images
