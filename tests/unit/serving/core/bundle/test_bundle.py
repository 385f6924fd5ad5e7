from __future__ import annotations

import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from data.errors import BundleError
from data.files import sha256_file
from serving.core.bundle import Bundle, write_bundle
from tests.bundles import tiny_bundle, with_heads


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return tiny_bundle(tmp_path / "bundle")


def test_a_bundle_opens_verified(bundle: Bundle) -> None:
    again = Bundle.open(bundle.root)
    assert again == bundle
    assert again.digest == "sha256:" + sha256_file(bundle.root / "card.json")
    assert sorted(again.card.files) == ["golden.npz", "model.onnx", "reference.npz"]
    assert again.path("model.onnx").read_bytes() == again.read("model.onnx")
    assert again.arrays("golden.npz")["images"].shape == (4, 64, 64, 3)


def test_equal_content_has_an_equal_digest(tmp_path: Path, bundle: Bundle) -> None:
    assert tiny_bundle(tmp_path / "same").digest == bundle.digest
    assert tiny_bundle(tmp_path / "other", seed=1).digest != bundle.digest


def test_a_bundle_is_replaced_whole(tmp_path: Path, bundle: Bundle) -> None:
    changed = with_heads(bundle, bundle.root, temperature=2.0)
    assert changed.digest != bundle.digest
    assert Bundle.open(bundle.root).card.heads[0].temperature == 2.0
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize("name", ["model.onnx", "golden.npz", "reference.npz"])
def test_one_altered_byte_is_found(bundle: Bundle, name: str) -> None:
    data = bytearray((bundle.root / name).read_bytes())
    data[len(data) // 2] ^= 1
    (bundle.root / name).write_bytes(data)
    with pytest.raises(BundleError, match=f"'{name}'.*not the file that was exported"):
        Bundle.open(bundle.root)
    with pytest.raises(BundleError, match="not the file"):
        Bundle.open(bundle.root, verify=False).read(name)


def test_a_cut_file_is_found_without_hashing(bundle: Bundle) -> None:
    (bundle.root / "model.onnx").write_bytes(b"short")
    with pytest.raises(BundleError, match="not the file that was exported"):
        Bundle.open(bundle.root, verify=False)


def test_a_missing_file_is_named(bundle: Bundle) -> None:
    (bundle.root / "golden.npz").unlink()
    with pytest.raises(BundleError, match=r"lacks golden\.npz.*copy it again"):
        Bundle.open(bundle.root, verify=False)


@pytest.mark.parametrize("name", ["notes.txt", ".hidden", "sub/model.onnx"])
def test_a_file_that_the_card_does_not_know_is_refused(bundle: Bundle, name: str) -> None:
    (bundle.root / name).parent.mkdir(exist_ok=True)
    (bundle.root / name).write_text("x")
    with pytest.raises(BundleError, match="doesn't know"):
        Bundle.open(bundle.root)


def test_links_are_refused(tmp_path: Path, bundle: Bundle) -> None:
    outside = tmp_path / "model.onnx"
    shutil.move(bundle.root / "model.onnx", outside)
    (bundle.root / "model.onnx").symlink_to(outside)
    with pytest.raises(BundleError, match="is a link"):
        Bundle.open(bundle.root)


def test_a_link_as_card_is_refused(tmp_path: Path, bundle: Bundle) -> None:
    shutil.move(bundle.root / "card.json", tmp_path / "card.json")
    (bundle.root / "card.json").symlink_to(tmp_path / "card.json")
    with pytest.raises(BundleError, match="has no card"):
        Bundle.open(bundle.root)


def test_a_pipe_is_refused_and_not_waited_for(bundle: Bundle) -> None:
    os.mkfifo(bundle.root / "pipe")
    with pytest.raises(BundleError, match="no plain file"):
        Bundle.open(bundle.root)


def test_the_folder_itself_may_be_reached_by_a_link(tmp_path: Path, bundle: Bundle) -> None:
    (tmp_path / "current").symlink_to(bundle.root)
    assert Bundle.open(tmp_path / "current").root == bundle.root


@pytest.mark.parametrize("name", ["../../secret", "/etc/passwd", "a/../../b"])
def test_a_card_that_names_files_outside_is_refused(bundle: Bundle, name: str) -> None:
    card = json.loads((bundle.root / "card.json").read_text())
    card["files"][name] = card["files"]["model.onnx"]
    (bundle.root / "card.json").write_text(json.dumps(card))
    with pytest.raises(BundleError, match="can't be a file's name"):
        Bundle.open(bundle.root)


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"format": 1}', '{"format": NaN}', "\xff", "[" * 100_000])
def test_a_damaged_card_is_a_bundle_error(bundle: Bundle, text: str) -> None:
    (bundle.root / "card.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(BundleError):
        Bundle.open(bundle.root)


def test_no_folder_and_no_card(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="No bundle at"):
        Bundle.open(tmp_path / "none")
    with pytest.raises(BundleError, match=r"no card\.json"):
        Bundle.open(tmp_path)


def test_an_unknown_file_is_refused_by_name(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match=r"has no 'model\.tflite'.*It has: golden"):
        bundle.path("model.tflite")


def test_pickles_are_refused(tmp_path: Path, bundle: Bundle) -> None:
    stream = io.BytesIO()
    np.savez(stream, evil=np.array([{"a": 1}], dtype=object))
    files = {"model.onnx": bundle.path("model.onnx"), "reference.npz": stream.getvalue()}
    other = write_bundle(tmp_path / "other", bundle.card, files)
    with pytest.raises(BundleError, match="plain arrays"):
        other.arrays("reference.npz")


def test_what_is_no_npz_is_refused(tmp_path: Path, bundle: Bundle) -> None:
    files = {"model.onnx": bundle.path("model.onnx"), "reference.npz": b"no zip"}
    with pytest.raises(BundleError, match="plain arrays"):
        write_bundle(tmp_path / "other", bundle.card, files).arrays("reference.npz")


def test_a_bundle_without_its_model_is_not_written(tmp_path: Path, bundle: Bundle) -> None:
    with pytest.raises(BundleError, match=r"names model\.onnx"):
        write_bundle(tmp_path / "other", bundle.card, {})
    with pytest.raises(BundleError, match="can't be a file's name"):
        write_bundle(tmp_path / "other", bundle.card, {"../x": b""})
    assert not (tmp_path / "other").exists()


def test_a_failed_write_leaves_what_was_there(tmp_path: Path, bundle: Bundle) -> None:
    with pytest.raises(FileNotFoundError):
        write_bundle(bundle.root, bundle.card, {"model.onnx": tmp_path / "missing"})
    assert Bundle.open(bundle.root).digest == bundle.digest
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
