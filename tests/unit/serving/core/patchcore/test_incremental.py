"""New images join a memory, and the bound that is stated holds for the images that are gone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from data.errors import DataError, RequestError
from serving.core.patchcore.coreset import coreset_size, select
from serving.core.patchcore.incremental import extend
from serving.core.patchcore.memory import Memory, MemoryInfo, unit

Rows = NDArray[np.float32]


def rows(seed: int, n: int, dim: int = 8) -> Rows:
    rng = np.random.default_rng(seed)
    return unit(rng.standard_normal((n, dim)) + rng.standard_normal(dim))


def fitted(patches: Rows, rate: float = 0.1) -> Memory:
    chosen = select(patches, coreset_size(len(patches), rate))
    info = MemoryInfo(
        extractor="lite0",
        coreset_rate=rate,
        count_images=2,
        n_embeddings=len(patches),
        radius=chosen.radius,
        distance="squared_l2",
        generation="old",
    )
    return Memory(patches[chosen.indices], 5, 5, info)


def cover(patches: Rows, memory: Memory) -> float:
    wide = patches.astype(np.float64)
    return float(max(np.square(memory.emb.astype(np.float64) - row).sum(axis=1).min() for row in wide))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(1, 60))
def test_the_bound_holds_for_all_that_was_ever_fitted(seed: int, times: int, new: int) -> None:
    seen = rows(seed, 80)
    memory = fitted(seen)
    for time in range(times):
        more = rows(seed + 7919 * (time + 1), new)
        memory, bound = extend(memory, more)
        seen = np.concatenate([seen, more])
        assert bound is not None
        assert cover(seen, memory) <= bound * (1 + 1e-9)
        assert memory.info is not None
        assert memory.info.radius == bound


def test_a_block_that_the_caller_has_gives_the_same() -> None:
    memory, more = fitted(rows(1, 80)), rows(2, 40)
    copied, bound = extend(memory, more)
    pool = np.concatenate([memory.emb, more])
    handed, same = extend(memory, pool[len(memory.emb) :], pool=pool)
    assert np.array_equal(copied.emb, handed.emb)
    assert bound == same


def test_the_bound_adds_lengths_not_squares() -> None:
    """On a line of angles: old patches to the left of the old coreset, a new one that takes its place."""
    angles = np.array([0.0, 0.1])
    old = Memory(
        unit(np.array([[np.cos(0.1), np.sin(0.1)]])), 1, 1, MemoryInfo(radius=float(4 * np.sin(0.05) ** 2))
    )
    memory, bound = extend(old, unit(np.array([[np.cos(0.2), np.sin(0.2)]])), 1, seed=2)
    assert bound is not None
    patches = unit(np.stack([np.cos(angles), np.sin(angles)], axis=1))
    assert cover(patches, memory) <= bound
    # Squares added instead of lengths would claim less than the truth.
    assert cover(patches, memory) > 4 * np.sin(0.05) ** 2 + 4 * np.sin(0.05) ** 2


def test_counts_and_metadata_follow() -> None:
    memory = fitted(rows(0, 100))
    found, _ = extend(memory, rows(1, 50), new_images=3, extra={"note": 1})
    assert found.emb.shape == (15, 8)
    info = found.info
    assert info is not None
    assert (info.count_images, info.n_embeddings, info.extractor) == (5, 150, "lite0")
    assert (info.coreset_rate, info.coreset_rate_applied) == (0.1, 0.1)
    assert (info.radius_exact, info.generation, info.extra) == (False, None, {"note": 1})


def test_old_patches_no_longer_near_anything_are_covered_by_the_bound() -> None:
    memory = fitted(rows(0, 100))
    _, few = extend(memory, rows(1, 50), 1)
    _, many = extend(memory, rows(1, 50), 60)
    assert few is not None
    assert many is not None
    assert many < few
    assert memory.info is not None
    assert memory.info.radius is not None
    assert many >= memory.info.radius * (1 - 1e-12)


def test_a_memory_that_does_not_tell_its_radius_has_no_bound() -> None:
    old = Memory(rows(0, 10), 2, 5)
    found, bound = extend(old, rows(1, 30))
    assert bound is None
    assert found.emb.shape == (10, 8)
    assert found.info is not None
    assert found.info.radius is None


def test_the_bound_is_never_more_than_unit_vectors_can_be_apart() -> None:
    memory = fitted(rows(0, 100))
    for seed in range(6):
        memory, bound = extend(memory, rows(seed + 1, 20), 1)
    assert bound is not None
    assert bound <= 4.0


def test_no_more_than_there_is() -> None:
    memory = fitted(rows(0, 100))
    found, _ = extend(memory, rows(1, 3), 10_000)
    assert len(found.emb) == len(memory.emb) + 3


def test_patches_of_another_extractor_are_refused() -> None:
    with pytest.raises(RequestError, match="numbers"):
        extend(fitted(rows(0, 100)), rows(1, 30, dim=9))


def test_patches_that_are_no_numbers_are_refused() -> None:
    bad = rows(1, 30)
    bad[3, 3] = np.nan
    with pytest.raises(DataError):
        extend(fitted(rows(0, 100)), bad)
