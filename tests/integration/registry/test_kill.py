"""Promotions killed by SIGKILL between every two steps: nothing half-written serves; reconcile mends it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

#: Many processes, each killed at another step.
pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).with_name("dying.py")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("dying")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder)], capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return {row["point"]: row for row in rows}


@pytest.fixture(scope="module")
def deaths(rows: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {point: row for point, row in rows.items() if not point.startswith("register: ")}


def test_each_was_really_killed(rows: dict[str, dict[str, Any]]) -> None:
    assert len(rows) == 16
    assert {row["signal"] for row in rows.values()} == {9}


def test_a_killed_registration_leaves_no_version_or_a_whole_one(rows: dict[str, dict[str, Any]]) -> None:
    assert rows["register: uploading"]["seen"] == ["2", "1"]
    assert rows["register: uploaded"]["seen"] == ["2", "1"]
    assert rows["register: made"]["seen"] == ["3", "2", "1"]
    # Registering again finds the version that was made and makes no second one.
    assert rows["register: again"]["seen"] == {
        "version": "3",
        "versions": ["3", "2", "1"],
        "digest": True,
    }


def test_what_serves_after_a_death_is_whole_and_one_of_the_two(deaths: dict[str, dict[str, Any]]) -> None:
    for point, row in deaths.items():
        assert row["left"]["whole"], point
        turned = point in ("target local", "target local logged", "done", "head kept")
        assert row["left"]["serves"] == (row["to"] if turned else row["from"]), point


def test_verify_tells_what_is_unfinished_and_nothing_else(deaths: dict[str, dict[str, Any]]) -> None:
    for point, row in deaths.items():
        kinds = [finding["kind"] for finding in row["left"]["findings"]]
        if point in ("done", "head kept"):
            assert kinds == [], point
        elif point != "lost":
            assert kinds == ["unfinished"], point


def test_reconcile_finishes_and_then_all_is_well(deaths: dict[str, dict[str, Any]]) -> None:
    for point, row in deaths.items():
        if point == "lost":
            continue
        ended = (
            []
            if point in ("done", "head kept")
            else [f"Finished the unfinished promote of dr_grading to version {row['to']}."]
        )
        assert row["repairs"] == ended, point
        assert row["mended"] == {"serves": row["to"], "whole": True, "champion": row["to"], "findings": []}, (
            point
        )


def test_reconcile_undoes_what_can_not_be_finished(deaths: dict[str, dict[str, Any]]) -> None:
    row = deaths["lost"]
    assert row["repairs"][0].startswith("Undid the unfinished promote of dr_grading")
    assert row["mended"]["serves"] == row["mended"]["champion"] == row["from"]
    assert [finding["kind"] for finding in row["mended"]["findings"]] == ["bundle"]
