"""Folders that are replaced whole: what a kill leaves, and who clears it away."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import pytest

from data import files
from data.files import atomic_dir
from data.store import published


class Replaces(Protocol):
    def __call__(self, path: Path) -> AbstractContextManager[Path]: ...


both = pytest.mark.parametrize("replace", [atomic_dir, published])

KILLED = """
import os, sys
from pathlib import Path
from data import files
from data.files import atomic_dir
from data.store import published

out, replace, moment = Path(sys.argv[1]), globals()[sys.argv[2]], sys.argv[3]
real = Path.replace

def kill_before_the_second_rename(self, target):
    if target == out:
        os.kill(os.getpid(), 9)
    return real(self, target)

with replace(out) as folder:
    (folder / "new").write_text("2")
    if moment == "filling":
        os.kill(os.getpid(), 9)
    files._exchange = lambda *_: False
    Path.replace = kill_before_the_second_rename
"""


def fill(replace: Replaces, out: Path, name: str) -> None:
    with replace(out) as folder:
        (folder / name).write_text("1")


def kill(replace: Replaces, out: Path, moment: str) -> None:
    command = [sys.executable, "-c", KILLED, str(out), replace.__name__, moment]  # type: ignore[attr-defined]
    assert subprocess.run(command, check=False).returncode == -9


def aged(folder: Path) -> None:
    for left in folder.glob(".*"):
        os.utime(left, (0, 0))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@both
def test_a_kill_between_two_renames_is_made_good_by_the_next_call(replace: Replaces, tmp_path: Path) -> None:
    out = tmp_path / "out"
    fill(replace, out, "older")
    kill(replace, out, "renaming")
    assert not out.exists()
    with pytest.raises(FileNotFoundError), replace(out) as folder:
        (folder / "not there").unlink()
    assert names(out) == ["older"]
    assert [Path(name).suffix for name in names(tmp_path)] == [".part", ""]
    aged(tmp_path)
    fill(replace, out, "newest")
    assert names(out) == ["newest"]
    assert names(tmp_path) == ["out"]


@both
def test_what_a_killed_call_left_goes_once_it_is_a_day_old(replace: Replaces, tmp_path: Path) -> None:
    out = tmp_path / "out"
    fill(replace, out, "older")
    kill(replace, out, "filling")
    fill(replace, out, "newer")
    assert len(names(tmp_path)) == 2
    aged(tmp_path)
    fill(replace, tmp_path / "other", "one")
    assert len(names(tmp_path)) == 3  # another path's leftovers are not ours
    fill(replace, out, "newest")
    assert names(tmp_path) == ["other", "out"]


@both
def test_a_living_call_keeps_its_folder_however_old(replace: Replaces, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with replace(out) as slow:
        (slow / "slow").write_text("1")
        aged(tmp_path)
        fill(replace, out, "quick")
        assert names(slow) == ["slow"]
    assert names(out) == ["slow"]
    assert names(tmp_path) == ["out"]


@both
def test_what_only_looks_like_a_leftover_stays(replace: Replaces, tmp_path: Path) -> None:
    for name in (".out.abcd1234.keep", ".out.v2.abcd1234.part", ".out.x.part", ".outer.abcd1234.old"):
        (tmp_path / name).mkdir()
    (tmp_path / ".out.abcd1234.part").write_text("a file's")
    aged(tmp_path)
    fill(replace, tmp_path / "out", "new")
    assert len(names(tmp_path)) == 6


@both
@pytest.mark.parametrize("exchange", [True, False])
def test_a_file_or_a_link_is_replaced_too(
    replace: Replaces, exchange: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not exchange:
        monkeypatch.setattr(files, "_exchange", lambda *_: False)
    fill(replace, tmp_path / "kept", "old")
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    (tmp_path / "file").write_text("old")
    for name in ("link", "file"):
        fill(replace, tmp_path / name, "new")
        assert names(tmp_path / name) == ["new"]
    assert names(tmp_path / "kept") == ["old"]
    assert names(tmp_path) == ["file", "kept", "link"]


def test_no_moment_without_a_folder(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    if not files._exchange(tmp_path / "a", tmp_path / "b"):
        pytest.skip("this filesystem can't swap two names")
    out = tmp_path / "out"
    fill(atomic_dir, out, "x")
    missing, done = [], threading.Event()

    def look() -> None:
        while not done.is_set():
            if not os.access(out, os.F_OK):
                missing.append(1)

    watcher = threading.Thread(target=look)
    watcher.start()
    for _ in range(20):
        fill(atomic_dir, out, "x")
    done.set()
    watcher.join()
    assert not missing
