"""Farthest-first traversal, exact to the last tie, at the speed of matrix products.

The plain loop takes, for every row chosen, one matrix–vector product over all n rows, which reads all of
the memory for two operations a number. Three observations make it fast:

1. **Old distances are bounds.** A row's distance to the nearest chosen row only falls. What it was when
   the row was last looked at bounds it from above, so a row whose old value is below the present maximum
   can't be next. Only the rows with the largest old values (the active set) are kept up to date; a round
   ends when nothing in it exceeds the largest old value outside.
2. **Late is cheap.** A row that comes up again is compared with all rows chosen since, many rows with many at
   once: a matrix product, ten times the operations a second of the matrix–vector one. Real patches soon fall
   below the radius and never come up again; where none do (Gaussian vectors), the matrix product alone gains.
3. **float32 decides, float64 settles.** Distances come from ‖x‖² + ‖c‖² − 2·x·c in float32, of rows less
   their mean, with a proven bound E on their error. A row that leads by more than 2E is next. Where
   several are that close, theirs are computed in float64 as Σ(x − c)² over every chosen row that float32
   leaves in question.

Bounds on some principal components would skip nearly all distances of real patches, but those that are left,
one by one, cost more than all of them in products: the two rows of a single distance must be fetched first.

The bound: with u = 2⁻²⁴, B the largest ‖x‖² and γ = Du / (1 − Du), a product of D terms in any order of
summation misses by at most γ‖x‖‖c‖ (Higham 2002, §3.1), taken twice; subtracting the mean moves a
distance by at most 8uB, rounding the norms and the two additions by 9uB, a comparison by 4uB. E = 2γB +
32uB and a term for underflow covers them all.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from data.errors import DataError

Rows = NDArray[np.int64]
Floats = NDArray[np.float32]

_U = 2.0**-24
# Rows times chosen rows of one product: as fast as any larger, and its result (4 MiB) stays in the cache.
_ROWS, _COLUMNS = 2048, 512
# An active set of n/16: smaller ones need more rounds, larger ones more work a row chosen.
_SHARE, _SMALLEST, _LARGEST = 16, 4096, 65536
# Pairs whose float64 differences are held at once.
_PAIRS = 2048
_SMALLEST_BUDGET = 16 * 2**20


class Farthest:
    """One traversal: ``Farthest(x, count, start, budget).run()``."""

    def __init__(
        self,
        x: Floats,
        count: int,
        start: int,
        budget: int,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Measure all rows [n, D] from the first one.

        Raises:
            DataError: a value is not finite, or too large.
        """
        self._x = np.asarray(x)  # a memory map's own class costs on every access
        self._n, self._dim = x.shape
        self._count = count
        self._progress = progress
        # Rows of an active set that may be copied; a larger set is read in blocks each time instead.
        self._copied = max(budget, _SMALLEST_BUDGET) // (6 * self._dim + 64)
        self._active = min(max(self._n // _SHARE, _SMALLEST), _LARGEST, max(self._copied, 64))
        self._rows = min(_ROWS, max(self._copied // 4, 16))
        self._shift = self._mean()
        self._ids = np.empty(count, np.int64)
        # −2c and ‖c‖² of the rows chosen, less the mean, as the products take them.
        self._centers = np.empty((count, self._dim), np.float32)
        self._lengths = np.empty(count, np.float32)
        self._k = 0
        self._norms = np.empty(self._n, np.float32)
        #: Distance to the nearest of the first ``_seen`` rows chosen, or of some later ones as well: a bound
        #: from above within E. −inf for the rows chosen.
        self._upper = np.empty(self._n, np.float32)
        self._seen = np.ones(self._n, np.int32)
        with np.errstate(all="ignore"):  # what isn't finite is refused below
            self._choose(start)
            self._first_pass()
        largest = float(self._norms.max())
        if not largest < 1e37:
            raise DataError(
                "An embedding is not a finite number, or too large.", hint="Check the extractor that made it."
            )
        gamma = self._dim * _U / (1 - self._dim * _U)
        self._error = (2 * gamma + 32 * _U) * 1.01 * largest + (self._dim + 4) * 2.0**-124
        self._upper[start] = -np.inf

    def run(self) -> tuple[Rows, float]:
        """The rows chosen, in order, and the squared distance that none exceeds."""
        while self._k < self._n:
            tau = self._threshold()
            candidates = np.flatnonzero(self._upper >= tau)
            self._refresh(candidates)
            active = candidates[self._upper[candidates] >= tau]
            if len(active):
                radius = _Round(self, active, float(tau)).run()
                if radius is not None:
                    return self._ids, radius
        return self._ids, 0.0

    def _threshold(self) -> np.float32:
        """The value from which on rows are active in the next round."""
        lowest = np.finfo(np.float32).min  # above the −inf of the rows chosen
        if self._n <= self._active:
            return np.float32(lowest)
        kth = np.partition(self._upper, self._n - self._active)[self._n - self._active]
        # Low enough that the top row, once up to date, is ahead of all outside by more than the error.
        top = float(self._upper.max())
        return np.float32(max(min(float(kth), top - 4 * self._error), float(lowest)))

    def _mean(self) -> Floats:
        """The mean of some rows: any vector is right, one in the middle makes the error bound small."""
        some = self._x[:: max(1, self._n // 4096)][:4096]
        with np.errstate(all="ignore"):
            mean = some.mean(axis=0, dtype=np.float64)
        return np.where(np.isfinite(mean), mean, 0.0).astype(np.float32)

    def _block(self, rows: Rows | slice) -> Floats:
        """Rows less the mean, as a copy."""
        block: Floats = self._x[rows]
        if isinstance(rows, slice):
            return block - self._shift
        block -= self._shift  # already a copy
        return block

    def _choose(self, row: int) -> None:
        moved = self._block(slice(row, row + 1))[0]
        self._centers[self._k] = -2 * moved
        self._lengths[self._k] = np.square(moved, dtype=np.float64).sum()
        self._ids[self._k] = row
        self._k += 1
        if self._progress is not None and (self._k % 64 == 0 or self._k == self._count):
            self._progress(self._k, self._count)

    def _first_pass(self) -> None:
        for start in range(0, self._n, self._rows):
            block = self._block(slice(start, start + self._rows))
            part = slice(start, start + len(block))
            self._norms[part] = np.einsum("ij,ij->i", block, block, dtype=np.float64)
            self._upper[part] = block @ self._centers[0] + self._lengths[0] + self._norms[part]

    def _refresh(self, rows: Rows) -> None:
        """Compare rows with all that were chosen since each was last looked at."""
        stale = rows[self._seen[rows] < self._k]
        if not len(stale):
            return
        stale = stale[np.argsort(self._seen[stale], kind="stable")]
        seen = self._seen[stale]
        edges = [0, *(np.flatnonzero(np.diff(seen)) + 1).tolist(), len(stale)]
        for begin, end in pairwise(edges):
            for start in range(begin, end, self._rows):
                part = stale[start : min(start + self._rows, end)]
                nearest = self._products(self._block(part), int(seen[begin])) + self._norms[part]
                self._upper[part] = np.minimum(self._upper[part], nearest)
        self._seen[stale] = self._k

    def _products(self, block: Floats, first: int) -> Floats:
        """The smallest ‖c‖² − 2·x·c over the chosen rows from ``first`` on."""
        best = np.full(len(block), np.inf, np.float32)
        for start in range(first, self._k, _COLUMNS):
            part = slice(start, min(start + _COLUMNS, self._k))
            products = block @ self._centers[part].T
            products += self._lengths[part]
            np.minimum(best, products.min(axis=1), out=best)
        return best

    def _exact(self, rows: Rows) -> NDArray[np.float64]:
        """The distance to the nearest chosen row, in float64: over all that float32 leaves in question."""
        exact = np.full(len(rows), np.inf)
        step = max(1, min(self._rows, self._rows * _COLUMNS // self._k))
        for start in range(0, len(rows), step):
            part = slice(start, start + step)
            products = self._block(rows[part]) @ self._centers[: self._k].T
            products += self._lengths[: self._k]
            limit = products.min(axis=1, keepdims=True) + np.float32(2 * self._error)
            row, center = np.nonzero(products <= limit)
            row += start
            np.minimum.at(exact, row, self._pairs(rows[row], self._ids[center]))
        return exact

    def _pairs(self, rows: Rows, others: Rows | int) -> NDArray[np.float64]:
        """Σ(x − c)² in float64, pair by pair or all with one: the distance that decides."""
        found = np.empty(len(rows))
        for start in range(0, len(rows), _PAIRS):
            part = slice(start, start + _PAIRS)
            other = self._x[others if isinstance(others, int) else others[part]]
            difference = np.subtract(self._x[rows[part]], other, dtype=np.float64)
            found[part] = np.square(difference, out=difference).sum(axis=1)
        return found


class _Round:
    """The plain loop over an active set, as long as what it chooses exceeds everything outside."""

    def __init__(self, whole: Farthest, active: Rows, tau: float) -> None:
        self._whole = whole
        self._active = active
        self._tau = tau
        self._near = whole._upper[active]
        self._norms = whole._norms[active]
        self._block = whole._block(active) if len(active) <= whole._copied else None
        # Distances in float64 of those that were once in question, kept up to date; NaN elsewhere.
        self._exact = np.full(len(active), np.nan)
        self._known = np.zeros(0, np.int64)

    def run(self) -> float | None:
        """Choose rows until the round ends; the cover radius if it was the last round."""
        whole = self._whole
        radius = None
        while True:
            found = self._next()
            if found is None:
                break
            row, distance = found
            if whole._k == whole._count:
                radius = distance
                break
            if distance == 0.0:
                radius = self._fill()
                break
            self._take(row)
            if whole._k % 16 == 0 and not self._shrink():
                return None
        self._store()
        return radius

    def _next(self) -> tuple[int, float] | None:
        """The place in the active set of the next row and its distance; None where the round ends.

        The distance is exact where it is the radius or zero, and float32's otherwise.
        """
        whole, error = self._whole, self._whole._error
        top = float(self._near.max())
        if top + error <= self._tau:  # or all are chosen
            return None
        close = np.flatnonzero(self._near >= np.float32(top - 2 * error))
        if len(close) == 1 and top - error > max(self._tau + error, 0.0) and whole._k < whole._count:
            return int(close[0]), top
        unknown = close[np.isnan(self._exact[close])]
        if len(unknown):
            self._exact[unknown] = whole._exact(self._active[unknown])
            self._known = np.flatnonzero(~np.isnan(self._exact))
        values = self._exact[close]
        best = int(values.argmax())  # the first of equals: rows are in ascending order
        if values[best] <= self._tau + error:
            return None
        return int(close[best]), float(values[best])

    def _take(self, place: int) -> None:
        whole = self._whole
        row = int(self._active[place])
        whole._choose(row)
        whole._upper[row] = -np.inf
        self._near[place] = self._exact[place] = -np.inf
        distances = self._distances()
        known = self._known
        if len(known):
            closer = known[distances[known] <= self._exact[known] + whole._error]
            self._exact[closer] = np.minimum(self._exact[closer], whole._pairs(self._active[closer], row))
        np.minimum(self._near, distances, out=self._near)

    def _distances(self) -> Floats:
        """float32 distances of the active rows to the row chosen last."""
        whole = self._whole
        center = whole._centers[whole._k - 1]
        if self._block is not None:
            distances: Floats = self._block @ center
        else:
            distances = np.empty(len(self._active), np.float32)
            for start in range(0, len(distances), whole._rows):
                part = slice(start, start + whole._rows)
                distances[part] = whole._block(self._active[part]) @ center
        distances += whole._lengths[whole._k - 1]
        distances += self._norms
        return distances

    def _fill(self) -> float:
        """All rows left equal chosen ones: the lowest indices are next."""
        whole = self._whole
        self._store()
        left = np.flatnonzero(whole._upper > -np.inf)
        for row in left[: whole._count - whole._k].tolist():
            whole._choose(row)
        return 0.0

    def _shrink(self) -> bool:
        """Leave out the rows that can't be chosen in this round any more; False when none is left."""
        keep = self._near >= np.float32(self._tau)
        kept = int(np.count_nonzero(keep))
        if 2 * kept > len(keep):
            return True
        self._store()
        if not kept:
            return False
        self._active, self._near, self._norms = self._active[keep], self._near[keep], self._norms[keep]
        self._exact = self._exact[keep]
        self._known = np.flatnonzero(~np.isnan(self._exact))
        if self._block is not None:
            self._block = self._block[keep]
        elif kept <= self._whole._copied:
            self._block = self._whole._block(self._active)
        return True

    def _store(self) -> None:
        self._whole._upper[self._active] = self._near
        self._whole._seen[self._active] = self._whole._k
