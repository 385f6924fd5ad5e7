"""Each face task from ``retiderm run``, on drawn images and a tiny network, to its callers' document."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from data.paths import Home
from data.synthetic import draw, plan
from serving.profile import HEADS, Profiler, analyze_image
from serving.scan import ACNE, CONDITION, BundleModels, FaceScan, analyze_face
from serving.source import open_source
from tests.faces import portrait
from tests.profiles import jpeg

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

#: Enough for every proof of the export; the answers mean nothing.
TINY = (
    "--backbone=test_resnet",
    "--set=weights=none",
    "--set=train.epochs=1",
    "--set=train.batch_size=16",
    "--set=gate.floors={}",
    # A network that knows nothing loses nothing worth keeping.
    "--set=export.loss=1.0",
)
DATA = {
    "acne": "synthetic-face?n=90&size=128",
    "skin_condition": "synthetic-face?n=120&size=128",
    "skin_profile": "synthetic-face?n=160&size=128",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home in which the tasks were run and promoted."""
    root = tmp_path_factory.mktemp("skin") / "var"
    for task, source in DATA.items():
        done = subprocess.run(
            [sys.executable, "-m", "pipelines.cli", "run", task, "--data", source, *TINY],
            env={**os.environ, "RETIDERM_HOME": str(root), "OMP_NUM_THREADS": "2"},
            capture_output=True,
            text=True,
            timeout=750,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        assert f"promoted: {task}" in done.stdout
    return Home(root)


def test_all_are_served_and_say_that_they_learned_from_drawings(home: Home) -> None:
    found = open_source(home.serving, None).scan()
    assert set(found) == set(DATA)
    for item in found.values():
        card = item.open(verify=True).card
        assert card.dataset.synthetic
        assert "drawn (synthetic) images only" in card.limits[0]


def test_the_profile_answers_s1s_document_in_each_precision(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = open_source(home.serving, None).scan()["skin_profile"].open(verify=True).card
    assert set(card.precisions) == {"fp32", "tflite", "tflite_int8"}
    assert "precisions_left_out" not in card.extra
    profiler = Profiler.open(root=home.serving)
    assert (profiler.model_type, profiler.precision, profiler.passed_over) == ("tflite", "tflite", {})
    photo = draw(plan("face", 1, seed=3, size=320, views=("portrait",))[0])
    file = tmp_path / "photo.jpg"
    file.write_bytes(photo)
    document = analyze_image(file, profiler=profiler)
    assert list(document) == [
        "skin_type",
        "hair_type",
        "conditions_detected",
        "confidence_scores",
        "model_version",
        "model_type",
    ]
    assert (document["model_version"], document["model_type"]) == ("1", "tflite")
    assert document["skin_type"] in HEADS["skin_type"]
    assert document["hair_type"] in HEADS["hair_type"]
    # ONNX, the next link, says the same to rounding.
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    other = analyze_image(photo, profiler=Profiler.open(root=home.serving))
    assert other["model_type"] == "onnx"
    assert other["confidence_scores"] == pytest.approx(document["confidence_scores"], abs=1e-3)
    assert {**other, **_left(document)} == document


def _left(document: dict[str, Any]) -> dict[str, Any]:
    return {name: document[name] for name in ("confidence_scores", "model_type")}


def test_the_two_face_models_answer_s3s_document(home: Home) -> None:
    models = BundleModels.open(root=home.serving)
    assert set(models.tasks) == {"acne", "skin_condition"}
    scan = analyze_face(jpeg(portrait(480)), models)
    assert isinstance(scan, FaceScan)
    result = scan.to_dict("7f")
    analysis = result["ml_analysis"]
    assert analysis["ml_models_used"] == {"acne_model": True, "condition_model": True}
    assert tuple(analysis["acne_analysis"]["probabilities"]) == ACNE.classes
    assert tuple(analysis["condition_analysis"]["probabilities"]) == CONDITION.classes
    assert result["confidence"] == min(
        analysis[part]["confidence"] for part in ("acne_analysis", "condition_analysis")
    )


def test_predict_answers_every_head(home: Home, tmp_path: Path) -> None:
    file = tmp_path / "photo.jpg"
    file.write_bytes(jpeg(portrait(480)))
    for task in DATA:
        done = subprocess.run(
            [sys.executable, "-m", "pipelines.cli", "predict", str(file), "--task", task, "--json",
             "--explain", str(tmp_path / f"{task}.png")],
            env={**os.environ, "RETIDERM_HOME": str(home.root)},
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )  # fmt: skip
        document = json.loads(done.stdout)
        card = open_source(home.serving, None).scan()[task].open(verify=False).card
        assert document["quality"]["verdict"] == "gradable"
        assert {name: set(head["probabilities"]) for name, head in document["heads"].items()} == {
            head.name: set(head.classes) for head in card.heads
        }
        assert (tmp_path / f"{task}.png").read_bytes().startswith(b"\x89PNG")
