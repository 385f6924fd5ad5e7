"""Calibration on pairs of sharp and blurred images, and the two commands."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import typer
from numpy.typing import NDArray
from typer.testing import CliRunner

from data.errors import UsageError
from data.quality import PROFILES, QualityProfile, load_profile
from data.quality.calibrate import auc, calibrate
from data.quality.cli import register
from data.quality.images import find_images


def textures(count: int, side: int = 240) -> list[NDArray[np.uint8]]:
    images = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        image = np.full((side, side, 3), 128.0)
        for octave in range(1, 7):
            noise = rng.normal(0, 10 + seed % 5, (side >> octave, side >> octave, 3))
            image += cv2.resize(noise, (side, side), interpolation=cv2.INTER_CUBIC)
        images.append(np.clip(image, 0, 255).astype(np.uint8))
    return images


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photographs")
    (root / "deep" / "er").mkdir(parents=True)
    for index, image in enumerate(textures(24)):
        cv2.imwrite(str(root / "deep" / "er" / f"{index:02}.png"), image)
    (root / "notes.md").write_text("not an image")
    return root


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    register(app)
    return app


def test_auc_counts_pairs() -> None:
    assert auc(np.array([2.0, 3.0]), np.array([0.0, 1.0])) == 1.0
    assert auc(np.array([1.0, 1.0]), np.array([1.0, 1.0])) == 0.5
    assert auc(np.array([0.0, 3.0]), np.array([1.0, 2.0])) == 0.5


def test_the_threshold_falls_between_sharp_and_blurred() -> None:
    start = QualityProfile("photo", min_sharpness=0.05)
    result = calibrate(textures(24), start)
    assert result.blurred.auc == 1.0
    assert result.changed
    assert result.profile.name == "photo-calibrated"
    assert result.profile.min_sharpness > 0.2
    assert result.blurred.rejected_before == 0.0
    assert result.blurred.rejected == 1.0
    assert result.gradable == 1.0
    assert result.images == 24


def test_a_blur_that_does_not_show_changes_nothing() -> None:
    small = [
        np.asarray(cv2.resize(image, (28, 28), interpolation=cv2.INTER_AREA), np.uint8)
        for image in textures(24)
    ]
    result = calibrate(small, PROFILES["thumbnail"], sigma=0.5)
    assert not result.changed
    assert result.profile.min_sharpness == PROFILES["thumbnail"].min_sharpness


def test_too_few_images_are_refused() -> None:
    with pytest.raises(UsageError, match="few"):
        calibrate(textures(3), PROFILES["photo"])


def test_images_are_found_wherever_they_lie(folder: Path, tmp_path: Path) -> None:
    assert len(find_images([str(folder)])) == 24
    first = find_images([str(folder)])[0]
    assert first.read().shape == (240, 240, 3)
    listed = tmp_path / "list.txt"
    listed.write_text(f"{folder / 'deep/er/03.png'}\n\n{folder / 'deep/er/05.png'}\n")
    assert len(find_images([str(listed), str(folder / "deep/er/00.png")])) == 3
    arrays = tmp_path / "set.npz"
    np.savez(
        arrays, train_images=np.zeros((4, 28, 28), np.uint8), val_images=np.zeros((2, 28, 28, 3), np.uint8)
    )
    found = find_images([str(arrays)])
    assert len(found) == 6
    assert all(image.read().shape == (28, 28, 3) for image in found)
    spread = find_images([str(folder)], limit=4)
    assert [Path(image.name).stem for image in spread] == ["00", "06", "12", "18"]


def test_places_without_images_are_named(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.npz"
    np.savez(wrong, train_images=np.zeros((4, 28), np.float32))
    for place in (str(tmp_path / "empty"), str(wrong)):
        with pytest.raises(UsageError, match=Path(place).name):
            find_images([place])
    for name, content in (("zip.npz", b"PK\x03\x04 cut"), ("text.npz", b"no"), ("list.txt", b"\xff\xfe\x00")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UsageError, match=f"{name} is not a"):
            find_images([str(tmp_path / name)])
    np.savez_compressed(wrong, train_images=np.zeros((4, 28, 28), np.uint8))
    content = bytearray(wrong.read_bytes())
    content[60:80] = bytes(20)
    wrong.write_bytes(content)
    with pytest.raises(UsageError, match=r"not a readable \.npz"):
        find_images([str(wrong)])
    with (tmp_path / "single.npz").open("wb") as stream:
        np.save(stream, np.zeros(3))
    with pytest.raises(UsageError, match="single array"):
        find_images([str(tmp_path / "single.npz")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no image"):
        find_images([str(tmp_path / "empty")])


def test_the_calibrate_command_writes_a_profile_that_loads(
    folder: Path, tmp_path: Path, app: typer.Typer
) -> None:
    for suffix in (".yaml", ".json"):
        out = tmp_path / f"mine{suffix}"
        result = CliRunner().invoke(
            app, ["calibrate-quality", str(folder), "--out", str(out), "--name", "mine"]
        )
        assert result.exit_code == 0, result.output
        assert "1.0000" in result.output
        assert load_profile(str(out)).name == "mine"
    shown = CliRunner().invoke(app, ["calibrate-quality", str(folder), "--json"])
    assert json.loads(shown.stdout)["blurred"]["auc"] == 1.0
    wrong = CliRunner().invoke(app, ["calibrate-quality", str(folder), "--out", str(tmp_path / "mine.txt")])
    assert isinstance(wrong.exception, UsageError)


def test_the_quality_command_lists_counts_and_fails_on_bad_files(
    folder: Path, tmp_path: Path, app: typer.Typer
) -> None:
    runner = CliRunner()
    one = runner.invoke(app, ["quality", str(folder / "deep/er/00.png"), "--json"])
    assert one.exit_code == 0
    document = json.loads(one.stdout)
    assert document["images"]["00.png"]["verdict"] == "gradable"
    assert document["counts"] == {"images": 1, "gradable": 1}
    listed = runner.invoke(app, ["quality", str(folder), "--limit", "3"])
    assert listed.stdout.count("gradable") == 3
    counted = runner.invoke(app, ["quality", str(folder)])
    assert "100.00%" in counted.stdout
    (tmp_path / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    bad = runner.invoke(app, ["quality", str(tmp_path / "cut.jpg")])
    assert bad.exit_code == 1
    assert "image_damaged" in bad.stdout
