"""Choose the next cases to label: one call, the same for every strategy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.errors import UsageError
from serving.core.selection.base import Choice, Strategy
from serving.core.selection.pool import Candidates, Pool, Rows
from serving.core.selection.registry import strategy as strategy_of


@dataclass(frozen=True, slots=True)
class Selection:
    """A batch, and all that is needed to choose it again.

    ``ids`` in the order of choosing; ``scores``: the strategy's own measure of each, larger is more, not to
    be compared between strategies. ``pool``: the digest of what it was chosen from.
    """

    ids: tuple[str, ...]
    scores: tuple[float, ...]
    strategy: str
    seed: int
    pool: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def to_dict(self) -> dict[str, Any]:
        """What a log holds."""
        return {
            "ids": list(self.ids),
            "scores": list(self.scores),
            "strategy": self.strategy,
            "seed": self.seed,
            "pool": self.pool,
            "options": dict(self.options),
        }


def select(
    pool: Pool, strategy: str, k: int, seed: int, *, per_group: int | None = None, **options: Any
) -> Selection:
    """Choose ``k`` cases of a pool, or all that may be chosen where they are fewer.

    The same pool (in any order), strategy, k, seed and options give the same batch. Images that aren't
    gradable are never chosen. ``per_group``: at most so many of one group. ``options``: the strategy's own.

    Raises:
        UsageError: the strategy or an option isn't known, k is below 1, or the pool lacks what the strategy
            needs.
    """
    if k < 1 or (per_group is not None and per_group < 1):
        raise UsageError(f"A batch of {k} can't be chosen.", hint="k and per_group are 1 at least.")
    if per_group is not None and pool.groups is None:
        raise UsageError("per_group needs the pool's groups.", hint="Give Pool(groups=…).")
    chosen = strategy_of(strategy, **options)
    _has_all(pool, chosen, strategy)
    candidates, rows = Candidates.of(pool)
    rng = np.random.default_rng(seed)
    groups = None if pool.groups is None or per_group is None else [pool.groups[row] for row in rows]
    choice = _within_groups(chosen, candidates, k, rng, groups, per_group or 0)
    kept = options if per_group is None else {**options, "per_group": per_group}
    return Selection(
        ids=tuple(pool.ids[row] for row in rows[choice.rows]),
        scores=tuple(float(score) for score in choice.scores),
        strategy="".join(strategy.split()),
        seed=seed,
        pool=pool.digest(),
        options=kept,
    )


def _has_all(pool: Pool, chosen: Strategy, name: str) -> None:
    """Refuse a pool without what the strategy, or one inside it, needs."""
    part: Any = chosen
    while part is not None:
        for what in sorted(part.needs):
            if getattr(pool, what) is None or (what == "probabilities" and not pool.heads()):
                raise UsageError(
                    f"The strategy {name} needs the pool's {what}, and there are none.",
                    hint=f"Give Pool({what}=…), or choose a strategy that needs none.",
                )
        part = getattr(part, "inner", None)


def _within_groups(
    chosen: Strategy,
    candidates: Candidates,
    k: int,
    rng: np.random.Generator,
    groups: list[str] | None,
    most: int,
) -> Choice:
    """Choose; where a group has more than its share, drop the surplus and choose again among the others."""
    taken: list[int] = []
    scores: list[float] = []
    left: Rows = np.arange(len(candidates), dtype=np.int64)
    counts: Counter[str] = Counter()
    while len(taken) < k and len(left):
        known = candidates.counting(np.array(taken, np.int64)) if taken else candidates
        found = chosen.choose(known.take(left), min(k - len(taken), len(left)), rng)
        for row, score in zip(left[found.rows].tolist(), found.scores.tolist(), strict=True):
            group = groups[row] if groups else ""
            if group and counts[group] >= most:
                continue
            counts[group] += 1
            taken.append(row)
            scores.append(score)
        full = _full(groups, counts, most)
        left = np.setdiff1d(left, np.array(taken, np.int64))
        left = left[~full[left]] if full is not None else left
    return Choice(np.array(taken, np.int64), np.array(scores))


def _full(groups: list[str] | None, counts: Counter[str], most: int) -> NDArray[np.bool_] | None:
    """bool [n]: whose group has its share; None where groups don't count."""
    if groups is None:
        return None
    return np.array([bool(group) and counts[group] >= most for group in groups], bool)
