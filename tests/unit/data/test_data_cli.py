from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from data.cli import app, read_heads
from data.errors import CheckFailed, UsageError
from data.paths import Home
from tests.unit.data import layouts

RUN = CliRunner()


def invoke(*arguments: object) -> str:
    done = RUN.invoke(app, [str(each) for each in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_help_teaches() -> None:
    text = invoke("--help")
    for word in (
        "sources",
        "ingest",
        "check",
        "show",
        "synth",
        "quality",
        "calibrate-quality",
        "Your own images",
    ):
        assert word in text
    assert "fold:0/5" in invoke("ingest", "--help")


def test_sources() -> None:
    assert "ham10000" in invoke("sources")
    assert "CC BY-NC 4.0" in invoke("sources", "ham10000")
    assert "unlabelled" in invoke("sources", "labels")
    assert len(json.loads(invoke("sources", "--json"))) == 15
    with pytest.raises(UsageError, match="no kind of source"):
        invoke("sources", "imagenet")


def test_from_a_drawing_to_a_shown_dataset(tmp_path: Path, home: Home) -> None:
    drawn, made, report = tmp_path / "drawn", tmp_path / "made", tmp_path / "report"
    assert "24 synthetic fundus images" in invoke(
        "synth", "--kind", "fundus", "--n", 24, "--size", 128, "--out", drawn
    )
    heads = "grade=none,mild,moderate,severe,proliferative"
    text = invoke("ingest", f"labels:{drawn}?profile=fundus", "--heads", heads, "--out", made)
    assert "24 images (synthetic) for grade, from labels" in text
    assert "passed: 0 failures" in invoke("check", made, "--report", report)
    assert (report / "report.html").is_file()
    shown = invoke("show", made, "--verify", "--rows", 2)
    assert "Verified" in shown
    assert "proliferative" in shown
    assert json.loads(invoke("show", made, "--json"))["images"] == 24
    assert home.store.is_dir()


def test_ingest_with_a_task_file(tmp_path: Path, home: Home) -> None:
    task = tmp_path / "mine.yaml"
    task.write_text("name: mine\nheads: {grade: {classes: [a, b, c, d, e]}}\n")
    text = invoke(
        "ingest", "synthetic-fundus?n=10&size=64", "--task-file", task, "--out", tmp_path / "made", "--json"
    )
    info = json.loads(text[text.index("{") :])
    assert info["task"] == "mine"
    assert info["heads"] == {"grade": list("abcde")}


def test_a_failed_check_names_the_rows(tmp_path: Path, home: Home) -> None:
    spec = layouts.labels_flat(tmp_path / "s", [(f"{i}.jpg", i % 5) for i in range(20)])
    (tmp_path / "s/images/4.jpg").write_bytes(b"")
    invoke("ingest", spec, "--heads", "grade=a,b,c,d,e", "--out", tmp_path / "made")
    done = RUN.invoke(app, ["check", str(tmp_path / "made")])
    assert isinstance(done.exception, CheckFailed)
    assert "FAILED  decodable" in done.output
    assert "4: " in done.output
    with pytest.raises(UsageError, match="inside the dataset"):
        invoke("check", tmp_path / "made", "--report", tmp_path / "made/report")


@pytest.mark.parametrize("spec", ["grade", "grade=", "=a,b"])
def test_heads_that_are_none(spec: str) -> None:
    with pytest.raises(UsageError, match="is no head"):
        read_heads([spec], None)


def test_heads_need_one_origin(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="either --heads"):
        read_heads([], None)
    with pytest.raises(UsageError, match="either --heads"):
        read_heads(["a=b"], tmp_path)


@pytest.mark.parametrize("text", ["heads: [", "heads: {grade: 3}", "title: x", "- a"])
def test_task_files_that_are_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "task.yaml").write_text(text)
    with pytest.raises(UsageError, match="is no task file"):
        read_heads([], tmp_path / "task.yaml")
