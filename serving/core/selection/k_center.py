"""k-center: images unlike all that is labelled, and unlike each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from serving.core.patchcore import coreset
from serving.core.selection.base import Choice
from serving.core.selection.pool import Candidates, Floats, Rows

# Rows of one product of distances: its result stays in the cache.
_BLOCK = 1024


@dataclass(frozen=True, slots=True)
class KCenter:
    """The image farthest from all that is labelled or chosen, again and again (core-set, greedy).

    Sener and Savarese, Active Learning for Convolutional Neural Networks: A Core-Set Approach, ICLR 2018.
    Without anything labelled it is PatchCore's coreset, whose first image is drawn by the seed. A score is
    the squared distance to the nearest one labelled or chosen before.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"embeddings"})

    def choose(self, candidates: Candidates, k: int, rng: np.random.Generator) -> Choice:
        """See :class:`~serving.core.selection.base.Strategy`."""
        x = candidates.vectors()
        if candidates.labelled is None or not len(candidates.labelled):
            rows = coreset.select(x, k, seed=int(rng.integers(2**31))).indices
            return Choice(rows, _covered(x, rows))
        near = nearest(x, candidates.labelled)
        lengths = np.square(x, dtype=np.float64).sum(axis=1)
        chosen, scores = np.empty(k, np.int64), np.empty(k)
        for place in range(k):
            row = int(near.argmax())
            chosen[place], scores[place] = row, near[row]
            near = np.minimum(near, np.maximum(lengths + lengths[row] - 2.0 * (x @ x[row]), 0.0))
            near[chosen[: place + 1]] = -1.0
        return Choice(chosen, np.maximum(scores, 0.0))


def nearest(x: Floats, centers: Floats) -> NDArray[np.float64]:
    """Of each row of [n, D] the squared distance to the nearest of [m, D], float64 [n]."""
    lengths = np.square(centers, dtype=np.float64).sum(axis=1)
    found = np.empty(len(x))
    for start in range(0, len(x), _BLOCK):
        block = x[start : start + _BLOCK]
        products = (lengths - 2.0 * (block @ centers.T)).min(axis=1)
        found[start : start + _BLOCK] = products + np.square(block, dtype=np.float64).sum(axis=1)
    return np.maximum(found, 0.0)


def _covered(x: Floats, rows: Rows) -> NDArray[np.float64]:
    """What each row was chosen for: its squared distance to those before it; the first has the largest."""
    near = np.square(x - x[rows[0]]).sum(axis=1, dtype=np.float64)
    scores = np.empty(len(rows))
    scores[0] = near.max()
    for place, row in enumerate(rows[1:], start=1):
        scores[place] = near[row]
        near = np.minimum(near, np.square(x - x[row]).sum(axis=1, dtype=np.float64))
    return scores
