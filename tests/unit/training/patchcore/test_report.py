from __future__ import annotations

import json

import numpy as np
import pytest

from data.files import canonical_json
from tests.anomaly_sets import Made
from training.evaluate import metrics
from training.patchcore.build import NG, OK
from training.patchcore.evaluate import PixelFigures
from training.patchcore.record import figures as told
from training.patchcore.report import figures
from training.patchcore.scoring import Scored
from training.predict import Predictions
from training.registry.page import scalar_metrics


def test_the_document_holds_what_registry_and_gate_read(made: Made) -> None:
    head = made.report["heads"]["status"]
    assert (made.report["kind"], made.report["images"], head["n"]) == ("anomaly", 12, 12)
    assert head["auc"]["value"] > 0.9
    assert head["pixel_auroc"]["value"] > 0.9
    assert 0 < head["pro"]["value"] <= 1
    assert head["pixels"] == {"images": 12, "masks": 6, "regions": 6}
    assert head["best_f1"]["value"] >= head["f1"]["value"]
    assert made.report["threshold"]["threshold"] == made.calibration.threshold
    assert head["scores"]["ng"]["median"] > head["scores"]["ok"]["median"]
    canonical_json(made.report)  # no NaN anywhere
    known = scalar_metrics(made.report)["status"]
    assert {"auc", "accuracy", "balanced_accuracy", "f1", "best_f1", "pixel_auroc", "pro"} <= set(known)


def test_what_only_probabilities_have_is_not_there(made: Made) -> None:
    text = json.dumps(made.report)
    for name in ("nll", "ece_", '"ece"', "temperature", "coverage"):
        assert name not in text


def test_auc_is_that_of_the_scores_themselves(made: Made) -> None:
    scored = made.scored
    ones = np.ones((1, len(scored)))
    plain = float(metrics.auc(ones, scored.score.astype(np.float64), scored.label == NG)[0])
    assert made.report["heads"]["status"]["auc"]["value"] == pytest.approx(plain, abs=1e-12)


def test_predictions_for_the_gate_lie_beside_the_scores(made: Made) -> None:
    stored = Predictions.load(made.predictions / "test.npz")
    np.testing.assert_array_equal(stored.ids, made.scored.ids)
    called = stored.logits[:, 1] > stored.logits[:, 0]
    np.testing.assert_array_equal(called, made.scored.score.astype(float) >= made.calibration.threshold)


def test_pictures_are_drawn(made: Made) -> None:
    names = {path.name for path in made.pictures.glob("*.png")}
    assert {"roc.png", "scores.png", "pro.png", "worst.png"} <= names


def test_f1_is_of_what_is_not_ok_at_the_threshold() -> None:
    label = np.array([OK, OK, OK, NG, NG, NG])
    score = np.array([0.1, 0.2, 0.9, 0.8, 0.85, 0.3], np.float32)
    scored = Scored(
        np.array(list("abcdef")), label, score, np.zeros((6, 1, 1), np.float32), np.zeros((6, 1), np.float32)
    )
    found = figures(scored, 0.5, PixelFigures(6, 0, 0, None, None))
    assert found["f1"]["value"] == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert found["f1"]["low"] <= found["f1"]["value"] <= found["f1"]["high"]
    assert found["best_f1"]["value"] == pytest.approx(6 / 7)
    assert found["pixel_auroc"] == {"value": None, "low": None, "high": None}
    only_ok = scored.take(np.arange(3))
    assert figures(only_ok, 0.5, PixelFigures(3, 0, 0, None, None))["f1"]["value"] is None
    assert figures(only_ok, 0.5, PixelFigures(3, 0, 0, None, None))["scores"]["ng"] is None


def test_mlflow_gets_the_figures_that_have_a_value(made: Made) -> None:
    found = told(made.report)
    assert found["auc"] == made.report["heads"]["status"]["auc"]["value"]
    assert all(isinstance(value, float) for value in found.values())
    assert "classes" not in found
