from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, cohen_kappa_score, log_loss, roc_auc_score

from training.fit.metrics import auc, head_metrics, log_softmax, quadratic_kappa, score
from training.spec.parts import HeadSpec

GRADE = HeadSpec("grade", ("a", "b", "c", "d"), ordinal=True)
SIDE = HeadSpec("side", ("l", "r"), weight=0.5)


def test_the_figures_are_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 300)
    logits = rng.normal(size=(300, 4)) + 1.5 * np.eye(4)[labels]
    found = head_metrics(logits.astype(np.float32), labels, GRADE)
    chances = np.exp(log_softmax(logits.astype(np.float32).astype(float)))
    assert found["auc"] == pytest.approx(roc_auc_score(labels, chances, multi_class="ovr"))
    assert found["kappa"] == pytest.approx(cohen_kappa_score(labels, logits.argmax(1), weights="quadratic"))
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, logits.argmax(1)))
    assert found["nll"] == pytest.approx(log_loss(labels, chances))
    assert found["accuracy"] == pytest.approx((logits.argmax(1) == labels).mean())


def test_absent_labels_and_absent_classes() -> None:
    logits = np.eye(4, dtype=np.float32)[[0, 1, 0, 2]] * 5
    found = head_metrics(logits, np.array([0, 1, -1, -1]), GRADE)
    assert found["accuracy"] == 1
    assert found["auc"] == 1
    assert head_metrics(logits, np.full(4, -1), GRADE) == {}
    assert "auc" not in head_metrics(logits, np.zeros(4, int), GRADE)
    assert auc(np.array([1.0, 1.0]), np.array([True, False])) == 0.5
    assert quadratic_kappa(np.zeros(3, int), np.zeros(3, int), 4) == 0


def test_the_epoch_is_chosen_by_what_the_task_names() -> None:
    metrics = {"grade": {"auc": 0.8, "kappa": 0.4, "nll": 1.0}, "side": {"auc": 0.6, "nll": 0.5}}
    heads = (GRADE, SIDE)
    assert score(metrics, heads, "auto") == pytest.approx((1 * 0.6 + 0.5 * 0.6) / 1.5)
    assert score(metrics, heads, "auc") == pytest.approx(0.7)
    assert score(metrics, heads, "kappa") == pytest.approx(0.4)
    assert score(metrics, heads, "side.auc") == pytest.approx(0.6)
    assert score(metrics, heads, "nll") == pytest.approx(-0.75)
    assert score(metrics, heads, {"grade.auc": 3, "kappa": 1}) == pytest.approx((2.4 + 0.4) / 4)
    assert score({"grade": {}, "side": {}}, heads, "auto") is None
    assert score({}, heads, "auc") is None
