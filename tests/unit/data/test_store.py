from __future__ import annotations

import os
from pathlib import Path

import pytest

from data.store import ImageStore, flush, link, relative_path


def test_the_same_bytes_are_stored_once_and_read_only(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    first = store.put("ab12", "jpg", b"picture")
    stamp = first.stat().st_mtime_ns
    assert store.put("ab12", "jpg", b"picture") == first == tmp_path / "ab/ab12.jpg"
    assert first.stat().st_mtime_ns == stamp
    assert first.stat().st_mode & 0o222 == 0
    assert [path.name for path in first.parent.iterdir()] == ["ab12.jpg"]


@pytest.mark.parametrize("damaged", [b"", b"pictuRE", b"pic"])
def test_what_a_crash_damaged_is_written_anew(tmp_path: Path, damaged: bytes) -> None:
    store = ImageStore(tmp_path)
    path = store.put("ab12", "jpg", b"picture")
    path.chmod(0o644)
    path.write_bytes(damaged)
    assert store.put("ab12", "jpg", b"picture").read_bytes() == b"picture"


def test_links_share_the_bytes_and_copies_stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = ImageStore(tmp_path / "store").put("ab12", "jpg", b"picture")
    link(stored, tmp_path / "a/x.jpg")
    link(stored, tmp_path / "a/x.jpg")
    assert (tmp_path / "a/x.jpg").samefile(stored)

    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    link(stored, tmp_path / "b/x.jpg")
    assert (tmp_path / "b/x.jpg").read_bytes() == b"picture"
    assert not (tmp_path / "b/x.jpg").samefile(stored)


def test_place_in_the_store() -> None:
    assert relative_path("ab12", "png") == "ab/ab12.png"


def test_flush(tmp_path: Path) -> None:
    flush(tmp_path)
