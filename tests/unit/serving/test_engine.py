"""The engine against the runtime and decisions that it joins, and the offline answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data.errors import BundleError, NotAnImage, RequestError, UsageError
from data.paths import Home
from serving.core.runtimes import write_tuned
from serving.engine import load_engine
from serving.kinds.classification.engine import ClassificationEngine
from serving.offline import answer, find_served
from serving.source import open_source
from serving.tune import tune
from tests.bundles import tiny_bundle
from tests.integration.serving import pictures


@pytest.fixture
def engine(tmp_path: Path) -> ClassificationEngine:
    heads = {"one": ("a", "b"), "two": ("x", "y", "z")}
    bundle = tiny_bundle(tmp_path / "b", task="pair", heads=heads, quality="photo")
    engine = load_engine(open_source(None, bundle.root).scan()["pair"], threads=1)
    assert isinstance(engine, ClassificationEngine)
    return engine


def images(count: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)


@pytest.mark.parametrize("count", [1, 7, 8, 9, 20])
def test_a_batch_in_pieces_is_the_same_as_one_by_one(engine: ClassificationEngine, count: int) -> None:
    together = engine.answer(images(count), explain=True).heads
    for i, image in enumerate(images(count)):
        alone = engine.answer(image[None], explain=True).heads
        for head in ("one", "two"):
            assert together[head].decision.label[i] == alone[head].decision.label[0]
            assert np.allclose(
                together[head].decision.probabilities[i], alone[head].decision.probabilities[0], atol=1e-5
            )
            a, b = together[head].cam, alone[head].cam
            assert a is not None
            assert b is not None
            assert np.allclose(a[i], b[0], atol=1e-5)


def test_the_map_is_the_labels_own(engine: ClassificationEngine) -> None:
    raw = engine.runtime.run(images(3), ("logits", "cam"))
    answers = engine.answer(images(3), explain=True).heads
    for head, part in engine.card.slices.items():
        for i in range(3):
            label = raw["logits"][i, part].argmax()
            cam = answers[head].cam
            assert cam is not None
            assert np.array_equal(cam[i], raw["cam"][i, part][label])


def test_no_map_unless_asked(engine: ClassificationEngine) -> None:
    assert engine.answer(images(1)).heads["one"].cam is None


@pytest.mark.parametrize("shape", [(0, 64, 64, 3), (1, 32, 64, 3), (64, 64, 3)])
def test_other_shapes_are_refused(engine: ClassificationEngine, shape: tuple[int, ...]) -> None:
    with pytest.raises(RequestError):
        engine.answer(np.zeros(shape, np.uint8))


def test_an_altered_bundle_is_not_loaded(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "b")
    served = open_source(None, bundle.root).scan()["dr_grading"]
    model = bundle.root / "model.onnx"
    content = bytearray(model.read_bytes())
    content[-9] ^= 1
    model.write_bytes(content)
    with pytest.raises(BundleError):
        load_engine(served)


def test_what_was_tuned_runs_and_its_table_is_told(tmp_path: Path, home: Home) -> None:
    bundle = tiny_bundle(tmp_path / "b")
    served = open_source(None, bundle.root).scan()["dr_grading"]
    before = load_engine(served, threads=1).describe()
    assert before["tuned"] is None
    assert before["runtime"].startswith("onnxruntime ")
    chosen = tune(bundle, rounds=1, threads=1)
    write_tuned(chosen)
    after = load_engine(served, threads=1)
    assert after.describe() == {"runtime": chosen.version, "tuned": chosen.to_dict()}
    assert after.precision == chosen.precision
    # Asked for by name, a precision is what it says, whatever was tuned.
    assert load_engine(served, precision="fp32", threads=1).describe()["runtime"] == before["runtime"]


def test_offline_answers_and_refuses_as_a_server(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "b", quality="photo")
    served = find_served(None, bundle.root, None)
    good = answer(served, pictures.file(pictures.sharp(), "png"), explain=True)
    assert good.overlay is not None
    assert set(good.to_dict()) == {"quality", "heads", "explanation", "model"}
    blurred = answer(served, pictures.file(pictures.blurred(), "png"), explain=True)
    assert blurred.to_dict()["heads"] == {}
    assert "explanation" not in blurred.to_dict()
    with pytest.raises(NotAnImage):
        answer(served, b"text")
    with pytest.raises(UsageError, match="Served here: dr_grading"):
        find_served(None, bundle.root, "acne")
