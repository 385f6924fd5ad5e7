"""What decides whether a finished step is taken from the cache."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipelines import fingerprint
from pipelines.fingerprint import code_digests, source_digest, source_path, whole_code_digest


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ("folders:/a/b", Path("/a/b")),
        ("folders:/a/b?x=1", Path("/a/b")),
        ("synthetic-fundus", None),
        ("synthetic-fundus?n=10", None),
    ],
)
def test_the_path_in_a_source(spec: str, path: Path | None) -> None:
    assert source_path(spec) == path


def test_a_folder_changes_with_its_files(tmp_path: Path) -> None:
    spec = f"folders:{tmp_path}"
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").write_bytes(b"1")
    first = source_digest(spec)
    assert first == source_digest(spec)
    (tmp_path / "a" / "2.png").write_bytes(b"2")
    second = source_digest(spec)
    os.utime(tmp_path / "a" / "1.png", ns=(1, 1))
    third = source_digest(spec)
    (tmp_path / "a" / "2.png").rename(tmp_path / "a" / "3.png")
    assert len({first, second, third, source_digest(spec)}) == 4
    assert first.startswith("sha256:")


def test_a_linked_folder_is_looked_into_and_a_loop_ends(tmp_path: Path) -> None:
    root, disk, other = tmp_path / "source", tmp_path / "disk", tmp_path / "other"
    for folder in (root, disk / "class", other):
        folder.mkdir(parents=True)
    (root / "labels.csv").write_text("image,label")
    (root / "images").symlink_to(disk, target_is_directory=True)
    (disk / "class" / "1.png").write_bytes(b"1")
    (disk / "class" / "up").symlink_to(root, target_is_directory=True)  # round and round
    spec = f"folders:{root}"
    digests = [source_digest(spec), source_digest(spec)]
    assert digests[0] == digests.pop()
    (disk / "class" / "2.png").write_bytes(b"2")
    digests.append(source_digest(spec))
    (root / "more").symlink_to(disk, target_is_directory=True)  # the same folder by a second name
    digests.append(source_digest(spec))
    (root / "more").unlink()
    (root / "more").symlink_to(other, target_is_directory=True)
    (other / "3.png").write_bytes(b"3")
    digests.append(source_digest(spec))
    assert len(set(digests)) == 4


def test_a_file_changes_with_its_content_only(tmp_path: Path) -> None:
    path = tmp_path / "retina.npz"
    path.write_bytes(b"one")
    spec = f"medmnist:{path}"
    first = source_digest(spec)
    os.utime(path, ns=(1, 1))
    assert source_digest(spec) == first
    path.write_bytes(b"two")
    assert source_digest(spec) != first


def test_a_large_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "_HASHED_UP_TO", 2)
    path = tmp_path / "big.npz"
    path.write_bytes(b"large")
    os.utime(path, ns=(1, 1))
    first = source_digest(f"medmnist:{path}")
    path.write_bytes(b"other")
    os.utime(path, ns=(1, 1))
    assert source_digest(f"medmnist:{path}") == first  # the limit of it: same size, same time
    os.utime(path, ns=(2, 2))
    assert source_digest(f"medmnist:{path}") != first


@pytest.mark.parametrize("spec", ["synthetic-fundus?n=3", "folders:/nowhere/at/all"])
def test_what_can_not_be_seen_has_none(spec: str) -> None:
    assert source_digest(spec) == ""


def test_the_registry_is_no_reason_to_train_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("training/registry", "training/fit"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "training/fit/loop.py").write_text("x = 1")
    (tmp_path / "training/registry/client.py").write_text("x = 1")
    monkeypatch.setattr(fingerprint, "__file__", str(tmp_path / "pipelines/fingerprint.py"))
    before = code_digests()["model_code"]
    (tmp_path / "training/registry/client.py").write_text("x = 2")
    assert code_digests()["model_code"] == before
    (tmp_path / "training/fit/loop.py").write_text("x = 2")
    assert code_digests()["model_code"] != before


def test_the_whole_code_has_one_digest() -> None:
    assert whole_code_digest() == whole_code_digest()
    assert len(set(code_digests().values())) == 3
