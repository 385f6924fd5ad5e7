"""k-center greedy: the coreset of a memory, chosen exactly."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data.errors import DataError, UsageError

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Coreset:
    """``indices`` int64 [M] of the rows chosen, in the order of choosing; ``start`` is the first.

    ``radius``: no row is farther than this from the nearest one chosen (squared L2); exact.
    """

    indices: NDArray[np.int64]
    radius: float
    start: int


def coreset_size(n: int, rate: float) -> int:
    """⌈n · rate⌉, at least 1 and at most n."""
    if n < 1 or not 0 < rate <= 1:
        raise UsageError(f"A coreset of {n} patches at rate {rate} can't be.", hint="Give a rate in (0, 1].")
    return min(n, max(1, math.ceil(n * rate)))


def select(
    embeddings: NDArray[np.float32],
    count: int,
    *,
    seed: int = 0,
    progress: Progress | None = None,
    memory_bytes: int | None = None,
) -> Coreset:
    """Choose ``count`` of the rows [n, D]: from a seeded start always the row farthest from those chosen."""
    n = len(embeddings)
    if embeddings.ndim != 2 or not 1 <= count <= n:
        raise UsageError(f"{count} of {n} rows can't be chosen.")
    if not np.isfinite(embeddings).all():
        raise DataError("An embedding is not a finite number.")
    start = int(np.random.default_rng(seed).integers(n))
    chosen = [start]
    nearest = np.full(n, np.inf)
    free = np.ones(n, bool)
    while True:
        difference = embeddings - embeddings[chosen[-1]]
        np.minimum(nearest, np.square(difference, dtype=np.float64).sum(axis=1), out=nearest)
        free[chosen[-1]] = False
        if progress is not None:
            progress(len(chosen), count)
        if len(chosen) == count:
            break
        chosen.append(int(np.where(free, nearest, -1.0).argmax()))
    return Coreset(np.array(chosen, np.int64), float(nearest.max()), start)
