"""An anomaly bundle's answers: scores, decisions, regions in the photograph, colours."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from data.errors import BundleError, ImageError, IntegrityError, RequestError
from data.preprocess import Preprocessing
from serving.core.bundle import Bundle, HeadCard
from serving.core.patchcore.rule import ScoreRule
from serving.engine import load_engine
from serving.kinds.anomaly.answers import AnomalyForm, AnomalyResult, Spot
from serving.kinds.anomaly.engine import AnomalyEngine
from serving.kinds.anomaly.overlay import overlay_png
from serving.offline import answer, find_served
from serving.preparing import load_recipe
from serving.source import Served, open_source
from tests.anomaly_bundles import SIDE, file, surface, tiny_anomaly_bundle, with_blot
from tests.unit.serving.kinds.sink import Tensors

FORM = AnomalyForm(0.3, ("ok", "ng"), 1.0)


def served(bundle: Bundle) -> Served:
    return open_source(None, bundle.root).scan()[bundle.card.task]


@pytest.fixture
def engine(tmp_path: Path) -> AnomalyEngine:
    found = load_engine(served(tiny_anomaly_bundle(tmp_path / "b")), threads=1)
    assert isinstance(found, AnomalyEngine)
    return found


def batch(count: int) -> np.ndarray:
    some = (surface(seed=i) for i in range(50, 50 + count))
    return np.stack([image if i % 2 else with_blot(image, 0.3, 0.7) for i, image in enumerate(some)])


def test_what_is_unusual_is_told_and_where(engine: AnomalyEngine) -> None:
    good, bad = engine.answer(np.stack([surface(seed=7), with_blot(surface(seed=8), 0.7, 0.3)])).results()
    assert (good.label, good.spots) == ("ok", ())
    assert bad.label == "ng"
    assert bad.score > 10 * good.score
    x, y, width, height = bad.spots[0].box
    assert x <= 0.7 * SIDE <= x + width
    assert y <= 0.3 * SIDE <= y + height


@pytest.mark.parametrize("count", [1, 8, 9, 20])
def test_a_batch_in_pieces_is_the_same_as_one_by_one(engine: AnomalyEngine, count: int) -> None:
    images = batch(count)
    together = engine.answer(images).results()
    for one, image in zip(together, images, strict=True):
        (alone,) = engine.answer(image[None]).results()
        assert one.score == pytest.approx(alone.score, abs=1e-6)
        assert one.label == alone.label


@pytest.mark.parametrize("shape", [(0, SIDE, SIDE, 3), (1, 32, SIDE, 3), (SIDE, SIDE, 3)])
def test_other_shapes_are_refused(engine: AnomalyEngine, shape: tuple[int, ...]) -> None:
    with pytest.raises(RequestError):
        engine.answer(np.zeros(shape, np.uint8))


def test_other_golden_scores_are_not_served(tmp_path: Path) -> None:
    bundle = tiny_anomaly_bundle(tmp_path / "b", change={"scores": np.array([0, 0, 0.5, 1], np.float32)})
    with pytest.raises(IntegrityError, match="golden"):
        load_engine(served(bundle))


@pytest.mark.parametrize("name", ["extractor.onnx", "memory.npz", "index.faiss", "calib.json", "golden.npz"])
def test_an_altered_file_is_not_served(tmp_path: Path, name: str) -> None:
    bundle = tiny_anomaly_bundle(tmp_path / "b")
    where = served(bundle)
    content = bytearray((bundle.root / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle.root / name).write_bytes(content)
    with pytest.raises(BundleError, match="not the file that was exported"):
        load_engine(where)


def test_an_altered_threshold_is_not_told_by_a_transformer_either(tmp_path: Path) -> None:
    bundle = tiny_anomaly_bundle(tmp_path / "b")
    where, path = served(bundle), bundle.root / "calib.json"
    path.write_bytes(path.read_bytes().replace(b'"threshold": 0', b'"threshold": 9'))
    with pytest.raises(BundleError, match="not the file that was exported"):
        load_recipe(where)


@pytest.mark.parametrize("heads", [(), (HeadCard("a", ("x", "y", "z")),)])
def test_other_heads_are_said(tmp_path: Path, heads: tuple[HeadCard, ...]) -> None:
    bundle = tiny_anomaly_bundle(tmp_path / "b", heads=heads)
    with pytest.raises(BundleError, match="not one pair"):
        load_recipe(served(bundle))


def test_a_precision_that_there_is_not_is_refused(tmp_path: Path) -> None:
    where = served(tiny_anomaly_bundle(tmp_path / "b"))
    with pytest.raises(BundleError, match="Approved: fp32"):
        load_engine(where, precision="int8")
    assert load_engine(where, precision="auto").precision == "fp32"


@pytest.mark.parametrize("fit", ["stretch", "center"])
@pytest.mark.parametrize("rule", [ScoreRule("top_mean"), ScoreRule("percentile", percentile=99)])
def test_regions_are_in_pixels_of_the_photograph(tmp_path: Path, fit: Any, rule: ScoreRule) -> None:
    settings = Preprocessing(size=(SIDE, SIDE), fit=fit)
    bundle = tiny_anomaly_bundle(tmp_path / "b", score=rule, preprocessing=settings)
    square = surface(512, seed=3)
    # Wider than high; the middle, or all of it, is the surface that was learned.
    photograph = cv2.copyMakeBorder(square, 0, 0, 94, 94, cv2.BORDER_REFLECT)
    if fit == "stretch":
        photograph = cv2.resize(square, (700, 512))
    photograph = cv2.circle(photograph, (400, 130), 35, (40, 255, 40), -1)
    found = answer(find_served(None, bundle.root, None), file(photograph)).to_dict()["anomaly"]
    assert found["label"] == "ng"
    (region,) = found["regions"]
    x, y, width, height = region["bbox"]
    # The blot, and what its patches (64 pixels, stretched 88 across) and the blur add on each side.
    reach = 110
    assert 365 - reach <= x <= 365
    assert 435 <= x + width <= 435 + reach
    assert 95 - reach <= y <= 95
    assert 165 <= y + height <= 165 + reach
    outline = np.array(region["contour"])
    assert outline.min(axis=0).tolist() >= [x, y]
    assert (outline.max(axis=0) < [x + width, y + height]).all()
    assert 0 < region["area_px"] <= width * height


def test_a_region_in_the_padding_is_not_told() -> None:
    from data.image_header import ImageHeader
    from data.placement import placement

    where = placement(
        Preprocessing(size=(40, 40), fit="letterbox"), (50, 100), None, ImageHeader("png", 100, 50, 1)
    )
    square = np.array([[0, 0], [5, 0], [5, 5], [0, 5]], np.int32)
    spots = (Spot((10, 12, 6, 6), 36.0, square + np.int32([10, 12])), Spot((0, 0, 6, 6), 36.0, square))
    result = AnomalyResult(FORM, 0.5, "ng", spots).placed(where)
    assert [spot.box for spot in result.spots] == [(25, 5, 15, 15)]
    assert result.spots[0].area_px == pytest.approx(225)


def test_nothing_is_said_of_a_blurred_image(tmp_path: Path) -> None:
    bundle = tiny_anomaly_bundle(tmp_path / "b")
    soft = cv2.GaussianBlur(surface(512), (0, 0), 25)
    document = answer(find_served(None, bundle.root, None), file(soft), explain=True).to_dict()
    assert document["quality"]["verdict"] == "retake"
    assert document["heads"] == {}
    assert "anomaly" not in document
    assert "explanation" not in document
    with pytest.raises(ImageError):
        answer(find_served(None, bundle.root, None), b"text")


def test_without_calibration_there_is_no_threshold_and_no_label() -> None:
    form = dataclasses.replace(FORM, threshold=None)
    result = AnomalyResult(form, 0.25, None, ())
    assert result.to_dict() == {"anomaly": {"score": 0.25, "threshold": None, "label": None, "regions": []}}
    assert list(result.counts()) == [("anomaly", "uncalibrated", False)]
    assert AnomalyForm.of_parameters(form.parameters()) == form
    sink = Tensors()
    form.write(sink, [result])
    assert math.isnan(sink["anomaly.threshold"][0])
    assert sink["anomaly.label"] == [b""]


def test_without_an_answer_there_is_nothing() -> None:
    sink = Tensors()
    FORM.write(sink, [None, AnomalyResult(FORM, 0.5, "ng", ())])
    assert math.isnan(sink["anomaly.score"][0])
    assert math.isnan(sink["anomaly.threshold"][0])
    assert sink["anomaly.label"] == [b"", b"ng"]
    assert sink["anomaly.regions"] == [b"", b"[]"]


@pytest.mark.parametrize("threshold", [0.1, 0.3, 1 / 3, 0.8999999, 1e-8, 2.0])
def test_float32_columns_decide_as_the_label_does(threshold: float) -> None:
    form = dataclasses.replace(FORM, threshold=threshold)
    sink = Tensors()
    form.write(sink, [AnomalyResult(form, 0.0, "ok", ())])
    column, near = sink["anomaly.threshold"][0], np.float32(threshold)
    for score in (np.nextafter(near, np.float32(0)), near, np.nextafter(near, np.float32(9))):
        assert (score >= column) is np.bool_(float(score) >= threshold)


def picture(blob: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(blob, np.uint8), cv2.IMREAD_COLOR_RGB)


def test_colours_compare_with_the_threshold_and_not_with_the_image_itself() -> None:
    grey = np.full((40, 40, 3), 120, np.uint8)
    distances = np.zeros((5, 5), np.float32)
    distances[1, 3] = 0.1
    assert np.array_equal(picture(overlay_png(grey, distances, 0.0, 0.3, [])), grey)
    distances[1, 3] = 0.4
    changed = np.abs(picture(overlay_png(grey, distances, 0.0, 0.3, [])).astype(int) - grey).sum(axis=2)
    row, column = np.unravel_index(changed.argmax(), changed.shape)
    assert abs(row - 12) <= 5
    assert abs(column - 28) <= 5
    # Without a threshold there is only the image's own range.
    distances[1, 3] = 1e-6
    assert not np.array_equal(picture(overlay_png(grey, distances, 0.0, None, [])), grey)
    assert np.array_equal(picture(overlay_png(grey, np.zeros((5, 5), np.float32), 1.0, None, [])), grey)


def test_outlines_are_drawn_and_the_image_itself_is_not_written_to() -> None:
    grey = np.full((40, 40, 3), 120, np.uint8)
    square = np.array([[10, 10], [20, 10], [20, 20], [10, 20]], np.int32)
    shown = picture(overlay_png(grey, np.zeros((5, 5), np.float32), 1.0, 0.3, [square]))
    assert (shown[10, 10:21] == 255).all()
    assert (shown[15, 15] == 120).all()
    assert (grey == 120).all()
