"""Every figure against scikit-learn's, or against its definition where scikit-learn has none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference

from serving.core.decisions import calibrated
from training.evaluate import metrics

ONE = np.ones((1, 300))


@pytest.fixture(scope="module", params=[2, 5, 7])
def data(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(request.param)
    truth = np.r_[np.arange(request.param), rng.integers(0, request.param, 300 - request.param)]
    logits = rng.normal(size=(300, request.param)) + 1.5 * np.eye(request.param)[truth]
    return calibrated(logits), truth


def test_label_figures(data: tuple[np.ndarray, np.ndarray]) -> None:
    probabilities, truth = data
    label, classes = probabilities.argmax(axis=1), probabilities.shape[1]
    matrix = metrics.confusion(ONE, truth, label, classes)
    np.testing.assert_array_equal(matrix[0], reference.confusion_matrix(truth, label))
    assert metrics.accuracy(matrix)[0] == pytest.approx(reference.accuracy_score(truth, label))
    assert metrics.balanced_accuracy(matrix)[0] == pytest.approx(
        reference.balanced_accuracy_score(truth, label)
    )
    kappa = reference.cohen_kappa_score(truth, label, weights="quadratic")
    assert metrics.quadratic_kappa(matrix)[0] == pytest.approx(kappa)
    recall = reference.recall_score(truth, label, average=None)
    np.testing.assert_allclose(metrics.sensitivity(matrix)[0], recall)
    others = [reference.recall_score(truth != c, label != c) for c in range(classes)]
    np.testing.assert_allclose(metrics.specificity(matrix)[0], others)


def test_probability_figures(data: tuple[np.ndarray, np.ndarray]) -> None:
    probabilities, truth = data
    per_class = metrics.class_auc(ONE, probabilities, truth)
    wanted = [reference.roc_auc_score(truth == c, probabilities[:, c]) for c in range(probabilities.shape[1])]
    np.testing.assert_allclose(per_class[0], wanted)
    assert metrics.macro_auc(per_class)[0] == pytest.approx(np.mean(wanted))
    loss = reference.log_loss(truth, probabilities)
    assert metrics.nll(ONE, probabilities, truth)[0] == pytest.approx(loss)


def test_weights_stand_for_repeated_images(data: tuple[np.ndarray, np.ndarray]) -> None:
    probabilities, truth = data
    rng = np.random.default_rng(1)
    times = rng.integers(0, 4, 300)
    again = np.repeat(np.arange(300), times)
    weights = times[None].astype(float)
    whole = np.ones((1, len(again)))
    classes = probabilities.shape[1]
    for name, given_, repeated in [
        (
            "auc",
            metrics.class_auc(weights, probabilities, truth),
            metrics.class_auc(whole, probabilities[again], truth[again]),
        ),
        (
            "nll",
            metrics.nll(weights, probabilities, truth),
            metrics.nll(whole, probabilities[again], truth[again]),
        ),
        (
            "confusion",
            metrics.confusion(weights, truth, probabilities.argmax(axis=1), classes),
            metrics.confusion(whole, truth[again], probabilities[again].argmax(axis=1), classes),
        ),
    ]:
        np.testing.assert_allclose(given_, repeated, err_msg=name)
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == truth
    np.testing.assert_allclose(
        metrics.ece(weights, confidence, correct), metrics.ece(whole, confidence[again], correct[again])
    )


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=2, max_size=40))
def test_auc_with_ties_counts_halves(pairs: list[tuple[int, bool]]) -> None:
    scores, positive = np.array([p[0] for p in pairs], float), np.array([p[1] for p in pairs])
    found = metrics.auc(np.ones((1, len(pairs))), scores, positive)[0]
    above, below = scores[positive], scores[~positive]
    if not len(above) or not len(below):
        assert np.isnan(found)
        return
    difference = above[:, None] - below[None, :]
    assert found == pytest.approx(((difference > 0) + 0.5 * (difference == 0)).mean())


def test_ece_by_hand() -> None:
    confidence, correct = np.array([0.95, 0.95, 0.55, 0.55]), np.array([True, False, True, True])
    # Two bins of two: gaps 0.95 - 0.5 and 1 - 0.55, each with half of the images.
    assert metrics.ece(np.ones((1, 4)), confidence, correct)[0] == pytest.approx(0.45)


def test_what_is_not_defined_is_nan() -> None:
    truth = np.zeros(4, dtype=np.intp)
    probabilities = np.full((4, 3), 1 / 3)
    ones = np.ones((1, 4))
    assert np.isnan(metrics.class_auc(ones, probabilities, truth)).all()
    assert np.isnan(metrics.macro_auc(metrics.class_auc(ones, probabilities, truth)))[0]
    matrix = metrics.confusion(ones, truth, truth, 3)
    np.testing.assert_array_equal(np.isnan(metrics.sensitivity(matrix)[0]), [False, True, True])
    assert metrics.balanced_accuracy(matrix)[0] == 1.0
    assert np.isnan(metrics.quadratic_kappa(matrix))[0]


def test_a_probability_of_zero_has_a_finite_loss() -> None:
    found = metrics.nll(np.ones((1, 1)), np.array([[0.0, 1.0]]), np.array([0]))
    assert np.isfinite(found).all()
