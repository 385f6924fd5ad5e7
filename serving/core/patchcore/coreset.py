"""k-center greedy (farthest-first traversal): the coreset of a memory, chosen exactly.

From a seeded start, always the row that lies farthest from its nearest chosen row (Gonzalez 1985; PatchCore
calls it minimax facility location). ``farthest.py`` says how that is exact and fast at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data.errors import UsageError
from serving.core.patchcore.farthest import Farthest

#: Called with how many rows are chosen, and how many there will be.
Progress = Callable[[int, int], None]

#: What a selection may hold beside the embeddings, its blocks and its own result.
MEMORY_BYTES = 256 * 2**20


@dataclass(frozen=True, slots=True)
class Coreset:
    """``indices`` int64 [M] of the rows chosen, in the order of choosing; ``start`` is the first.

    ``radius``: no row is farther than this from the nearest one chosen (squared L2, computed in float64).
    """

    indices: NDArray[np.int64]
    radius: float
    start: int


def coreset_size(n: int, rate: float) -> int:
    """⌈n · rate⌉, at least 1 and at most n.

    Raises:
        UsageError: n is below 1, or the rate outside (0, 1].
    """
    if n < 1 or not 0 < rate <= 1:
        raise UsageError(f"A coreset of {n} patches at rate {rate} can't be.", hint="Give a rate in (0, 1].")
    # 0.02 · 35,000 is 700.0000000000001 in float64: a part of 1e-12 is rounding, not a patch more.
    return min(n, max(1, math.ceil(n * rate * (1 - 1e-12))))


def select(
    embeddings: NDArray[np.float32],
    count: int,
    *,
    seed: int = 0,
    progress: Progress | None = None,
    memory_bytes: int | None = None,
) -> Coreset:
    """Choose ``count`` of the rows of ``embeddings`` float32 [n, D] by k-center greedy.

    The selection is that of the definition with every distance computed in float64 from the float32 rows:
    the largest distance to the nearest chosen row is next, ties go to the lowest index, no row is chosen
    twice (where all that are left equal chosen ones, the lowest indices follow). The first row is drawn
    by ``seed``.

    ``embeddings`` may be a memory map; it is read in blocks and never copied whole. Beside it and the result
    the selection holds about 30 bytes a row and blocks of ``memory_bytes`` (default 256 MiB, at least 16).

    Raises:
        UsageError: ``count`` is not from 1 to n, or the embeddings aren't [n, D].
        DataError: a value is not a finite number, or too large to be squared in float32.
    """
    if embeddings.ndim != 2 or embeddings.dtype != np.float32 or embeddings.shape[1] < 1:
        raise UsageError(
            f"Embeddings are float32 [n, D], not {embeddings.dtype} {list(embeddings.shape)}.",
            hint="Flatten the patches to rows: patches.reshape(-1, D).",
        )
    n = len(embeddings)
    if not 1 <= count <= n:
        raise UsageError(f"{count} of {n} rows can't be chosen.", hint="Use coreset_size(n, rate).")
    start = int(np.random.default_rng(seed).integers(n))
    search = Farthest(embeddings, count, start, memory_bytes or MEMORY_BYTES, progress)
    indices, radius = search.run()
    return Coreset(indices, radius, start)
