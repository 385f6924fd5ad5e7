"""What a run writes: measures and points, as JSON and as CSV, each part with its machine and versions."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from data.files import atomic_path, read_json, write_json
from data.provenance import code_digest, hardware, versions

PACKAGES = ("torch", "timm", "numpy", "onnxruntime", "faiss-cpu", "opencv-python-headless", "kserve")
#: The code whose speed and answers are measured.
CODE = ("serving/core/patchcore", "serving/patchcore", "training/patchcore", "benchmarks/anomaly")


@dataclass(frozen=True, slots=True)
class Measure:
    """One figure: of which data, which contender, which step or quantity."""

    data: str
    contender: str
    what: str
    value: float
    unit: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Point:
    """One thing that must hold: ``value`` at least or at most ``bound``."""

    name: str
    value: float
    relation: Literal[">=", "<="]
    bound: float
    note: str = ""

    @property
    def passed(self) -> bool:
        """Whether it holds; a value that is not a number never does."""
        return self.value >= self.bound if self.relation == ">=" else self.value <= self.bound

    def told(self) -> str:
        """One line for people."""
        verdict = "pass" if self.passed else "FAIL"
        note = f" ({self.note})" if self.note else ""
        return f"{verdict}  {self.name}: {self.value:.4g} {self.relation} {self.bound:g}{note}"


@dataclass
class Part:
    """What one part of the benchmark found; ``settings`` say how it was measured."""

    name: str
    settings: dict[str, Any]
    measures: list[Measure] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)

    def add(self, data: str, contender: str, what: str, value: float, unit: str, note: str = "") -> None:
        """Note a figure."""
        self.measures.append(Measure(data, contender, what, value, unit, note))

    def hold(
        self, name: str, value: float, relation: Literal[">=", "<="], bound: float, note: str = ""
    ) -> None:
        """Note a point and print it."""
        point = Point(name, value, relation, bound, note)
        self.points.append(point)
        print(f"  {point.told()}", flush=True)


def section(part: Part, threads: int, theirs: Mapping[str, str]) -> dict[str, Any]:
    """A part as JSON holds it, with where and with what it was measured.

    Beside other work, only real-time priority gives the time that a machine of its own would: the scheduling
    and the load at the end are told.
    """
    return {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            **hardware(),
            "threads": threads,
            "scheduling": "normal" if os.sched_getscheduler(0) == os.SCHED_OTHER else "real-time",
            "load_at_end": round(os.getloadavg()[0], 2),
        },
        "versions": {"retiderm": versions(*PACKAGES), "anomalib": dict(theirs)},
        "code": code_digest(*CODE),
        "settings": part.settings,
        "measures": [asdict(measure) for measure in part.measures],
        "points": [{**asdict(point), "passed": point.passed} for point in part.points],
    }


def merge(path: Path, sections: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The stored result with the measured parts put in; parts that were not measured stay as they were."""
    stored: dict[str, Any] = read_json(path)["parts"] if path.is_file() else {}
    return {"benchmark": "anomaly", "parts": {**stored, **sections}}


def write(path: Path, document: Mapping[str, Any]) -> list[Path]:
    """Write ``path`` (JSON), and beside it the measures and the points as CSV. Gives the files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, document)
    measures, points = path.with_suffix(".csv"), path.with_name(f"{path.stem}_points.csv")
    _csv(measures, list(rows(document, "measures")))
    _csv(points, list(rows(document, "points")))
    return [path, measures, points]


def rows(document: Mapping[str, Any], kind: str) -> Iterator[dict[str, Any]]:
    """The measures or points of every part as flat rows, the part before and the machine behind each."""
    for name, part in document["parts"].items():
        found = {
            "measured_at": part["measured_at"],
            **part["machine"],
            **{f"ours_{key}": value for key, value in part["versions"]["retiderm"].items()},
            "anomalib": part["versions"]["anomalib"].get("anomalib", ""),
            "code": part["code"].removeprefix("sha256:")[:12],
        }
        for row in part[kind]:
            yield {"part": name, **row, **found}


def _csv(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    columns = list(dict.fromkeys(key for line in lines for key in line))
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns, lineterminator="\n", restval="")
        writer.writeheader()
        for line in lines:
            writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in line.items()})
