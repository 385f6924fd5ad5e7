from __future__ import annotations

import math

import numpy as np
import pytest

from serving.core.drift import Finding, Reference, Settings, Window, judge
from serving.core.drift.null import beta_binomial
from serving.core.drift.outcomes import calibration_error
from tests.drift_windows import HEAD, METRICS, arrays, reference, window

FAST = Settings(draws=1000)


@pytest.fixture(scope="module")
def known() -> Reference:
    return reference()


def outcomes(known: Reference, given: Window) -> dict[str, Finding]:
    return {f.measure: f for f in judge(known, given, FAST).findings if f.family == "outcomes"}


def calibrated(images: int, seed: int, *, sure: float = 1.0) -> Window:
    """Answers that are right as often as they say, of a model that says ``sure`` times as much doubt less."""
    rng = np.random.default_rng(seed)
    top = rng.uniform(0.7, 1.0, images)
    truth = np.where(rng.random(images) < top, 0, 1)
    told = 1 - (1 - top) / sure
    rest = (1 - told) / 2
    return Window(
        images=images, probabilities={"grade": np.stack([told, rest, rest], axis=1)}, truth={"grade": truth}
    )


def test_a_model_that_is_as_it_was_does_not_alarm(known: Reference) -> None:
    found = [outcomes(known, calibrated(200, seed)) for seed in range(30)]
    assert sum(one.alarm for each in found for one in each.values()) <= 1


def test_fewer_right_answers_alarm(known: Reference) -> None:
    found = outcomes(known, window(200, 1, labelled=True, wrong=0.3))["accuracy"]
    assert found.alarm
    assert found.severity == "critical"
    assert (
        "of 200 labelled answers are right, against 85.0% of the test images" in found.reason
        or found.look < 200
    )


def test_more_right_answers_do_not(known: Reference) -> None:
    sure = np.eye(3)[np.zeros(200, int)] * 0.97 + 0.01
    found = outcomes(
        known, Window(images=200, probabilities={"grade": sure}, truth={"grade": np.zeros(200, int)})
    )
    assert not found["accuracy"].alarm
    assert found["accuracy"].now == 1.0


def test_a_model_surer_than_it_is_right_alarms(known: Reference) -> None:
    found = outcomes(known, calibrated(200, 0, sure=8.0))["calibration"]
    assert found.alarm
    assert found.reason.startswith("The model is surer than it is right: mean confidence 0.9")


def test_looks_count_labels_not_images(known: Reference) -> None:
    given = window(200, 1, labelled=True)
    truth = given.truth["grade"].copy()
    truth[60:] = -1
    found = outcomes(known, Window(images=200, probabilities=given.probabilities, truth={"grade": truth}))
    assert found["accuracy"].images == 50
    truth[40:] = -1
    few = outcomes(known, Window(images=200, probabilities=given.probabilities, truth={"grade": truth}))
    assert few["accuracy"].severity == "waiting"
    assert few["accuracy"].reason == "Not judged yet: 40 of 50 answers have been labelled."


def test_without_test_figures_accuracy_is_not_judged() -> None:
    known = Reference.of_arrays(arrays(), (HEAD,))
    found = outcomes(known, window(200, 1, labelled=True))
    assert "no accuracy" in found["accuracy"].reason
    assert found["calibration"].severity == "ok"


def test_a_model_that_was_miscalibrated_is_allowed_it() -> None:
    told = {"n": 1000, "calibration": {"ece_after": 0.16, "ece_band": [0.01, 0.04]}}
    given = calibrated(200, 0, sure=8.0)
    lenient = Reference.of_arrays(arrays(), (HEAD,), metrics={"heads": {"grade": told}})
    assert outcomes(Reference.of_arrays(arrays(), (HEAD,), metrics=METRICS), given)["calibration"].alarm
    assert not outcomes(lenient, given)["calibration"].alarm


def test_the_error_is_the_evaluations_own() -> None:
    from training.evaluate.metrics import ece

    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.3, 1.0, 100)
    correct = rng.random(100) < confidence
    wanted = ece(np.ones((1, 100)), confidence, correct)[0]
    assert calibration_error(confidence, correct[None].astype(float))[0] == pytest.approx(wanted)


def test_chances_of_hits_are_the_beta_binomials() -> None:
    found = beta_binomial(10, 8.5, 2.5)
    assert found.sum() == pytest.approx(1.0)
    assert (found * np.arange(11)).sum() == pytest.approx(10 * 8.5 / 11)
    # With a rate that is known, it is the binomial.
    sure = beta_binomial(10, 8e8, 2e8)
    assert sure[8] == pytest.approx(math.comb(10, 8) * 0.8**8 * 0.2**2, rel=1e-3)


def test_a_window_of_labels_is_judged_by_its_outcomes_alone(known: Reference) -> None:
    whole = window(200, 4, labelled=True, prior=(0.1, 0.1, 0.8))
    assert not whole.of_labels
    assert {one.family for one in judge(known, whole, FAST).findings} == {"inputs", "outputs", "outcomes"}
    labels = Window(images=200, probabilities=whole.probabilities, truth=whole.truth)
    assert labels.of_labels
    assert labels.first(30).of_labels
    # Their images are in another window, which alarms for them: they are not held against it twice.
    report = judge(known, labels, FAST)
    assert {one.measure for one in report.findings} == {"accuracy", "calibration"}
    assert judge(known, labels.first(30), FAST).severity == "waiting"
    assert not Window(images=2, probabilities={"grade": np.full((2, 3), 1 / 3)}).of_labels
