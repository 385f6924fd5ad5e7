"""The folder that a training works in."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from components.work import publish, training_key, work_folder
from data.errors import UsageError
from data.paths import Home

SAME = {"task": "sha256:a", "dataset": "sha256:b", "seed": 1, "code": "sha256:c"}


def test_the_key_is_the_training() -> None:
    key = training_key(**SAME)  # type: ignore[arg-type]
    assert key == training_key(**SAME)  # type: ignore[arg-type]
    others = [{**SAME, name: "x" if name != "seed" else 2} for name in SAME]
    assert len({key, *(training_key(**other) for other in others)}) == 5  # type: ignore[arg-type]


def test_what_was_left_is_found_again(home: Home) -> None:
    with work_folder("k") as work:
        (work / "checkpoint.pt").write_text("epoch 3")
    with work_folder("k") as work:
        assert (work / "checkpoint.pt").read_text() == "epoch 3"
    assert home.runs in work.parents


def test_two_at_once_are_refused(home: Home) -> None:
    with (
        work_folder("k"),
        pytest.raises(UsageError, match="training exactly this"),
        work_folder("k", wait_s=0.3),
    ):
        pass


def test_publishing_moves_everything_but_the_checkpoint(home: Home, tmp_path: Path) -> None:
    out = tmp_path / "model"
    with work_folder("k") as work:
        for name in ("checkpoint.pt", ".lock", "tracking.json", ".checkpoint.pt.x1y2.part"):
            (work / name).write_text("x")
        (work / "model.safetensors").write_text("weights")
        (work / "deep").mkdir()
        (work / "deep" / "curves.png").write_text("curves")
        publish(work, out)
        assert not work.exists()
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()) == [
        "deep/curves.png",
        "model.safetensors",
    ]
    with (home.runs / "work" / "k.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # free again
