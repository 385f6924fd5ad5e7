from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from benchmarks.__main__ import BENCHMARKS, main

FOLDER = Path(__file__).resolve().parents[3] / "benchmarks"
#: What takes long or an environment of its own is run by itself.
APART = {"quality", "anomaly", "loop"}
#: A server that another one asks.
HELPERS = {"kserve_default"}


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The command lines that would have run; all of them succeed."""
    found: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[bytes]:
        found.append(command[2:])
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    return found


def test_every_benchmark_is_named() -> None:
    there = {path.stem for path in FOLDER.glob("[a-z]*.py") if "__main__" in path.read_text()} - HELPERS
    there |= {path.parent.name for path in FOLDER.glob("*/__main__.py")}
    assert there == BENCHMARKS.keys() | APART


def test_what_needs_images_is_left_out_without(
    started: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([]) == 0
    assert [command[0].removeprefix("benchmarks.") for command in started] == [
        name for name, item in BENCHMARKS.items() if not item.needs
    ]
    told = capsys.readouterr().out
    assert "benchmarks.face left out: it needs --faces and --others" in told
    assert "benchmarks.precisions left out: it needs --bundle and --data" in told


def test_each_gets_its_own_options(started: list[list[str]]) -> None:
    options = ["--faces", "f", "--others", "a", "b", "--bundle", "x", "--data", "d", "--images", "i"]
    assert main(["face", "scan", "precisions", "runtimes", *options]) == 0
    assert started == [
        ["benchmarks.face", "--faces", "f", "--others", "a", "b"],
        ["benchmarks.scan", "--faces", "f"],
        ["benchmarks.precisions", "--bundle", "x", "--data", "d"],
        ["benchmarks.runtimes", "--images", "i"],
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["face"], "face needs --faces and --others"), (["faces"], "there is no benchmark 'faces'")],
)
def test_what_cannot_run_is_an_error(
    arguments: list[str], said: str, started: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err
    assert started == []


def test_one_that_fails_is_named_at_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[bytes]:
        return subprocess.CompletedProcess(command, int(command[2] == "benchmarks.gradcam"))

    monkeypatch.setattr(subprocess, "run", run)
    assert main(["gradcam", "training"]) == 1
    assert "Failed: gradcam" in capsys.readouterr().err
