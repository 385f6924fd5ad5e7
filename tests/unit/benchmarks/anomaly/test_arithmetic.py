"""The plain loop is what it says, and the judge sees every wrong choice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.anomaly.arithmetic import first_difference, gaussian, judge, peak_mib, plain_select


def unit(n: int, dim: int, seed: int) -> NDArray[np.float32]:
    values = np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def by_hand(points: NDArray[np.float32], count: int, start: int) -> list[int]:
    """k-center greedy from its definition, in float64."""
    wide = points.astype(np.float64)
    chosen = [start]
    while len(chosen) < count:
        nearest = np.min([((wide - wide[c]) ** 2).sum(1) for c in chosen], axis=0)
        chosen.append(int(nearest.argmax()))
    return chosen


@pytest.mark.parametrize("seed", range(20))
def test_plain_loop_is_k_center_greedy(seed: int) -> None:
    points = unit(60, 12, seed)
    assert plain_select(points, 9, seed).tolist() == by_hand(points, 9, seed)


@pytest.mark.parametrize("n", [30, 9000])
def test_judge_accepts_a_greedy_selection_and_gives_its_radius(n: int) -> None:
    points = unit(n, 8, 3)
    chosen = np.array(by_hand(points, 7, 2))
    found = judge(points, chosen)
    wide = points.astype(np.float64)
    nearest = np.min([((wide - wide[c]) ** 2).sum(1) for c in chosen], axis=0)
    assert found.gap == pytest.approx(0, abs=1e-14)
    assert found.radius == pytest.approx(nearest.max(), rel=1e-12)


@pytest.mark.parametrize("place", [1, 4, 6])
def test_judge_sees_a_choice_that_was_not_the_farthest(place: int) -> None:
    points = unit(200, 8, 5)
    chosen = np.array(by_hand(points, 7, 0))
    chosen[place] = next(i for i in range(200) if i not in chosen)
    assert judge(points, chosen).gap > 1e-3


def test_first_difference() -> None:
    one = np.array([4, 2, 9])
    assert first_difference(one, one.copy()) is None
    assert first_difference(one, np.array([4, 3, 9])) == 1
    assert first_difference(one, one[:2]) == 2


def test_gaussian_points_are_unit_vectors_of_a_seed(tmp_path: Path) -> None:
    gaussian(tmp_path / "a.npy", 70_000, 3, 1)
    gaussian(tmp_path / "b.npy", 70_000, 3, 1)
    a = np.load(tmp_path / "a.npy", allow_pickle=False)
    assert a.shape == (70_000, 3)
    assert a.dtype == np.float32
    assert np.allclose(np.linalg.norm(a, axis=1), 1, atol=1e-6)
    assert (a == np.load(tmp_path / "b.npy", allow_pickle=False)).all()


def test_peak_memory_covers_what_is_held() -> None:
    before = peak_mib("VmRSS")
    held = np.ones(80 * 2**17)
    assert peak_mib() >= peak_mib("VmRSS") >= before + 60
    assert held[0] == 1
    with pytest.raises(RuntimeError, match="VmNothing"):
        peak_mib("VmNothing")
