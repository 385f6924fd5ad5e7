"""The local runner on small pipelines of its own: what it sees, keeps, and says of failures."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pipelines.local import execute
from pipelines.recorder import Recorder, outputs
from pipelines.view import RunView
from tests.unit.pipelines.small import small


class Run:
    """One execution: its records, outputs, log and what was shown."""

    def __init__(self, tmp_path: Path, how: str, *, cache: bool = True) -> None:
        self.log, self.shown = io.StringIO(), io.StringIO()
        view = RunView(Console(file=self.shown, width=200, highlight=False, soft_wrap=True), steps=2)
        recorder = Recorder(self.log, view)
        kept = tmp_path / "cache"
        with view:
            execute(
                small,
                {"how": how, "counted": str(tmp_path / "count")},
                recorder,
                tmp_path / how,
                cache=kept if cache else None,
            )
        self.steps = recorder.records
        self.outputs: dict[str, dict[str, Any]] = outputs(tmp_path / how, kept, recorder.records)


def test_steps_are_seen_timed_and_shown(tmp_path: Path) -> None:
    run = Run(tmp_path, "well")
    assert {name: step.status for name, step in run.steps.items()} == {"first": "done", "second": "done"}
    assert run.steps["first"].said == "made 5 letters"
    assert run.steps["first"].seconds > 0
    assert run.outputs["first"]["Output"] == 5
    assert (run.outputs["first"]["folder"] / "text").read_text() == "hello"
    shown = run.shown.getvalue()
    assert "▸  1/2 first" in shown
    assert "      working on it" in shown
    assert "✓  1/2 first" in shown
    assert "made 5 letters" in shown
    assert "KFP Executor" not in shown
    assert "KFP Executor" in run.log.getvalue()


def test_a_finished_step_is_taken_from_the_cache_with_its_outputs(tmp_path: Path) -> None:
    before = Run(tmp_path, "well")
    again = Run(tmp_path, "well")
    assert again.steps["first"].status == "cached"
    assert again.steps["second"].status == "done"  # never cached
    assert again.outputs["first"] == before.outputs["first"]
    assert (tmp_path / "count").read_text() == "x"
    assert "cached" in again.shown.getvalue()


def test_without_the_cache_every_step_runs(tmp_path: Path) -> None:
    Run(tmp_path, "well")
    assert Run(tmp_path, "well", cache=False).steps["first"].status == "done"
    assert (tmp_path / "count").read_text() == "xx"


def test_a_failure_keeps_what_was_done_and_tells_the_real_error(tmp_path: Path) -> None:
    run = Run(tmp_path, "raise")
    error = run.steps["second"].error
    assert run.steps["first"].status == "done"
    assert run.steps["second"].status == "failed"
    assert error is not None
    assert error["type"] == "SourceError"
    assert error["message"] == "Nothing there.\nReally nothing."
    assert error["hint"] == "Look again."
    assert "second" not in run.outputs
    assert Run(tmp_path, "well").steps["first"].status == "cached"


def test_the_name_of_a_killed_step_is_known(tmp_path: Path) -> None:
    error = Run(tmp_path, "killed").steps["second"].error
    assert error is not None
    assert error["code"] == "lost"
    assert "last words" in error["message"]


def test_a_step_that_never_began_is_named_too(tmp_path: Path) -> None:
    run = Run(tmp_path, "broken")
    assert run.steps["second"].status == "failed"
    error = run.steps["second"].error
    assert error is not None
    assert "ended without a word" in error["message"]
    assert "not here" in error["message"]


@pytest.mark.parametrize("text", ["a\nb", "partial"])
def test_the_recorder_takes_text_in_pieces(text: str) -> None:
    log = io.StringIO()
    recorder = Recorder(log, RunView(quiet=True))
    for letter in text + "\n":
        recorder.write(letter)
    assert log.getvalue() == text + "\n"
