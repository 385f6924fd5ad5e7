"""k-center greedy: the selection of the definition to the last tie, its radius, its limits and refusals."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from data.errors import DataError, UsageError
from serving.core.patchcore import farthest
from serving.core.patchcore.coreset import coreset_size, select

Rows = NDArray[np.float32]


def brute(rows: Rows, count: int, start: int) -> tuple[list[int], float]:
    """The definition, word for word, in float64."""
    wide = rows.astype(np.float64)
    chosen = [start]
    nearest = np.square(wide - wide[start]).sum(axis=1)
    while len(chosen) < count:
        free = np.ones(len(rows), bool)
        free[chosen] = False
        row = int(np.where(free, nearest, -1.0).argmax())
        chosen.append(row)
        nearest = np.minimum(nearest, np.square(wide - wide[row]).sum(axis=1))
    return chosen, float(nearest.max())


def unit(rows: NDArray[np.floating]) -> Rows:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def gaussian(rng: np.random.Generator, n: int, dim: int) -> Rows:
    return unit(rng.standard_normal((n, dim)))


def duplicates(rng: np.random.Generator, n: int, dim: int) -> Rows:
    return gaussian(rng, max(1, n // 4), dim)[rng.integers(0, max(1, n // 4), n)]


def lattice(rng: np.random.Generator, n: int, dim: int) -> Rows:
    """Whole numbers: exact ties everywhere, in any order of summation."""
    return rng.integers(-2, 3, (n, dim)).astype(np.float32)


def axes(rng: np.random.Generator, n: int, dim: int) -> Rows:
    return np.eye(dim, dtype=np.float32)[rng.integers(0, dim, n)]


def clusters(rng: np.random.Generator, n: int, dim: int) -> Rows:
    """Tight clusters: distances inside are below float32's error on the whole."""
    centers = rng.standard_normal((3, dim)) * 5
    return (centers[rng.integers(0, 3, n)] + 1e-5 * rng.standard_normal((n, dim))).astype(np.float32)


def far_away(rng: np.random.Generator, n: int, dim: int) -> Rows:
    return (1000 + rng.standard_normal((n, dim))).astype(np.float32)


def one_ulp(rng: np.random.Generator, n: int, dim: int) -> Rows:
    """Rows that differ in last bits only."""
    base = gaussian(rng, 2, dim)[rng.integers(0, 2, n)]
    return np.nextafter(base, rng.choice([-10, 10], (n, dim)).astype(np.float32))


def tiny(rng: np.random.Generator, n: int, dim: int) -> Rows:
    return (1e-20 * rng.standard_normal((n, dim))).astype(np.float32)


KINDS = [gaussian, duplicates, lattice, axes, clusters, far_away, one_ulp, tiny]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("small", [False, True], ids=["one_round", "many_rounds"])
def test_selection_is_brute_force_on_a_thousand_small_cases(
    kind: Callable[[np.random.Generator, int, int], Rows], small: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """8 kinds × 2 sizes of the active set × 75 cases; both kinds of round must be exact."""
    if small:
        for name, value in {"_SMALLEST": 3, "_SHARE": 8, "_ROWS": 4, "_COLUMNS": 3, "_PAIRS": 5}.items():
            monkeypatch.setattr(farthest, name, value)
    for seed in range(75):
        rng = np.random.default_rng(seed)
        n, dim = int(rng.integers(1, 70)), int(rng.integers(1, 12))
        count = int(rng.integers(1, n + 1))
        rows = kind(rng, n, dim)
        found = select(rows, count, seed=seed)
        indices, radius = brute(rows, count, found.start)
        assert found.indices.tolist() == indices, (seed, n, dim, count)
        assert found.radius == radius


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_selection_is_brute_force_on_a_larger_case(
    kind: Callable[[np.random.Generator, int, int], Rows], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(farthest, "_SMALLEST", 100)
    rows = kind(np.random.default_rng(5), 1500, 48)
    found = select(rows, 150, seed=1)
    assert (found.indices.tolist(), found.radius) == brute(rows, 150, found.start)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.lists(st.sampled_from([0.0, 0.5, 1.0, -1.0]), min_size=2, max_size=2), min_size=1, max_size=25
    ),
    st.data(),
)
def test_selection_is_brute_force_where_most_is_tied(points: list[list[float]], data: st.DataObject) -> None:
    rows = np.array(points, np.float32)
    count = data.draw(st.integers(1, len(rows)))
    found = select(rows, count, seed=data.draw(st.integers(0, 3)))
    assert (found.indices.tolist(), found.radius) == brute(rows, count, found.start)


