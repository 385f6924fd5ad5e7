"""Doubt, from the probabilities alone. Over several heads it is the mean of the heads', each in 0 to 1.

Sources: least confidence, Lewis and Gale 1994, Culotta and McCallum 2005; margin, Scheffer, Decomain and
Wrobel 2001; entropy, Shannon 1948; compared by Settles, Active Learning Literature Survey, 2009.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from serving.core.selection.base import Choice, first
from serving.core.selection.pool import Candidates

_PROBABILITIES = frozenset({"probabilities"})
Values = NDArray[np.float64]


def entropy(probabilities: Values) -> Values:
    """−Σ p ln p / ln C of [n, C]: 0 where one class has all, 1 where all have the same."""
    logs = np.log(np.maximum(probabilities, 1e-300))
    # + 0.0: of a certain answer the sum is -0.0.
    return np.asarray(-(probabilities * logs).sum(axis=1) / np.log(probabilities.shape[1]) + 0.0)


def margin(probabilities: Values) -> Values:
    """1 − (the highest − the second highest) of [n, C]: 1 where two classes are level."""
    top = np.partition(probabilities, probabilities.shape[1] - 2, axis=1)[:, -2:]
    return np.asarray(1.0 - (top[:, 1] - top[:, 0]))


def least_confidence(probabilities: Values) -> Values:
    """(1 − the highest) · C / (C − 1) of [n, C]: 1 where all classes have the same."""
    classes = probabilities.shape[1]
    return np.asarray((1.0 - probabilities.max(axis=1)) * classes / (classes - 1))


def mean_doubt(measure: Callable[[Values], Values], candidates: Candidates) -> Values:
    """The mean over heads of a measure, float64 [n]."""
    return np.asarray(np.mean([measure(values) for values in candidates.heads], axis=0))


@dataclass(frozen=True, slots=True)
class Entropy:
    """The highest entropy first."""

    needs: ClassVar[frozenset[str]] = _PROBABILITIES

    def choose(self, candidates: Candidates, k: int, rng: np.random.Generator) -> Choice:
        """See :class:`~serving.core.selection.base.Strategy`."""
        return first(mean_doubt(entropy, candidates), k)


@dataclass(frozen=True, slots=True)
class Margin:
    """The two best classes closest first."""

    needs: ClassVar[frozenset[str]] = _PROBABILITIES

    def choose(self, candidates: Candidates, k: int, rng: np.random.Generator) -> Choice:
        """See :class:`~serving.core.selection.base.Strategy`."""
        return first(mean_doubt(margin, candidates), k)


@dataclass(frozen=True, slots=True)
class LeastConfidence:
    """The lowest confidence first."""

    needs: ClassVar[frozenset[str]] = _PROBABILITIES

    def choose(self, candidates: Candidates, k: int, rng: np.random.Generator) -> Choice:
        """See :class:`~serving.core.selection.base.Strategy`."""
        return first(mean_doubt(least_confidence, candidates), k)


@dataclass(frozen=True, slots=True)
class Random:
    """Any, all equally likely: the baseline, and the audit."""

    needs: ClassVar[frozenset[str]] = frozenset()

    def choose(self, candidates: Candidates, k: int, rng: np.random.Generator) -> Choice:
        """See :class:`~serving.core.selection.base.Strategy`."""
        rows = rng.permutation(len(candidates))[:k].astype(np.int64)
        return Choice(rows, np.zeros(k))
