"""serving/core/pointer.py: read, write, list, and what a damaged one says."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from data.errors import IntegrityError, UsageError
from serving.core import pointer as p

DIGEST = "sha256:" + "ab" * 32


def make(root: Path, task: str = "dr_grading", version: str = "3") -> p.Pointer:
    pointer = p.Pointer(task, version, DIGEST, p.version_path(version, DIGEST))
    pointer.folder(root).mkdir(parents=True, exist_ok=True)
    (pointer.folder(root) / "card.json").write_text("{}")
    return pointer


def test_written_is_read_again(tmp_path: Path) -> None:
    pointer = make(tmp_path)
    assert p.read_pointer(tmp_path, "dr_grading") is None
    p.write_pointer(tmp_path, pointer)
    assert p.read_pointer(tmp_path, "dr_grading") == pointer
    assert pointer.folder(tmp_path).name == "3-abababababab"


def test_the_same_pointer_again_does_not_touch_the_file(tmp_path: Path) -> None:
    pointer = make(tmp_path)
    p.write_pointer(tmp_path, pointer)
    before = p.pointer_file(tmp_path, "dr_grading").stat()
    p.write_pointer(tmp_path, pointer)
    after = p.pointer_file(tmp_path, "dr_grading").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_a_missing_bundle_is_never_pointed_at(tmp_path: Path) -> None:
    pointer = p.Pointer("a", "1", DIGEST, p.version_path("1", DIGEST))
    with pytest.raises(IntegrityError, match="has no bundle"):
        p.write_pointer(tmp_path, pointer)
    assert p.read_pointer(tmp_path, "a") is None


@pytest.mark.parametrize(
    "change",
    [{"task": "../x"}, {"version": "a/b"}, {"digest": "md5:1"}, {"path": "../other"}, {"path": "/etc"}],
)
def test_names_and_paths_stay_inside(tmp_path: Path, change: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        dataclasses.replace(make(tmp_path), **change)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"format": 2}', '{"format": 1, "task": "dr_grading"}', '{"format": 1, "x": 1}', "\x00"],
)
def test_a_damaged_pointer_says_what_to_do(tmp_path: Path, text: str) -> None:
    p.pointer_file(tmp_path, "dr_grading").parent.mkdir(parents=True)
    p.pointer_file(tmp_path, "dr_grading").write_text(text)
    with pytest.raises(IntegrityError, match="reconcile"):
        p.read_pointer(tmp_path, "dr_grading")
    pointer = make(tmp_path)
    p.write_pointer(tmp_path, pointer)
    assert p.read_pointer(tmp_path, "dr_grading") == pointer


def test_another_tasks_pointer_is_refused(tmp_path: Path) -> None:
    p.write_pointer(tmp_path, make(tmp_path, "a"))
    (tmp_path / "b").mkdir()
    p.pointer_file(tmp_path, "b").write_bytes(p.pointer_file(tmp_path, "a").read_bytes())
    with pytest.raises(IntegrityError, match="names the task a"):
        p.read_pointer(tmp_path, "b")


def test_list_and_remove(tmp_path: Path) -> None:
    assert p.list_pointers(tmp_path / "none") == {}
    p.write_pointer(tmp_path, make(tmp_path, "a", "1"))
    p.write_pointer(tmp_path, make(tmp_path, "b", "2"))
    (tmp_path / "empty").mkdir()
    assert {task: found.version for task, found in p.list_pointers(tmp_path).items()} == {"a": "1", "b": "2"}
    p.remove_pointer(tmp_path, "a")
    p.remove_pointer(tmp_path, "a")
    assert list(p.list_pointers(tmp_path)) == ["b"]
