"""Points pass and fail as they say, and parts that were not measured again keep what is stored."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from benchmarks.anomaly.records import Part, Point, merge, section, write


def part(name: str, value: float) -> Part:
    made = Part(name, {"rounds": 2})
    made.add("screw", "retiderm", "time", value, "s")
    made.hold("fast", value, "<=", 2.0, "said so")
    return made


@pytest.mark.parametrize(
    ("value", "relation", "bound", "passed"),
    [
        (10.0, ">=", 10, True),
        (9.99, ">=", 10, False),
        (1.02, "<=", 1.02, True),
        (1.03, "<=", 1.02, False),
        (float("nan"), ">=", 0, False),
        (float("nan"), "<=", 0, False),
    ],
)
def test_points(value: float, relation: str, bound: float, passed: bool) -> None:
    point = Point("p", value, relation, bound)  # type: ignore[arg-type]
    assert point.passed is passed
    assert point.told().startswith("pass" if passed else "FAIL")


def test_files_hold_everything_and_name_the_machine(tmp_path: Path) -> None:
    out = tmp_path / "results" / "anomaly.json"
    theirs = {"anomalib": "9.9", "torch": "1"}
    files = write(out, merge(out, {"coreset": section(part("coreset", 1.0), 2, theirs)}))
    assert [file.name for file in files] == ["anomaly.json", "anomaly.csv", "anomaly_points.csv"]
    stored = json.loads(out.read_text())["parts"]["coreset"]
    assert stored["machine"]["threads"] == 2
    assert stored["versions"]["anomalib"] == theirs
    assert "numpy" in stored["versions"]["retiderm"]
    assert stored["points"] == [
        {"name": "fast", "value": 1.0, "relation": "<=", "bound": 2.0, "note": "said so", "passed": True}
    ]
    (row,) = csv.DictReader(files[1].read_text().splitlines())
    assert (row["part"], row["contender"], row["value"], row["anomalib"]) == (
        "coreset",
        "retiderm",
        "1",
        "9.9",
    )
    assert row["cpu"]
    (row,) = csv.DictReader(files[2].read_text().splitlines())
    assert row["passed"] == "True"


def test_a_part_replaces_itself_and_leaves_the_others(tmp_path: Path) -> None:
    out = tmp_path / "anomaly.json"
    write(out, merge(out, {name: section(part(name, 1.0), 2, {}) for name in ("coreset", "quality")}))
    write(out, merge(out, {"quality": section(part("quality", 3.0), 4, {})}))
    parts = json.loads(out.read_text())["parts"]
    assert parts["coreset"]["points"][0]["passed"]
    assert not parts["quality"]["points"][0]["passed"]
    assert parts["quality"]["machine"]["threads"] == 4
