"""How far windows without a shift lie from the reference: thresholds by drawing from the reference itself.

Both sides are drawn anew with replacement, the reference as well as the window, since a reference of 500
images is itself only a sample. Images of one patient or lesion are drawn together, as they come together.

The far tail of a sum of squares falls off exponentially, so beyond the largest 2 % of the draws an
exponential is fitted: a level of 1 in 10,000 needs no million draws. Its mean is known from those few draws
alone, and the threshold allows for that: it is the one that a new draw exceeds with the chance asked for, the
mean's own chance counted in (the exponential's predictive distribution, a Lomax).
"""

from __future__ import annotations

import math
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


@dataclass(frozen=True, slots=True)
class Counts:
    """The same for a statistic that takes few values: ascending [v], with the chance of at least each."""

    values: Floats
    chances: Floats

    def threshold(self, level: float) -> float:
        """The least value that is reached with at most the chance ``level``; beyond all where none is."""
        rare = np.flatnonzero(self.chances <= level)
        return float(self.values[rare[0]]) - 1e-8 if len(rare) else 2.0 * float(self.values[-1])

    def chance(self, statistic: float) -> float:
        """The chance that a window without a shift lies at least so far off."""
        # They are rounded.
        place = int(np.searchsorted(self.values, statistic - 1e-8, side="left"))
        return float(self.chances[place]) if place < len(self.chances) else float(self.chances[-1])


def count(yes: Floats, weight: float, groups: NDArray[np.intp], images: int) -> Counts:
    """The null of a share, from the reference's answers of 0 and 1 [n]: exact, without draws.

    The share itself is known only as well as the reference tells it (a beta posterior from Jeffreys' prior),
    so that a window's count is beta-binomial. Drawing from the reference would take a share of 2 in 512 for
    certain, and alarm far too often. Where images of a group answer alike, all counts are worth fewer.
    """
    total, hits = len(yes), float(yes.sum())
    worth = 1.0 / design_effect(yes, groups)
    window = max(1, round(images * worth))
    chances = beta_binomial(window, hits * worth + 0.5, (total - hits) * worth + 0.5)
    shares = np.arange(window + 1) / window
    values = distance((shares - hits / total)[:, None], np.array([weight]), total, images)
    # The same distance above and below is one value.
    different, which = np.unique(values.round(9), return_inverse=True)
    each = np.bincount(which, weights=chances)
    return Counts(different, np.minimum(1.0, each[::-1].cumsum()[::-1]))


def design_effect(yes: Floats, groups: NDArray[np.intp]) -> float:
    """How many images are worth one, since a group's answer alike: at least 1.

    From ten answers of each kind on it is measured; of fewer, every group is taken to answer as one.
    """
    sizes = np.bincount(groups).astype(np.float64)
    least = min(float(yes.sum()), float((1.0 - yes).sum()))
    if least < 10:
        return float((sizes**2).sum() / sizes.sum())
    apart = np.bincount(groups, weights=yes - yes.mean())
    return max(1.0, float((apart**2).sum() / (len(yes) * yes.var())))


def beta_binomial(n: int, a: float, b: float) -> Floats:
    """The chance of 0, 1, … n hits where the rate is itself only known as Beta(a, b): [n + 1]."""

    def log_beta(x: float, y: float) -> float:
        return math.lgamma(x) + math.lgamma(y) - math.lgamma(x + y)

    logs = [
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
        + log_beta(k + a, n - k + b) - log_beta(a, b)
        for k in range(n + 1)
    ]  # fmt: skip
    return np.asarray(np.exp(np.array(logs)))


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
