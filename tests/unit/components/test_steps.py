"""What a step says of itself."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from components.steps import describe, parse, step
from data.errors import CheckFailed, SourceError


def events(text: str) -> list[dict[str, object]]:
    return [event for line in text.splitlines() if (event := parse(line))]


def test_a_step_tells_its_start_and_end(capsys: pytest.CaptureFixture[str]) -> None:
    with step("ingest") as say:
        print("a line of its own")
        say("12 images")
    started, finished = events(capsys.readouterr().out)
    assert started == {"event": "started", "step": "ingest"}
    assert finished == {"event": "finished", "step": "ingest", "said": "12 images"}


def test_an_error_is_told_whole_and_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SourceError), step("ingest"):
        raise SourceError("No folder /x.\nReally.", hint="Look at the path.")
    failed = events(capsys.readouterr().out)[-1]
    assert failed["event"] == "failed"
    assert failed["error"] == {
        "type": "SourceError",
        "code": "source",
        "message": "No folder /x.\nReally.",
        "hint": "Look at the path.",
        "rows": [],
    }


def test_rows_of_a_failed_check_are_named() -> None:
    assert describe(CheckFailed("2 rows", rows=("a: bad", "b: bad")))["rows"] == ["a: bad", "b: bad"]


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ValueError("no good"), "unexpected", "ValueError: no good"),
        (KeyError("k"), "unexpected", "KeyError: 'k'"),
        (ValueError(), "unexpected", "ValueError: no message"),
        (KeyboardInterrupt(), "interrupted", "KeyboardInterrupt: no message"),
    ],
)
def test_any_error_has_a_message(error: BaseException, code: str, message: str) -> None:
    told = describe(error)
    assert (told["code"], told["message"]) == (code, message)


@pytest.mark.parametrize(
    "line", ["", "@retiderm", "@retiderm {", "@retiderm []", "@retiderm {}", "text @retiderm {}", "epoch 1"]
)
def test_other_lines_are_no_events(line: str) -> None:
    assert parse(line) is None


def test_an_unfinished_line_does_not_hide_an_event(capsys: pytest.CaptureFixture[str]) -> None:
    print("50 %", end="")
    with step("train"):
        pass
    assert len(events(capsys.readouterr().out)) == 2


def test_a_step_ends_with_its_runner() -> None:
    """An orphan that goes on training would write into the folder that the next run resumes from."""
    runner = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(900)"])
    code = "from components.steps import step\nimport time\nwith step('train'):\n    time.sleep(900)\n"
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "RETIDERM_PARENT_PID": str(runner.pid)},
        stdout=subprocess.PIPE,
    )
    try:
        assert child.stdout is not None
        child.stdout.readline()
        assert b"started" in child.stdout.readline()
        runner.kill()
        runner.wait()
        assert child.wait(timeout=120) == 143
    finally:
        for process in (runner, child):
            process.kill()
            process.wait()
        child.stdout.close()  # type: ignore[union-attr]
