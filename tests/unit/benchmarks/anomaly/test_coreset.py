"""What counts as faster, as large and as the same selection."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.anomaly import coreset
from benchmarks.anomaly.coreset import ANOMALIB, OURS, PLAIN, Case, Taken, agreement, compete, tell
from benchmarks.anomaly.records import Part


def taken(folder: Path, name: str, seconds: list[float], *selections: list[int]) -> Taken:
    paths = []
    for number, selection in enumerate(selections):
        paths.append(folder / f"{name}-{number}.npy")
        np.save(paths[-1], np.array(selection))
    return Taken(seconds, 1000.0, 500.0, paths)


def test_identical_selections_agree(tmp_path: Path) -> None:
    found = {name: taken(tmp_path, name, [1.0], [4, 1, 9]) for name in (OURS, PLAIN)}
    assert agreement(found, {}) == (True, "identical")


@pytest.mark.parametrize(
    ("mine", "loop", "same"),
    [(0.0, 1e-7, True), (1e-15, 1e-7, True), (1e-7, 0.0, False), (1e-3, 1e-2, False), (1e-3, 1e-7, False)],
)
def test_where_they_part_ours_must_be_greedy_in_float64(
    tmp_path: Path, mine: float, loop: float, same: bool
) -> None:
    found = {
        OURS: taken(tmp_path, OURS, [1.0], [4, 1, 9]),
        PLAIN: taken(tmp_path, PLAIN, [1.0], [4, 1, 8]),
    }
    verdict, note = agreement(found, {f"{OURS} 0": {"gap": mine}, f"{PLAIN} 0": {"gap": loop}})
    assert verdict is same
    assert "choice 2" in note


def test_points_of_a_case_against_anomalib(tmp_path: Path) -> None:
    case = Case("screw", 100, 3, ANOMALIB, 2, 10)
    found = {
        OURS: taken(tmp_path, OURS, [2.0, 1.5], [0, 1, 2], [0, 1, 2]),
        ANOMALIB: taken(tmp_path, ANOMALIB, [16.0, 15.0], [0, 1, 2], [5, 6, 7]),
    }
    judged = {f"{name} {n}": {"radius": radius, "gap": 0.0} for name, n, radius in
              [(OURS, 0, 1.03), (OURS, 1, 1.03), (ANOMALIB, 0, 1.1), (ANOMALIB, 1, 1.0)]}  # fmt: skip
    part = Part("coreset", {})
    tell(part, case, found, judged)
    speed, radius = part.points
    # Fastest round against fastest round, and the radius against the best of theirs.
    assert (speed.value, speed.passed) == (10.0, True)
    assert (radius.value, radius.passed) == (pytest.approx(1.03), False)
    assert {measure.contender for measure in part.measures} == {OURS, ANOMALIB}


def test_points_of_a_large_case(tmp_path: Path) -> None:
    case = Case("gaussian", 100, 3, PLAIN, 1, 1, bounded=True)
    found = {name: taken(tmp_path, name, [2.0], [0, 1, 2]) for name in (OURS, PLAIN)}
    found[OURS].peak_mib = 5000.0
    judged = {f"{name} 0": {"radius": 1.0, "gap": 0.0} for name in found}
    part = Part("coreset", {})
    tell(part, case, found, judged)
    assert [point.passed for point in part.points] == [True, True, False]


def test_order_turns_and_the_loop_starts_where_ours_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, Any]] = []

    def run(python: Path | None, task: str, job: dict[str, Any], threads: int) -> dict[str, Any]:
        asked.append((task, job["start"]))
        answer = {"seconds": 1.0, "peak_mib": 2.0, "before_mib": 1.0}
        return {**answer, "start": 17} if task == "select" else answer

    monkeypatch.setattr(coreset, "run", run)
    case = Case("screw", 100, 3, PLAIN, 3, 3)
    found = compete(case, tmp_path / "e.npy", tmp_path, 2, tmp_path / "python")
    assert [task for task, _ in asked] == ["select", "plain", "plain", "select", "select", "plain"]
    assert all(start == 17 for task, start in asked if task == "plain")
    assert len(found[OURS].seconds) == 3
