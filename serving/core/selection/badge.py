"""BADGE: images that would change the model most, each in another way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from serving.core.selection.base import Choice
from serving.core.selection.pool import Candidates


@dataclass(frozen=True, slots=True)
class Badge:
    """Images whose gradients are large and point different ways.

    Ash, Zhang, Krishnamurthy, Langford and Agarwal, Deep Batch Active Learning by Diverse, Uncertain Gradient
    Lower Bounds, ICLR 2020. An image's gradient at the last layer, its likeliest class taken for the truth,
    is (p − e_ŷ) ⊗ x; k-means++ seeding draws from them, the largest first and each further one with a
    probability in proportion to its squared distance to the nearest chosen. Of several heads the gradients
    stand side by side. A score is that squared distance.

    The products are never formed: ⟨a ⊗ x, b ⊗ y⟩ = ⟨a, b⟩⟨x, y⟩.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"probabilities", "embeddings"})

    def choose(self, candidates: Candidates, k: int, rng: np.random.Generator) -> Choice:
        """See :class:`~serving.core.selection.base.Strategy`."""
        x = candidates.vectors()
        a = np.concatenate([_residuals(values) for values in candidates.heads], axis=1)
        lengths = np.square(a).sum(axis=1) * np.square(x, dtype=np.float64).sum(axis=1)
        near = lengths.copy()
        left = np.ones(len(x), bool)
        chosen, scores = np.empty(k, np.int64), np.empty(k)
        for place in range(k):
            row = int(lengths.argmax()) if place == 0 else _draw(np.where(left, near, 0.0), left, rng)
            chosen[place], scores[place] = row, near[row]
            left[row] = False
            apart = lengths + lengths[row] - 2.0 * (a @ a[row]) * (x @ x[row])
            near = np.minimum(near, np.maximum(apart, 0.0)) if place else np.maximum(apart, 0.0)
        return Choice(chosen, scores)


def _residuals(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    values = probabilities.copy()
    values[np.arange(len(values)), values.argmax(axis=1)] -= 1.0
    return values


def _draw(weights: NDArray[np.float64], left: NDArray[np.bool_], rng: np.random.Generator) -> int:
    """A row by its weight; by chance among those left where no weight is."""
    total = np.cumsum(weights)
    if not total[-1] > 0:
        places = np.flatnonzero(left)
        return int(places[rng.integers(len(places))])
    # The last row with a weight, should rounding put the draw beyond the sum.
    place = min(int(np.searchsorted(total, rng.random() * total[-1], side="right")), len(weights) - 1)
    return place if weights[place] > 0 else int(np.flatnonzero(weights)[-1])
