"""The command line's door: quick help, one line for an error, exit codes."""

from __future__ import annotations

import json
import resource
import subprocess
import sys

import pytest

from data.errors import CheckFailed, RetidermError, StepFailed
from pipelines import cli

pytestmark = pytest.mark.usefixtures("home")
RETIDERM = [sys.executable, "-m", "pipelines.cli"]


def retiderm(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*RETIDERM, *arguments], capture_output=True, text=True, timeout=180, check=False)


def processor(*command: str) -> tuple[float, str]:
    """The least processor time that a command takes, and what it prints."""
    took = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        took.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(took), done.stdout


def test_help_is_quick_and_names_every_command() -> None:
    took, said = processor(*RETIDERM, "--help")
    assert all(f" {name} " in said for name in (*cli.COMMANDS, "version"))
    # Held against what it can't do without: how long that takes depends on the machine.
    least, _ = processor(sys.executable, "-c", "import typer, rich.console, rich.table, rich.markdown")
    assert took < 3 * least


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, pipelines.cli as c, json\n"
        "try: c.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = ('torch', 'kfp', 'mlflow', 'pandas', 'cv2', 'kserve', 'numpy')\n"
        "print(json.dumps([m for m in heavy if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == []


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["rnu"], 2, "Did you mean 'run'?"),
        (["run"], 2, "Missing"),
        (
            ["submit", "dr_grading", "--data", "synthetic-fundus?n=9", "--host", "http://127.0.0.1:9"],
            2,
            "Missing option '--home-claim'",
        ),
        (["tasks", "show", "dr_gradin"], 2, "error: There is no task 'dr_gradin'."),
        (["tasks", "show", "dr_grading", "--set", "train.epoch=3"], 2, "epochs"),
        (
            ["run", "dr_grading", "--data", "nosuch:/x"],
            1,
            "error: step ingest: Unknown kind of source 'nosuch'",
        ),
        (["run", "dr_grading", "--data", "folders:/nowhere/at/all"], 1, "error: "),
    ],
)
def test_wrong_use_is_said_in_one_line(arguments: list[str], status: int, says: str) -> None:
    done = retiderm(*arguments)
    assert done.returncode == status, done.stderr
    assert says in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_debug_shows_the_trace_wherever_it_stands() -> None:
    done = retiderm("tasks", "show", "dr_gradin", "--debug")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "TaskError" in done.stderr


def test_every_command_can_be_mounted() -> None:
    for name in cli.COMMANDS:
        done = retiderm(name, "--help")
        assert done.returncode == 0, f"{name}: {done.stderr[-500:]}"
        assert "Usage: retiderm" in done.stdout


@pytest.mark.parametrize(
    ("error", "lines"),
    [
        (RetidermError("It broke.", hint="Mend it."), ["error: It broke.", "hint: Mend it."]),
        (StepFailed("No memory.", step="train"), ["error: step train: No memory."]),
        (CheckFailed("2 bad rows.", rows=("a", "b")), ["error: 2 bad rows.", "  a", "  b"]),
        (
            CheckFailed("Many.", rows=[*(f"size: {i}" for i in range(12)), "decodable: x"]),
            [
                "error: Many.",
                *(f"  size: {i}" for i in range(10)),
                "  … and 2 more of size",
                "  decodable: x",
            ],
        ),
    ],
)
def test_an_error_in_words(
    error: RetidermError, lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    cli.report(error)
    assert capsys.readouterr().err.splitlines() == lines


def test_a_missing_part_says_which_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def gone(name: str) -> object:
        raise ModuleNotFoundError("No module named 'kfp'", name="kfp")

    monkeypatch.setattr(cli.importlib, "import_module", gone)
    with pytest.raises(SystemExit) as ended:
        cli.main(["run", "x"])
    assert ended.value.code == 2
    assert "retiderm[pipelines]" in capsys.readouterr().err


def test_help_texts_fill_the_window() -> None:
    text = "First.\n\n    Two lines\n    of one.\n\n    - a\n    - b\n    \n    \x08as it\n    is\n    "
    assert cli.reflow(text) == "First.\n\nTwo lines of one.\n\n- a\n- b\n\n\x08as it\nis"
