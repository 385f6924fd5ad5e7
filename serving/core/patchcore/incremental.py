"""Add new OK images to a memory without the old images, with a bound on what that costs."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.errors import RequestError
from serving.core.patchcore.coreset import Progress, coreset_size, select
from serving.core.patchcore.memory import Memory, MemoryInfo, now
from serving.core.patchcore.search import open_index


def extend(
    memory: Memory,
    new_embeddings: NDArray[np.float32],
    count: int | None = None,
    *,
    new_images: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    memory_bytes: int | None = None,
    pool: NDArray[np.float32] | None = None,
    **info: Any,
) -> tuple[Memory, float | None]:
    """k-center greedy over the old coreset and the new patches [n, D]; give the memory and its bound.

    The old patches are gone, so the cover radius over them can't be measured, but bounded: every old patch
    lay within R of the old coreset (its metadata's ``radius``), and every vector of the old coreset lies
    within s of the new one, so by the triangle inequality, which holds for lengths and not for their
    squares, √bound = max(√r, √R + √s), where r is the measured radius over the new patches. The bound is
    given in squared L2 and kept as the new memory's ``radius``, ``radius_exact`` False; each further
    extension adds its own √s. None where the old memory doesn't tell its radius.

    ``count`` None: ⌈rate · all patches ever fitted⌉ by the old memory's rate (its size where it tells
    none), at most what there is to choose from. ``new_images`` counts the images; ``info`` overrides other
    metadata. ``pool``: the old vectors and then the new ones in one block, from a caller that has them so (a
    memory map); else both are copied into one.

    Raises:
        RequestError: the patches are of another length.
        DataError: one is not finite.
    """
    old = memory.info or MemoryInfo()
    if new_embeddings.ndim != 2 or new_embeddings.shape[1] != memory.emb.shape[1]:
        raise RequestError(
            f"The new patches are {list(new_embeddings.shape)}, "
            f"the memory's have {memory.emb.shape[1]} numbers.",
            hint="Embed the new images with the extractor that made the memory.",
        )
    if pool is None:
        pool = np.concatenate([memory.emb, np.asarray(new_embeddings, np.float32)])
    total = (old.n_embeddings or len(memory.emb)) + len(new_embeddings)
    if count is None:
        count = coreset_size(total, old.coreset_rate) if old.coreset_rate else len(memory.emb)
    count = min(count, len(pool))
    chosen = select(pool, count, seed=seed, progress=progress, memory_bytes=memory_bytes)
    emb = pool[chosen.indices]
    bound = None
    if old.radius is not None:
        # Any vector of the new memory bounds s from above, so float32 may choose it and float64 measure it.
        _, nearest = open_index(emb, faiss=False).search(memory.emb)
        moved = np.square(memory.emb.astype(np.float64) - emb[nearest]).sum(axis=1).max()
        bound = max(chosen.radius, (math.sqrt(old.radius) + math.sqrt(moved)) ** 2)
        bound = min(bound, 4.0)  # two unit vectors are no farther apart
    images = None if old.count_images is None or new_images is None else old.count_images + new_images
    told = replace(
        old,
        count_images=images,
        n_embeddings=total,
        coreset_rate_applied=count / total,
        radius=bound,
        radius_exact=False,
        seed=seed,
        created_at=now(),
        generation=None,
        **info,
    )
    return Memory(emb, memory.token_h, memory.token_w, told), bound
