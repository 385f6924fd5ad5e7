from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from serving.core.decisions import decide
from serving.core.drift import read_window
from serving.core.runtimes import open_runtime
from tests.anomaly_bundles import surface, tiny_anomaly_bundle
from tests.bundles import tiny_bundle
from training.drift.cli import app
from training.drift.collect import Collector


def pictures(count: int = 5, side: int = 96) -> list[bytes]:
    rng = np.random.default_rng(0)
    small = rng.integers(40, 200, (count, 24, 24, 3), dtype=np.uint8)
    big = [cv2.resize(one, (side, side), interpolation=cv2.INTER_NEAREST) for one in small]
    return [cv2.imencode(".png", one)[1].tobytes() for one in big]


def test_answers_are_those_of_the_model_in_the_images_order(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "bundle", quality="thumbnail")
    blank = cv2.imencode(".png", np.full((96, 96, 3), 90, np.uint8))[1].tobytes()
    files = pictures()
    collector = Collector.open(bundle)
    found = collector.window([files[0], blank, b"no image", *files[1:]])
    collector.close()
    assert found.images == 7
    assert found.gradable is not None
    assert found.gradable.tolist() == [True, False, False, True, True, True, True]
    assert found.sharpness is not None
    assert np.isnan(found.sharpness).tolist() == [False, False, True, False, False, False, False]
    pixels = np.stack([collector.preprocessing(collector.preprocessing.decode(data)) for data in files])
    head = bundle.card.heads[0]
    runtime = open_runtime(bundle)
    logits = runtime.run(pixels, ("logits",))["logits"]
    runtime.close()
    probabilities = found.probabilities[head.name]
    assert probabilities[found.gradable] == pytest.approx(decide(logits, head).probabilities, abs=1e-5)
    assert found.colour is not None
    assert found.colour[0, :3] == pytest.approx(pixels[0].reshape(-1, 3).mean(axis=0))
    assert found.embedding is not None
    for values in (probabilities, found.colour, found.embedding):
        assert np.isnan(values[1:3]).all()
        assert not np.isnan(values[found.gradable]).any()


def test_a_window_of_refused_images_holds_no_answers(tmp_path: Path) -> None:
    collector = Collector.open(tiny_bundle(tmp_path / "bundle"))
    found = collector.window([b"no image"] * 3)
    collector.close()
    assert found.images == 3
    assert found.embedding is None
    assert found.probabilities == {}
    assert found.gradable is not None
    assert not found.gradable.any()


def test_an_anomaly_model_gives_scores(tmp_path: Path) -> None:
    bundle = tiny_anomaly_bundle(tmp_path / "bundle")
    files = [cv2.imencode(".png", surface(96, seed)[..., ::-1])[1].tobytes() for seed in range(3)]
    found = Collector.open(bundle).window(files)
    assert found.score is not None
    assert found.probabilities == {}
    assert found.gradable is not None
    assert (~np.isnan(found.score) == found.gradable).all()


def test_the_command_makes_a_window(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "bundle", quality="thumbnail")
    (tmp_path / "photos").mkdir()
    for i, data in enumerate(pictures()):
        (tmp_path / "photos" / f"{i}.png").write_bytes(data)
    line = ["window", str(tmp_path / "photos"), "--bundle", str(bundle.root), "--out", str(tmp_path / "w")]
    done = CliRunner().invoke(app, [*line, "--limit", "4"])
    assert done.exit_code == 0, done.output
    window, info = read_window(tmp_path / "w")
    assert window.images == 4
    assert info.bundle_digest == bundle.digest
