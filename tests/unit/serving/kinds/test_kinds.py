"""What holds for every kind of model: the wire and the offline answer say the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.errors import BundleError
from serving.core.bundle import Bundle
from serving.engine import load_engine
from serving.kinds import kind_of
from serving.kinds.anomaly.engine import AnomalyEngine
from serving.kinds.base import Engine
from serving.kinds.classification.engine import ClassificationEngine
from serving.source import open_source
from tests.anomaly_bundles import surface, tiny_anomaly_bundle, with_blot
from tests.bundles import tiny_bundle
from tests.unit.serving.kinds.sink import Tensors

MAKERS: dict[str, Callable[[Path], Bundle]] = {
    "classification": lambda path: tiny_bundle(path, task="t", heads={"h": ("a", "b"), "i": ("x", "y", "z")}),
    "anomaly": lambda path: tiny_anomaly_bundle(path, task="t"),
}
IMAGES = np.stack([surface(seed=40), with_blot(surface(seed=41), 0.3, 0.3), surface(seed=42)])


@pytest.fixture(params=MAKERS)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    bundle = MAKERS[request.param](tmp_path / "b")
    found = load_engine(open_source(None, bundle.root).scan()["t"], threads=1)
    assert found.card.kind == request.param
    return found


@pytest.mark.parametrize("explain", [False, True])
def test_tensors_read_back_are_the_offline_results(engine: Engine, explain: bool) -> None:
    batch, kind = engine.answer(IMAGES, explain=explain), kind_of(engine.card.kind)
    sent = Tensors()
    batch.put(sent)
    received = kind.form_of_response(engine.form.parameters()).read(sent)
    offline = batch.results()
    assert len(received) == len(offline) == 3
    for one, other, pixels in zip(received, offline, IMAGES, strict=True):
        assert one.to_dict() == other.to_dict()
        assert list(one.counts()) == list(other.counts())
        assert one.overlay(pixels) == other.overlay(pixels)
        assert (one.overlay(pixels) is not None) is explain
        assert (one.map is not None) is explain
        if one.map is not None and other.map is not None:
            assert np.array_equal(one.map, other.map)
            assert one.map.shape == kind.explanation(engine.card).map_shape


def test_features_are_the_models_own_embedding_and_nothing_is_worked_out_unasked(engine: Engine) -> None:
    without, sent, kind = Tensors(), Tensors(), kind_of(engine.card.kind)
    engine.answer(IMAGES).put(without)
    assert not {"embedding", "unusual"} & set(without)
    batch = engine.answer(IMAGES, features=True)
    batch.put(sent)
    assert set(sent) == {*without, "embedding", "unusual"}
    for name, values in without.items():
        assert np.array_equal(sent[name], values)
    assert sent["embedding"].shape == (3, kind.embedding(engine.card))
    assert np.isfinite(sent["embedding"]).all()
    # The tiny bundles keep no distances.
    assert np.isnan(sent["unusual"]).all()
    assert "no embeddings" in str(engine.sight.unavailable)


def test_an_embedding_is_what_the_reference_keeps(engine: Engine) -> None:
    golden = Bundle.open(engine.served.folder)
    images, kept = golden.arrays("golden.npz")["images"], golden.arrays("reference.npz")["embedding_sample"]
    batch, sent = engine.answer(images, features=True), Tensors()
    batch.put(sent)
    if isinstance(engine, ClassificationEngine):
        assert sent["embedding"] == pytest.approx(kept.astype(np.float32), rel=1e-2, abs=1e-3)
    else:
        assert isinstance(engine, AnomalyEngine)
        patches = engine.detector.scorer.extractor.embed(images)
        assert np.allclose(sent["embedding"], patches.mean(axis=(1, 2)), atol=1e-6)


def test_every_output_is_in_the_metadata(engine: Engine) -> None:
    batch = engine.answer(IMAGES)
    sent, answered = Tensors(), Tensors()
    batch.put(sent)
    assert [item["name"] for item in engine.form.tensor_types()] == list(sent)
    engine.form.write(answered, [*batch.results(), None])
    assert [item["name"] for item in engine.form.answer_types()] == list(answered)
    for item in engine.form.answer_types():
        values: Any = answered[item["name"]]
        assert len(values) == 4
        kind = {"float32": "FP32", "bool": "BOOL"}[values.dtype.name] if hasattr(values, "dtype") else "BYTES"
        assert item["datatype"] == kind


def test_the_form_of_the_bundle_is_that_of_the_response(engine: Engine) -> None:
    kind = kind_of(engine.card.kind)
    assert kind.form(Bundle.open(engine.served.folder)) == engine.form
    assert kind.form_of_response(engine.form.parameters()) == engine.form


def test_an_unknown_kind_is_said() -> None:
    with pytest.raises(BundleError, match="anomaly"):
        kind_of("regression")
