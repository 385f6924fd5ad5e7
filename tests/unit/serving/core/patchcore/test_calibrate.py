"""S4's rule for the threshold, what it refuses, and what ``calib.json`` may hold."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import IntegrityError, RequestError
from serving.core.patchcore.calibrate import Calibration, calibrate

SCORES = st.lists(st.floats(0, 4), min_size=1, max_size=40)


def test_without_ng_scores_the_threshold_is_p99() -> None:
    made = calibrate(np.linspace(0, 1, 101), mm_per_px=0.2)
    assert made.threshold == made.p99_ok == pytest.approx(0.99)
    assert made.p5_ng is None
    assert calibrate([0.1, 0.2], [], mm_per_px=0.2) == calibrate([0.1, 0.2], None, mm_per_px=0.2)


def test_with_ng_scores_it_is_the_midpoint() -> None:
    made = calibrate(np.linspace(0, 1, 101), np.linspace(2, 3, 101), mm_per_px=0.2)
    assert made.p5_ng == pytest.approx(2.05)
    assert made.threshold == pytest.approx((0.99 + 2.05) / 2)


@pytest.mark.parametrize("ng", [[0.5], [0.99], [0.0, 3.0]])
def test_where_they_overlap_it_is_a_margin_over_p99(ng: list[float]) -> None:
    made = calibrate([0.99], ng, mm_per_px=0.2)
    assert made.threshold == pytest.approx(1.02 * 0.99)


@settings(deadline=None)
@given(SCORES, SCORES)
def test_the_threshold_is_never_below_p99_and_lies_below_p5_of_ng_where_they_part(
    ok: list[float], ng: list[float]
) -> None:
    made = calibrate(ok, ng, mm_per_px=1.0)
    assert made.p99_ok is not None
    assert made.p5_ng is not None
    assert made.threshold >= made.p99_ok
    if made.p5_ng > made.p99_ok:
        assert made.p99_ok <= made.threshold <= made.p5_ng


def test_p99_stays_p99_whatever_percentile_scores_an_image() -> None:
    made = calibrate(np.linspace(0, 1, 101), mm_per_px=0.2, score_percentile=90, area_mm2_thr=2.5)
    assert made.p99_ok == pytest.approx(0.99)
    assert (made.score_percentile, made.area_mm2_thr) == (90, 2.5)


@pytest.mark.parametrize(
    ("ok", "ng", "others"),
    [
        ([], None, {}),
        ([], [0.5], {}),
        ([float("nan")], None, {}),
        ([0.1, float("inf")], None, {}),
        ([0.1], [float("nan")], {}),
        ([0.1, -0.2], None, {}),
        ([[0.1]], None, {}),
        (["a"], None, {}),
        ([None], None, {}),
        ([1.79e308], [0.1], {}),
        ([1.7e308], [1.75e308], {}),
        ([0.1], None, {"mm_per_px": 0}),
        ([0.1], None, {"mm_per_px": -0.2}),
        ([0.1], None, {"mm_per_px": float("nan")}),
        ([0.1], None, {"mm_per_px": True}),
        ([0.1], None, {"area_mm2_thr": -1}),
        ([0.1], None, {"score_percentile": 101}),
        ([0.1], None, {"score_percentile": float("nan")}),
    ],
)
def test_what_can_not_be_calibrated_is_refused(ok: Any, ng: Any, others: dict[str, Any]) -> None:
    with pytest.raises(RequestError):
        calibrate(ok, ng, **{"mm_per_px": 0.2, **others})


def test_a_calibration_survives_json() -> None:
    made = calibrate([0.1, 0.5], [0.9], mm_per_px=0.25, score_percentile=97.5)
    assert Calibration.from_dict(json.loads(json.dumps(made.to_dict()))) == made
    assert list(made.to_dict()) == [
        "threshold",
        "p99_ok",
        "p5_ng",
        "mm_per_px",
        "area_mm2_thr",
        "score_percentile",
    ]


def test_a_whole_percentile_is_written_as_an_int() -> None:
    assert json.dumps(calibrate([0.1], mm_per_px=0.2).to_dict()["score_percentile"]) == "99"


def test_older_writers_keys_are_left_alone_and_missing_ones_have_defaults() -> None:
    made = Calibration.from_dict({"threshold": 0.5, "ok_mean": 0.1, "request_id": "x"})
    assert made == Calibration(0.5, None, None, None, 1.0, 99.0)


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        {"threshold": None},
        {"threshold": "0.5"},
        {"threshold": True},
        {"threshold": float("nan")},
        {"threshold": 0.5, "p99_ok": "x"},
        {"threshold": 0.5, "mm_per_px": 0},
        {"threshold": 0.5, "area_mm2_thr": -1},
        {"threshold": 0.5, "score_percentile": 150},
    ],
)
def test_what_is_no_calibration_is_refused(value: Any) -> None:
    with pytest.raises(IntegrityError):
        Calibration.from_dict(value)


def test_euclidean_thresholds_are_squared() -> None:
    old = Calibration(0.9, 0.8, 1.1, 0.2, 2.0, 98.0)
    assert old.squared() == Calibration(0.9**2, 0.8**2, 1.1**2, 0.2, 2.0, 98.0)
    assert Calibration(0.5, None, None, None).squared() == Calibration(0.25, None, None, None)
