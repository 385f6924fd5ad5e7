from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from data.errors import UsageError
from serving.core.drift import DriftReport, Finding, Reference, Settings, Window, judge
from tests.drift_windows import HEAD, METRICS, arrays, reference, window

FAST = Settings(draws=1000)


@pytest.fixture(scope="module")
def known() -> Reference:
    return reference()


def of(report: DriftReport, measure: str) -> Finding:
    return next(finding for finding in report.findings if finding.measure == measure)


def test_windows_without_a_shift_alarm_no_more_often_than_asked_for() -> None:
    alarms = 0
    for seed in range(10):
        one = reference(seed=seed)
        alarms += sum(judge(one, window(200, 100 * seed + i + 50), FAST).alarm for i in range(10))
    # One is expected, more than four have a chance of 1 in 300. 2,400 windows of 300 references gave 24.
    assert alarms <= 4


def test_a_window_without_a_shift_is_said_to_be_one(known: Reference) -> None:
    report = judge(known, window(200, 100), FAST)
    assert report.severity == "ok"
    assert report.reason == "No shift beyond chance in 200 images."
    assert report.look == 200


@pytest.mark.parametrize(
    ("shift", "measure", "says"),
    [
        ({"moved": 1.5}, "embedding", "The images' centre, as the model sees them, has moved by"),
        ({"warmer": 25.0}, "colour", "The images are "),
        ({"warmer": -25.0}, "colour", "The images are "),
        ({"blurrier": 0.15}, "sharpness", "The photographs are less sharp: median sharpness 0.4"),
        ({"refused": 0.3}, "refused", "of the images were refused by the quality gate, against 0.0%"),
        ({"prior": (0.2, 0.5, 0.3)}, "class_mix", "Alpha is less common among the answers: "),
    ],
)
def test_a_shift_alarms_and_says_why(
    known: Reference, shift: dict[str, float], measure: str, says: str
) -> None:
    report = judge(known, window(200, 7, **shift), FAST)  # type: ignore[arg-type]
    found = of(report, measure)
    assert found.alarm, found.reason
    assert says in found.reason
    assert found.reason.endswith("differs so much.")
    assert found.statistic is not None
    assert found.threshold is not None
    assert found.statistic >= found.threshold > 1.0
    assert report.alarm
    assert report.severity in ("warning", "critical")


def test_asking_between_looks_changes_nothing(known: Reference) -> None:
    whole = window(200, 5)
    at = {count: judge(known, whole.first(count), FAST) for count in (49, 50, 73, 99, 100)}
    assert at[49].look == 0
    assert at[49].severity == "waiting"
    assert at[49].reason == "Nothing is judged yet: 49 images have come."
    assert [at[n].look for n in (50, 73, 99, 100)] == [50, 50, 50, 100]
    assert at[50].findings == at[73].findings == at[99].findings != at[100].findings


def test_an_alarm_at_an_early_look_stays(known: Reference) -> None:
    bad, good = window(50, 3, moved=3.0), window(150, 4)
    both = Window(
        images=200,
        embedding=np.concatenate([bad.embedding, good.embedding]),  # type: ignore[list-item]
    )
    found = of(judge(known, both, FAST), "embedding")
    assert found.alarm
    assert found.look == 50


def test_what_a_window_lacks_is_said(known: Reference) -> None:
    report = judge(known, Window(images=200, sharpness=window(200, 2).sharpness), FAST)
    assert of(report, "sharpness").severity == "ok"
    assert of(report, "colour").severity == "waiting"
    assert of(report, "colour").reason == "Not judged: the window doesn't hold it."
    assert not report.alarm


def test_too_few_answers_are_not_judged(known: Reference) -> None:
    report = judge(known, window(200, 2, refused=0.95), FAST)
    assert of(report, "refused").severity == "critical"
    assert "images have it, 20 are needed" in of(report, "embedding").reason


def test_a_reference_of_few_images_is_not_judged_by() -> None:
    small = Reference.of_arrays(arrays(15), (HEAD,))
    report = judge(small, window(200, 2, moved=5.0), FAST)
    assert report.severity == "waiting"
    assert "made from 15 held-out images, 20 are needed" in of(report, "embedding").reason


def test_a_window_too_long_is_refused(known: Reference) -> None:
    with pytest.raises(UsageError, match="more than the 200"):
        judge(known, window(201), FAST)


def test_another_models_embeddings_are_refused(known: Reference) -> None:
    other = dataclasses.replace(window(200), embedding=np.zeros((200, 9)))
    with pytest.raises(UsageError, match="9 numbers, the bundle's 16"):
        judge(known, other, FAST)


def test_old_bundles_give_what_they_hold() -> None:
    old = {name: value for name, value in arrays().items() if not name.startswith("drift.")}
    del old["grade.probabilities"]
    known = Reference.of_arrays(old, (HEAD,), metrics=METRICS)
    assert {measure.name for measure in known.measures} == {"sharpness", "exposure", "class_mix", "uncertain"}
    fine = judge(known, window(200, 2), FAST)
    assert not fine.alarm
    assert "export it again" in of(fine, "embedding").reason
    report = judge(known, window(200, 3, blurrier=0.2, prior=(0.1, 0.5, 0.4)), FAST)
    assert {finding.measure for finding in report.alarms} >= {"sharpness", "class_mix"}


def test_anomaly_scores_are_judged_against_normal_ones() -> None:
    rng = np.random.default_rng(0)
    kept = {"drift.normal_score": rng.normal(0.2, 0.02, 60).astype(np.float32)}
    known = Reference.of_arrays(kept, (HEAD,), kind="anomaly")
    fine = judge(known, Window(images=100, score=rng.normal(0.2, 0.02, 100)), FAST)
    assert of(fine, "score").severity == "ok"
    found = of(judge(known, Window(images=100, score=rng.normal(0.24, 0.02, 100)), FAST), "score")
    assert found.alarm
    assert found.reason.startswith("More images look anomalous: median anomaly score 0.2")
    assert {finding.measure for finding in fine.findings} == {"score", *(name for name, _ in known.absent)}


def test_a_report_survives_json(known: Reference) -> None:
    report = judge(known, window(200, 3, moved=2.0, labelled=True), FAST)
    told = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert DriftReport.from_dict(told) == report
    assert told["alarm"] is True
    assert told["reason"] == report.reason


def test_the_gravest_comes_first(known: Reference) -> None:
    report = judge(known, window(200, 3, moved=3.0, warmer=12.0), FAST)
    effects = [finding.severity for finding in report.alarms]
    assert effects == sorted(effects)  # critical before warning
    assert report.alarms[0].measure == "embedding"
    if len(report.alarms) > 1:
        assert "more measure" in report.reason
