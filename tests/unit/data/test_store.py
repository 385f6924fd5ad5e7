from __future__ import annotations

import os
from pathlib import Path

import pytest

from data import files
from data.store import ImageStore, flush, link, published, relative_path


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


def test_a_folder_is_published_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with published(tmp_path / "deep/out") as folder:
        (folder / "new").write_text("1")
        assert not (tmp_path / "deep/out").exists()
    with pytest.raises(FileNotFoundError), published(tmp_path / "deep/out") as folder:
        (folder / "new/er").write_text("2")
    assert (tmp_path / "deep/out/new").read_text() == "1"
    with published(tmp_path / "deep/out") as folder:
        (folder / "other").write_text("3")
    assert [path.name for path in (tmp_path / "deep/out").iterdir()] == ["other"]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]

    real = Path.replace
    monkeypatch.setattr(files, "_exchange", lambda *_: False)

    def fail_at_the_end(self: Path, target: Path) -> Path:
        if target == tmp_path / "deep/out" and self.suffix == ".part":
            raise OSError("no")
        return real(self, target)

    monkeypatch.setattr(Path, "replace", fail_at_the_end)
    with pytest.raises(OSError, match="no"), published(tmp_path / "deep/out") as folder:
        (folder / "new").write_text("4")
    assert (tmp_path / "deep/out/other").read_text() == "3"
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]
