"""What a strategy is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from serving.core.selection.pool import Candidates, Rows


@dataclass(frozen=True, slots=True)
class Choice:
    """``rows`` int64 [k] of the candidates, the first chosen first; ``scores`` float64 [k], each strategy's
    own measure of why, larger is more."""

    rows: Rows
    scores: NDArray[np.float64]


class Strategy(Protocol):
    """One way to choose. A strategy's fields are its options."""

    #: What it can't do without: ``probabilities``, ``embeddings``, ``slices``.
    needs: ClassVar[frozenset[str]]

    def choose(self, candidates: Candidates, k: int, rng: np.random.Generator) -> Choice:
        """Choose k rows, 1 <= k <= n. The same candidates and generator give the same choice."""
        ...


def first(scores: NDArray[np.float64], k: int) -> Choice:
    """The k largest scores; of equal ones the lowest row, which is the first id."""
    rows = np.argsort(-scores, kind="stable")[:k].astype(np.int64)
    return Choice(rows, scores[rows])
