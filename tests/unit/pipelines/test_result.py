"""The result's JSON: one schema for runs that were accepted, refused, failed or interrupted."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from rich.console import Console

from data.errors import CheckFailed, StepFailed
from data.files import write_json
from pipelines.classifier import STEPS
from pipelines.local import RunRecord, error_of, new_run_id
from pipelines.outcome import show
from pipelines.recorder import StepRecord
from pipelines.request import Request
from pipelines.result import SCHEMA, write
from training.task import load_task

DIGEST = "sha256:" + "0" * 64
ESTIMATE = {"value": 0.8, "low": 0.7, "high": 0.9}
EVALUATION: dict[str, Any] = {
    "heads": {
        "grade": {
            "n": 40,
            **dict.fromkeys(("auc", "accuracy", "balanced_accuracy", "kappa", "nll", "ece"), ESTIMATE),
            "classes": {
                "mild": {
                    "n": 0,
                    **dict.fromkeys(("auc", "sensitivity", "specificity"), dict.fromkeys(ESTIMATE)),
                }
            },
            "calibration": {
                "temperature": 1.5,
                "nll_before": 1.0,
                "nll_after": 0.9,
                "nll_improved": True,
                "ece_before": 0.2,
                "ece_after": 0.1,
                "ece_band": [0.05, 0.15],
                "ece_inside": True,
                "uncertain_share": 0.25,
                "coverage": {
                    "target": 0.9,
                    "value": 0.92,
                    "conformal": 0.91,
                    "band": [0.8, 1.0],
                    "inside": True,
                    "set_size": 2.1,
                },
            },
        }
    }
}


def validate(value: dict[str, Any]) -> None:
    schema = json.loads(SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(
        schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
    ).validate(json.loads(json.dumps(value)))


def record(tmp_path: Path, **changes: Any) -> RunRecord:
    now = datetime(2026, 1, 31, 12, tzinfo=UTC)
    request = Request(load_task("dr_grading"), "synthetic-fundus?n=40", seed=1)
    folder = tmp_path / "run"
    folder.mkdir()
    made = RunRecord(request, new_run_id("dr_grading", now), folder, now, "")
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def finished(tmp_path: Path, decision: str) -> RunRecord:
    """A run to its end, from artifacts as the steps leave them."""
    steps = {name: StepRecord(name, "done", 1.0) for name in STEPS}
    steps["ingest"] = StepRecord("ingest", "cached")
    files: dict[str, Any] = {
        "dataset/dataset.json": {
            "digest": DIGEST,
            "test_digest": DIGEST,
            "synthetic": True,
            "forbids": [],
            "counts": {"test": {"grade": {"mild": 3}}},
        },
        "bundle/card.json": {"forbids": ["commercial"]},
        "evaluation": EVALUATION,
        "decision": {"decision": decision, "reasons": ["Because."], "champion": None, "comparisons": []},
        "receipt": {"version": "3"},
    }
    for name, value in files.items():
        write_json(tmp_path / name, value)
    found: dict[str, dict[str, Any]] = {
        "ingest": {"dataset": tmp_path / "dataset", "Output": DIGEST},
        "train": {"model": tmp_path / "model", "Output": "run1"},
        "calibrate": {"evaluation": tmp_path / "evaluation"},
        "export": {"bundle": tmp_path / "bundle"},
        "register": {"Output": "3"},
        "gate": {"decision": tmp_path / "decision", "Output": "promote"},
        "promote": {"receipt": tmp_path / "receipt"},
        "deploy": {"Output": "local"},
    }
    if decision == "refuse":
        for name in ("promote", "deploy"):
            del steps[name], found[name]
    return record(tmp_path, steps=steps, outputs=found, seconds=12.5)


def test_the_schema_is_in_the_documentation_too() -> None:
    root = Path(__file__).parents[3]
    assert (root / "docs/result.schema.json").read_text() == SCHEMA.read_text()


def test_an_accepted_run(tmp_path: Path) -> None:
    value = write(finished(tmp_path, "accept"), tmp_path / "out.json")
    validate(value)
    assert value == json.loads((tmp_path / "out.json").read_text())
    assert value == json.loads((tmp_path / "run" / "result.json").read_text())
    assert (value["status"], value["promoted"], value["served_by"]) == ("completed", True, "local")
    assert (value["version"], value["mlflow_run_id"], value["dataset_digest"]) == ("3", "run1", DIGEST)
    assert value["forbids"] == ["commercial"]
    assert value["metrics"]["grade"]["auc"] == ESTIMATE
    assert value["calibration"]["grade"]["coverage"]["band"] == [0.8, 1.0]
    assert [step["name"] for step in value["steps"]] == list(STEPS)
    assert value["steps"][0] == {"name": "ingest", "status": "cached", "seconds": 0.0, "cached": True}


def test_a_refused_run(tmp_path: Path) -> None:
    value = write(finished(tmp_path, "refuse"), None)
    validate(value)
    assert (value["status"], value["promoted"], value["served_by"]) == ("refused", False, None)
    assert [step["status"] for step in value["steps"][-2:]] == ["skipped", "skipped"]
    assert value["error"] is None


def test_a_failed_run(tmp_path: Path) -> None:
    told = {
        "type": "CheckFailed",
        "code": "check_failed",
        "message": "2 rows are bad.",
        "hint": None,
        "rows": ["a: blurred", "b: twice"],
    }
    steps = {
        "ingest": StepRecord("ingest", "done", 1.0),
        "validate": StepRecord("validate", "failed", 0.5, error=told),
    }
    run = record(tmp_path, steps=steps)
    value = write(run, None)
    validate(value)
    assert value["status"] == "failed"
    assert value["error"] == {"step": "validate", **told}
    assert value["steps"][2]["status"] == "not_reached"
    error = error_of(run)
    assert isinstance(error, CheckFailed)
    assert error.message == "step validate: 2 rows are bad."
    assert error.rows == ("a: blurred", "b: twice")


def test_an_interrupted_run(tmp_path: Path) -> None:
    told = {"type": "ProcessLost", "code": "interrupted", "message": "Interrupted.", "hint": None, "rows": []}
    run = record(tmp_path, steps={"ingest": StepRecord("ingest", "failed", error=told)}, interrupted=True)
    value = write(run, None)
    validate(value)
    assert value["status"] == "interrupted"
    assert isinstance(error_of(run), StepFailed)


@pytest.mark.parametrize(
    ("decision", "says"),
    [
        ("accept", ["promoted: dr_grading version 3 is champion", "retiderm serve"]),
        ("refuse", ["refused: dr_grading version 3", "Because."]),
    ],
)
def test_the_outcome_in_words(tmp_path: Path, decision: str, says: list[str]) -> None:
    shown = io.StringIO()
    show(write(finished(tmp_path, decision), None), Console(file=shown, width=80, soft_wrap=True))
    text = shown.getvalue()
    assert "inside the 99 % band 0.050–0.150" in text
    assert max(map(len, text.split("result:")[0].splitlines())) <= 80
    assert "synthetic images" in text
    for line in says:
        assert line in text