def test_a_memory_map_and_a_strided_view_give_the_same(tmp_path: Path) -> None:
    rows = gaussian(np.random.default_rng(0), 400, 16)
    np.save(tmp_path / "rows.npy", rows)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r", allow_pickle=False)
    wide = np.zeros((800, 32), np.float32)
    wide[::2, ::2] = rows
    whole = select(rows, 40).indices.tolist()
    assert select(mapped, 40).indices.tolist() == whole
    assert select(wide[::2, ::2], 40).indices.tolist() == whole


def test_no_row_twice_and_equal_rows_in_order() -> None:
    found = select(np.ones((6, 3), np.float32), 6, seed=3)
    rest = [row for row in range(6) if row != found.start]
    assert found.indices.tolist() == [found.start, *rest]
    assert found.radius == 0.0


def test_the_seed_draws_the_start_and_nothing_else() -> None:
    rows = gaussian(np.random.default_rng(0), 300, 8)
    assert select(rows, 30, seed=4).indices.tolist() == select(rows, 30, seed=4).indices.tolist()
    assert len({select(rows, 1, seed=seed).start for seed in range(20)}) > 10


def test_progress_ends_with_all() -> None:
    seen: list[tuple[int, int]] = []
    select(gaussian(np.random.default_rng(0), 900, 8), 200, progress=lambda *at: seen.append(at))
    assert seen == sorted(seen)
    assert seen[-1] == (200, 200)


def test_a_small_budget_changes_nothing_but_memory() -> None:
    rows = gaussian(np.random.default_rng(2), 60_000, 96)
    wanted = select(rows, 60)
    tracemalloc.start()
    found = select(rows, 60, memory_bytes=1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.indices.tolist() == wanted.indices.tolist()
    # 16 MiB is the least; 30 bytes a row, and the rows chosen.
    assert peak < 16 * 2**20 + 30 * len(rows) + 60 * 96 * 8


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_what_is_not_finite_is_refused(value: float) -> None:
    rows = gaussian(np.random.default_rng(0), 50, 4)
    rows[17, 2] = value
    with pytest.raises(DataError, match="not a finite number"):
        select(rows, 5)


@pytest.mark.parametrize(
    ("rows", "count"),
    [
        (np.ones((5, 2), np.float32), 0),
        (np.ones((5, 2), np.float32), 6),
        (np.ones((0, 2), np.float32), 1),
        (np.ones((5, 2)), 2),
        (np.ones((5, 2, 2), np.float32), 2),
        (np.ones((5, 0), np.float32), 2),
    ],
)
def test_what_can_not_be_chosen_is_refused(rows: Rows, count: int) -> None:
    with pytest.raises(UsageError):
        select(rows, count)


@pytest.mark.parametrize(
    ("n", "rate", "size"),
    [(34992, 0.02, 700), (35000, 0.02, 700), (1, 0.02, 1), (10, 0.02, 1), (10, 1.0, 10), (51, 0.02, 2)],
)
def test_coreset_size(n: int, rate: float, size: int) -> None:
    assert coreset_size(n, rate) == size


@pytest.mark.parametrize(("n", "rate"), [(0, 0.1), (5, 0.0), (5, 1.5), (5, float("nan"))])
def test_coreset_size_refuses(n: int, rate: float) -> None:
    with pytest.raises(UsageError):
        coreset_size(n, rate)
