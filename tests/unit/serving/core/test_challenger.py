"""serving/core/challenger.py: read, write, remove, and what a damaged one says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data.errors import IntegrityError, UsageError
from serving.core import challenger as c
from serving.core.pointer import Pointer, pointer_file, version_path

DIGEST = "sha256:" + "cd" * 32
TASK = "dr_grading"


def make(root: Path, mode: str = "share", share: float = 0.1) -> c.Challenger:
    pointer = Pointer(TASK, "4", DIGEST, version_path("4", DIGEST))
    pointer.folder(root).mkdir(parents=True, exist_ok=True)
    (pointer.folder(root) / "card.json").write_text("{}")
    return c.Challenger(pointer, mode, share)


@pytest.mark.parametrize(("mode", "share"), [("shadow", 0.0), ("share", 0.1), ("share", 0.999)])
def test_written_is_read_again_and_removed(tmp_path: Path, mode: str, share: float) -> None:
    challenger = make(tmp_path, mode, share)
    assert c.read_challenger(tmp_path, TASK) is None
    c.write_challenger(tmp_path, challenger)
    assert c.read_challenger(tmp_path, TASK) == challenger
    # Nothing of it is the champion's pointer.
    assert not pointer_file(tmp_path, TASK).exists()
    before = c.challenger_file(tmp_path, TASK).stat()
    c.write_challenger(tmp_path, challenger)
    assert c.challenger_file(tmp_path, TASK).stat().st_mtime_ns == before.st_mtime_ns
    for _ in range(2):
        c.remove_challenger(tmp_path, TASK)
    assert c.read_challenger(tmp_path, TASK) is None
    assert challenger.pointer.folder(tmp_path).is_dir()


@pytest.mark.parametrize(
    ("mode", "share"),
    [
        ("", 0.0), ("ghost", 0.1), ("shadow", 0.1), ("share", 0.0), ("share", 1.0), ("share", -0.1),
        ("share", 3), ("share", float("nan")), ("share", True), ("share", "0.1"), ("share", None),
    ],
)  # fmt: skip
def test_other_modes_and_shares_are_refused(tmp_path: Path, mode: str, share: Any) -> None:
    with pytest.raises(UsageError):
        make(tmp_path, mode, share)


def test_a_missing_bundle_is_never_named(tmp_path: Path) -> None:
    challenger = c.Challenger(Pointer(TASK, "4", DIGEST, version_path("4", DIGEST)), "shadow")
    with pytest.raises(IntegrityError, match="has no bundle"):
        c.write_challenger(tmp_path, challenger)


@pytest.mark.parametrize(
    "change",
    [
        None, {"format": 2}, {"mode": "ghost"}, {"share": 2}, {"share": None}, {"extra": 1},
        {"task": "other"}, {"path": "/etc"},
    ],
)  # fmt: skip
def test_a_damaged_one_says_so_and_can_be_written_again(tmp_path: Path, change: Any) -> None:
    challenger = make(tmp_path)
    whole = {"format": 1, **challenger.to_dict()}
    path = c.challenger_file(tmp_path, TASK)
    path.write_text("{" if change is None else json.dumps({**whole, **change}))
    with pytest.raises(IntegrityError, match="challenger's pointer of dr_grading"):
        c.read_challenger(tmp_path, TASK)
    c.write_challenger(tmp_path, challenger)
    assert c.read_challenger(tmp_path, TASK) == challenger


@pytest.mark.parametrize("key", ["mode", "share", "digest", "version"])
def test_one_that_lacks_something_is_damaged(tmp_path: Path, key: str) -> None:
    whole = {"format": 1, **make(tmp_path).to_dict()}
    del whole[key]
    c.challenger_file(tmp_path, TASK).write_text(json.dumps(whole))
    with pytest.raises(IntegrityError):
        c.read_challenger(tmp_path, TASK)
