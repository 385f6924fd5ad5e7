"""Several heads on one backbone, as skin_profile has them: every head's answer and map, on every wire."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from kserve import InferRequest

from data.quality import QualityVerdict
from serving.answer import ImageAnswer
from serving.core.bundle import HeadCard
from serving.identity import ModelInfo
from serving.kinds import kind_of
from serving.kinds.classification.answers import HeadsForm
from serving.kinds.classification.engine import ClassificationEngine
from serving.source import open_source
from serving.transformer.outputs import tensors
from tests.bundles import TITLES, tiny_bundle
from training.task import load_task

SIZE = (64, 64)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> ClassificationEngine:
    """A network of random weights with skin_profile's heads."""
    path = tmp_path_factory.mktemp("heads") / "bundle"
    heads = {head.name: head.classes for head in load_task("skin_profile").heads}
    tiny_bundle(path, task="skin_profile", heads=heads, size=SIZE, quality="photo")
    served = open_source(None, path).scan()["skin_profile"]
    found = kind_of("classification").load(served, precision="fp32", threads=1)
    assert isinstance(found, ClassificationEngine)
    return found


def images(count: int = 3) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, *SIZE, 3), dtype=np.uint8)


def test_the_heads_are_s1s(engine: ClassificationEngine) -> None:
    assert {head.name: head.classes for head in engine.card.heads} == {
        "skin_type": ("normal", "dry", "oily", "combination", "sensitive"),
        "hair_type": ("straight", "wavy", "curly", "coily"),
        "condition": ("healthy", "mild_acne", "severe_acne", "eczema", "psoriasis"),
    }


def test_s3s_classes_are_the_tasks() -> None:
    assert load_task("acne").heads[0].classes == ("no_acne", "acne")
    assert load_task("skin_condition").heads[0].classes == (
        "normal",
        "acne",
        "rosacea",
        "eczema",
        "pigmentation",
    )
    assert load_task("acne").input_size == load_task("skin_condition").input_size == (224, 224)


def test_titles_are_of_the_metadata_and_of_no_answer(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "bundle", task="skin_lesion")
    form = HeadsForm.of_card(bundle.card)
    titles = form.describe()["titles"]
    assert titles == {"diagnosis": {name: TITLES[name] for name in ("bcc", "mel", "nv", "vasc")}}
    card = tiny_bundle(
        tmp_path / "named", heads=[HeadCard("grade", ("no_dr", "mild"), ("No DR", "Mild NPDR"))]
    ).card
    assert HeadsForm.of_card(card).describe()["titles"] == {"grade": {"mild": "Mild NPDR"}}
    assert set(form.parameters()) == {"classes"}
    # What a client reads from an answer's parameters is the same form.
    assert HeadsForm(form.classes) == form


def test_every_head_answers_and_has_the_map_of_its_own_label(engine: ClassificationEngine) -> None:
    pixels = images()
    cam = engine.runtime.run(pixels, ("cam",))["cam"]
    assert cam.shape[1] == 14  # a map for each head's each class
    for i, result in enumerate(engine.answer(pixels, explain=True).results()):
        document = result.to_dict()["heads"]
        assert list(document) == ["skin_type", "hair_type", "condition"]
        maps = result.maps()
        for head in engine.card.heads:
            said = document[head.name]
            assert sum(said["probabilities"].values()) == pytest.approx(1, abs=1e-5)
            assert said["confidence"] == pytest.approx(max(said["probabilities"].values()))
            column = engine.card.slices[head.name].start + head.classes.index(said["label"])
            assert np.array_equal(maps[head.name], cam[i, column])
        assert result.map is not None
        assert np.array_equal(result.map, maps["skin_type"])


def test_maps_are_in_the_v1_document_and_the_v2_tensors(engine: ClassificationEngine) -> None:
    (result,) = engine.answer(images(1), explain=True).results()
    model = ModelInfo("skin_profile", "1", "sha256:0", "fp32")
    verdict = QualityVerdict("gradable", (), {})
    answer = ImageAnswer(model, verdict=verdict, result=result, map=result.map)
    explanation = json.loads(json.dumps(answer.to_dict()))["explanation"]
    assert list(explanation["maps"]) == ["skin_type", "hair_type", "condition"]
    assert explanation["map"] == explanation["maps"]["skin_type"]
    blind = ImageAnswer(model, verdict=QualityVerdict("ungradable", ("blurred",), {}))
    found = tensors([answer, blind], engine.form, explain="map", map_shape=(8, 8))
    outputs = {
        item.name: item for item in found.respond(InferRequest("t", []), version="1", parameters={}).outputs
    }
    for head in ("skin_type", "hair_type", "condition"):
        values = outputs[f"{head}.map"].as_numpy()
        assert values.shape == (2, 8, 8)
        assert np.isfinite(values[0]).all()
        assert np.isnan(values[1]).all()
        assert np.isnan(outputs[f"{head}.probabilities"].as_numpy()[1]).all()


def test_one_head_has_one_map(tmp_path: Path) -> None:
    tiny_bundle(tmp_path / "bundle", task="acne", heads={"acne": ("no_acne", "acne")}, size=SIZE)
    served = open_source(None, tmp_path / "bundle").scan()["acne"]
    single = kind_of("classification").load(served, precision="fp32", threads=1)
    (result,) = single.answer(images(1), explain=True).results()
    assert result.maps() == {}
    assert isinstance(single.form, HeadsForm)
