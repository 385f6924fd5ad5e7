from __future__ import annotations

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from data.errors import DataError, UsageError
from serving.core.decisions import calibrated, decide
from training.calibrate import (
    HeadCalibration,
    calibrate,
    calibrate_heads,
    conformal_quantile,
    coverage_band,
    ece_band,
    uncertain_threshold,
)
from training.evaluate.metrics import ece
from training.spec.parts import HeadSpec


def drawn(
    n: int, seed: int, *, classes: int = 5, stretch: float = 1.0, shift: tuple[float, ...] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels drawn from their own softmax; then stretched and shifted away from it."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.6, (n, classes))
    chances = calibrated(logits)
    labels = np.array([rng.choice(classes, p=row) for row in chances])
    return logits * stretch - (0 if shift is None else np.asarray(shift)), labels


def test_a_known_temperature_is_found_again() -> None:
    logits, labels = drawn(4000, 0, stretch=2.5)
    found = calibrate(logits, labels)
    assert found.temperature == pytest.approx(2.5, rel=0.08)
    assert found.bias is None
    assert found.nll_after < found.nll_before
    assert found.n == 4000


def test_a_known_bias_is_found_again() -> None:
    shift = (1.0, -1.0, 0.0, 0.5, -0.5)
    logits, labels = drawn(6000, 1, shift=shift)
    found = calibrate(logits, labels, bias="auto")
    assert found.bias is not None
    np.testing.assert_allclose(found.bias, shift, atol=0.15)
    assert found.cross_validated["bias"] < found.cross_validated["temperature"]


def test_a_bias_needs_evidence_and_can_be_forbidden() -> None:
    few = drawn(60, 2, stretch=2.0)
    assert calibrate(*few, bias="auto").bias is None
    shifted = drawn(3000, 3, shift=(1.0, -1.0, 0.0, 0.0, 0.0))
    assert calibrate(*shifted).bias is None
    assert calibrate(*shifted, bias="auto").bias is not None
    assert calibrate(*few, bias="always").bias is not None


def test_half_a_bias_goes_half_the_way() -> None:
    shift = (1.0, -1.0, 0.0, 0.5, -0.5)
    logits, labels = drawn(6000, 1, shift=shift)
    half = calibrate(logits, labels, bias="auto", bias_strength=0.5)
    whole = calibrate(logits, labels, bias="auto")
    assert half.bias is not None
    np.testing.assert_allclose(half.bias, np.asarray(whole.bias) / 2)
    assert whole.nll_after < half.nll_after < calibrate(logits, labels).nll_after

    def moved(found: HeadCalibration) -> int:
        return int((calibrated(logits, found.temperature, found.bias).argmax(1) != logits.argmax(1)).sum())

    assert 0 < moved(half) < moved(whole)


def test_a_temperature_needs_evidence() -> None:
    spared = [calibrate(*drawn(80, seed)) for seed in range(40)]
    alone = [found for found in spared if found.temperature == 1.0]
    assert len(alone) > 20
    assert all(any("No temperature" in note for note in found.notes) for found in alone)
    assert all(calibrate(*drawn(80, seed, stretch=4.0)).temperature > 2 for seed in range(10))


def test_a_calibrated_model_is_left_nearly_alone() -> None:
    found = calibrate(*drawn(4000, 4))
    assert found.temperature == pytest.approx(1.0, abs=0.08)


@settings(max_examples=25, deadline=None)
@given(st.integers(8, 60), st.integers(0, 10_000), st.floats(0.2, 5))
def test_calibration_never_worsens_its_own_data(n: int, seed: int, stretch: float) -> None:
    found = calibrate(*drawn(n, seed, stretch=stretch), bias="never")
    assert found.nll_after <= found.nll_before + 1e-9
    assert 0 <= found.qhat <= 1
    assert 0 <= found.uncertain_below <= 1


def test_perfect_validation_answers_do_not_make_certainty() -> None:
    labels = np.arange(60) % 5
    found = calibrate(6.0 * np.eye(5)[labels], labels)
    assert 0.4 < found.temperature < 1.0
    assert calibrated(6.0 * np.eye(5), found.temperature).max() < 1 - 1e-7


def test_the_gradient_of_the_bias_fit_is_the_functions_own() -> None:
    """A wrong gradient would end the search early: nothing near the end may be better."""
    logits, labels = drawn(400, 20, stretch=1.5, shift=(0.8, -0.8, 0.0, 0.0, 0.0))
    found = calibrate(logits, labels, bias="always")
    assert found.bias is not None

    def loss(temperature: float, bias: np.ndarray) -> float:
        chosen = calibrated(logits, temperature, bias)[np.arange(400), labels]
        return float(-np.log(chosen).sum() + 0.5 * (bias**2).sum() + 0.5 * np.log(temperature) ** 2)

    best = loss(found.temperature, np.array(found.bias))
    rng = np.random.default_rng(0)
    for _ in range(200):
        step = rng.normal(0, 0.03, 5)
        factor = np.exp(rng.normal(0, 0.03))
        assert best <= loss(found.temperature * factor, np.array(found.bias) + step - step.mean()) + 1e-3


def test_absent_labels_are_left_out() -> None:
    logits, labels = drawn(200, 5)
    masked = np.where(np.arange(200) % 2, labels, -1)
    whole, half = calibrate(logits[1::2], labels[1::2]), calibrate(logits, masked)
    assert whole == half
    with pytest.raises(DataError, match="No validation image has a label"):
        calibrate(logits, np.full(200, -1))


def test_labels_and_logits_must_fit() -> None:
    logits, labels = drawn(20, 6)
    with pytest.raises(DataError, match="don't fit together"):
        calibrate(logits, labels[:-1])
    with pytest.raises(DataError, match="there are 5 classes"):
        calibrate(logits, np.full(20, 5))


def test_the_same_data_gives_the_same_calibration() -> None:
    data = drawn(300, 7, stretch=1.7)
    assert calibrate(*data) == calibrate(*data)


def test_conformal_quantile_is_the_corrected_rank() -> None:
    scores = np.arange(1, 20) / 20  # 19 scores; rank ⌈20 · 0.9⌉ = 18
    assert conformal_quantile(scores, 0.9) == 18 / 20
    assert conformal_quantile(scores[:9], 0.9) == 9 / 20  # rank 9 of 9: just enough
    assert conformal_quantile(scores[:8], 0.9) == 1.0


@given(hnp.arrays(np.float64, st.integers(1, 80), elements=st.floats(0, 1)), st.floats(0.5, 0.99))
def test_conformal_quantile_covers_its_own_scores(scores: np.ndarray, coverage: float) -> None:
    qhat = conformal_quantile(scores, coverage)
    assert (scores <= qhat).mean() >= min(coverage, 1.0) - 1e-9


def test_too_few_images_give_every_class_and_say_so() -> None:
    logits, labels = drawn(6, 8)
    found = calibrate(logits, labels)
    assert found.qhat == 1.0
    assert any("too few" in note for note in found.notes)
    card = found.card(HeadSpec("h", tuple("abcde")))
    assert decide(logits, card).set.all()
    assert card.notes == found.notes


def test_split_conformal_covers_as_stated() -> None:
    covered = []
    for seed in range(40):
        logits, labels = drawn(600, 100 + seed, stretch=1.8)
        found = calibrate(logits[:200], labels[:200], coverage=0.9, bias="never")
        answer = decide(logits[200:], found.card(HeadSpec("h", tuple("abcde"))))
        covered.append(answer.set[np.arange(400), labels[200:]].mean())
    assert np.mean(covered) == pytest.approx(0.9, abs=0.012)
    low, high = coverage_band(200, 400, 0.9)
    assert np.mean([(low <= value <= high) for value in covered]) > 0.94


def test_uncertain_threshold_keeps_the_error_within_its_target() -> None:
    confidence = np.linspace(1.0, 0.0, 101)
    correct = np.r_[np.ones(60, bool), np.zeros(41, bool)]
    threshold = uncertain_threshold(confidence, correct, 0.2)
    kept = confidence >= threshold
    assert (~correct[kept]).mean() <= 0.2
    # The longest such beginning: 60 right, and k wrong with (k + 1) / (60 + k + 1) <= 0.2.
    assert kept.sum() == 60 + 14


def test_uncertain_threshold_at_its_ends() -> None:
    assert uncertain_threshold([0.9, 0.8, 0.7, 0.6], [True] * 4, 0.2) == 0.0
    assert uncertain_threshold([0.9, 0.8, 0.7], [True] * 3, 0.2) == 1.0
    assert uncertain_threshold([0.9, 0.8], [False, False], 0.2) == 1.0


def test_equal_confidence_is_kept_or_left_together() -> None:
    threshold = uncertain_threshold([0.9] * 8 + [0.5] * 10, [True] * 8 + [True, False] * 5, 0.2)
    assert threshold == 0.9


def test_no_target_marks_nothing_uncertain() -> None:
    assert calibrate(*drawn(50, 9), uncertain_error=None).uncertain_below == 0.0


def test_all_uncertain_is_said() -> None:
    rng = np.random.default_rng(0)
    found = calibrate(rng.normal(size=(100, 5)), rng.integers(0, 5, 100), uncertain_error=0.01)
    assert found.uncertain_below == 1.0
    assert any("every answer is marked uncertain" in note for note in found.notes)


def test_ece_band_holds_calibrated_models_and_no_others() -> None:
    inside = []
    for seed in range(60):
        logits, labels = drawn(400, 500 + seed)
        probabilities = calibrated(logits)
        low, high = ece_band(probabilities, simulations=1000, seed=seed)
        value = ece(np.ones((1, 400)), probabilities.max(axis=1), probabilities.argmax(axis=1) == labels)[0]
        inside.append(low <= value <= high)
    assert np.mean(inside) > 0.93
    logits, labels = drawn(400, 600, stretch=3.0)
    over = calibrated(logits)
    value = ece(np.ones((1, 400)), over.max(axis=1), over.argmax(axis=1) == labels)[0]
    assert value > ece_band(over)[1]


def test_ece_band_narrows_with_more_images() -> None:
    wide, narrow = (ece_band(calibrated(drawn(n, 10)[0])) for n in (100, 3000))
    assert narrow[1] < wide[1]


def test_coverage_band_is_the_beta_binomial() -> None:
    # Simulated from its definition: true coverage is Beta(k, n + 1 - k), the count binomial.
    rng = np.random.default_rng(0)
    k = math.ceil(121 * 0.9)
    simulated = rng.binomial(400, rng.beta(k, 121 - k, 200_000)) / 400
    low, high = coverage_band(120, 400, 0.9)
    np.testing.assert_allclose([low, high], np.quantile(simulated, [0.005, 0.995]), atol=0.004)
    assert coverage_band(5, 400, 0.9) == (1.0, 1.0)


def test_a_calibration_survives_json() -> None:
    found = calibrate(*drawn(200, 11, shift=(2.0, -2.0, 0, 0, 0)), bias="always")
    assert found.bias is not None
    assert HeadCalibration.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    with pytest.raises(UsageError, match="no calibration of a head"):
        HeadCalibration.from_dict({"temperature": 1.0, "wings": 2})


def test_every_head_of_a_task_is_calibrated_on_its_own_logits() -> None:
    one, two = drawn(300, 12, classes=3, stretch=2.0), drawn(300, 13, classes=4)
    heads = (HeadSpec("first", tuple("abc")), HeadSpec("second", tuple("wxyz")))
    task = SimpleNamespace(
        heads=heads,
        calibration=SimpleNamespace(coverage=0.8, uncertain_error=0.3, bias="never", bias_strength=1.0),
    )
    predictions = SimpleNamespace(
        ids=np.arange(300), logits=np.hstack([one[0], two[0]]), labels={"first": one[1], "second": two[1]}
    )
    found = calibrate_heads(predictions, task)  # type: ignore[arg-type]
    assert found["first"] == calibrate(*one, coverage=0.8, uncertain_error=0.3)
    assert found["second"] == calibrate(*two, coverage=0.8, uncertain_error=0.3)
