"""Mixes: an inner strategy whose batch is spread over classes, or over slices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from serving.core.selection.base import Choice, Strategy
from serving.core.selection.pool import Candidates, Rows

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ClassBalanced:
    """Each place goes to the class that has the fewest labels; the inner strategy says which image of it.

    What is rare is never likeliest to a model that learned how rare it is. So all is judged as if every class
    were equally common: p / prior^``lean``, as Menon et al., Long-Tail Learning via Logit Adjustment, ICLR
    2021, adjust logits; ``lean`` 0 leaves the probabilities as they are. The prior is each class's share of
    the labels that there are (``labelled_classes``, each class as if it had half a label more), or where none
    is told the mean probability over the pool. An image stands for the class that is then likeliest, and the
    inner strategy sees the same probabilities.

    Of several heads each gets an equal part of the batch, by the order of names.

    The idea, in other forms: Aggarwal, Popescu and Hudelot, Active Learning for Imbalanced Datasets, WACV
    2020; Bengar et al., Class-Balanced Active Learning for Image Classification, WACV 2022.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"probabilities"})
    inner: Strategy
    lean: float = 1.0

    def choose(self, candidates: Candidates, k: int, rng: np.random.Generator) -> Choice:
        """See :class:`~serving.core.selection.base.Strategy`."""
        heads = len(candidates.heads)
        have = [
            np.bincount(known[known >= 0], minlength=values.shape[1])
            for values, known in zip(candidates.heads, candidates.known, strict=True)
        ]
        even = [
            _even(values, counts, self.lean) for values, counts in zip(candidates.heads, have, strict=True)
        ]
        leaning = replace(candidates, heads=tuple(even))
        left = np.arange(len(candidates), dtype=np.int64)
        parts: list[Choice] = []
        for head in range(heads):
            share = k // heads + (head < k % heads)
            if share:
                stands_for = even[head][left].argmax(axis=1)
                parts.append(_spread(self.inner, leaning, left, stands_for, have[head], share, rng))
                left = np.setdiff1d(left, parts[-1].rows)
        return _joined(parts)


@dataclass(frozen=True, slots=True)
class SliceBalanced:
    """The same number from every slice, as far as each goes; the inner strategy says which."""

    needs: ClassVar[frozenset[str]] = frozenset({"slices"})
    inner: Strategy

    def choose(self, candidates: Candidates, k: int, rng: np.random.Generator) -> Choice:
        """See :class:`~serving.core.selection.base.Strategy`."""
        assert candidates.slices is not None
        names, slice_of = np.unique(np.array(candidates.slices, dtype=np.str_), return_inverse=True)
        rows = np.arange(len(candidates), dtype=np.int64)
        return _spread(self.inner, candidates, rows, slice_of, np.zeros(len(names), np.int64), k, rng)


def deal(have: Ints, available: Ints, k: int) -> Ints:
    """How many of k places each cell gets, int64: always the one with the fewest that has some left.

    Ties go to the cell with fewer available, since what is rare now may be used up by the next batch.

    >>> deal(np.array([5, 1, 0]), np.array([90, 90, 2]), 6)
    array([0, 4, 2])
    """
    given = np.zeros(len(have), np.int64)
    order = np.argsort(available, kind="stable")
    for _ in range(min(k, int(available.sum()))):
        level = np.where(given < available, have + given, np.iinfo(np.int64).max)[order]
        given[order[int(level.argmin())]] += 1
    return given


def _even(values: NDArray[np.float64], counts: Ints, lean: float) -> NDArray[np.float64]:
    """Probabilities [n, C] with the classes' prior taken out."""
    prior = counts + 0.5 if counts.sum() else values.mean(axis=0)
    leaning = values / np.maximum(prior / prior.sum(), 1e-12) ** lean
    return np.asarray(leaning / np.maximum(leaning.sum(axis=1, keepdims=True), 1e-300))


def _spread(
    inner: Strategy,
    candidates: Candidates,
    rows: Rows,
    cell_of: Ints,
    have: Ints,
    k: int,
    rng: np.random.Generator,
) -> Choice:
    """Deal k places to the cells and let the inner strategy fill each, the smallest first.

    What was chosen for one cell counts as labelled for the next, so that a strategy that spreads out does so
    over the whole batch.
    """
    places = deal(have, np.bincount(cell_of, minlength=len(have)), k)
    parts: list[Choice] = []
    for cell in np.argsort(places, kind="stable").tolist():
        if places[cell]:
            members = rows[cell_of == cell]
            known = candidates.counting(_joined(parts).rows) if parts else candidates
            found = inner.choose(known.take(members), int(places[cell]), rng)
            parts.append(Choice(members[found.rows], found.scores))
    return _joined(parts)


def _joined(parts: Sequence[Choice]) -> Choice:
    return Choice(np.concatenate([p.rows for p in parts]), np.concatenate([p.scores for p in parts]))
