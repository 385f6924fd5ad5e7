"""From curves to labels needed, bands and savings."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.loop.__main__ import elect, passed
from benchmarks.loop.judge import band, compare, needed
from benchmarks.loop.study import Study

LABELS = (10, 20, 40)


def test_labels_needed_lie_on_the_line_between_two_batches() -> None:
    curve = np.array([0.5, 0.7, 0.9])
    assert needed(LABELS, curve, 0.4) == 10
    assert needed(LABELS, curve, 0.7) == 20
    assert needed(LABELS, curve, 0.75) == pytest.approx(25)
    assert math.isnan(needed(LABELS, curve, 0.95))


def test_the_first_time_counts() -> None:
    assert needed(LABELS, np.array([0.5, 0.9, 0.6]), 0.7) == pytest.approx(15)


def test_a_band_is_students_interval_over_seeds() -> None:
    curves = np.array([[0.0], [1.0], [2.0], [3.0], [4.0]])
    mean, low, high = band(curves)
    # t of 4 degrees of freedom at .975 is 2.776; the deviation is sqrt(2.5).
    half = 2.7764 * math.sqrt(2.5) / math.sqrt(5)
    assert mean == pytest.approx([2.0])
    assert [low[0], high[0]] == pytest.approx([2 - half, 2 + half], rel=1e-2)
    assert np.isnan(band(curves[:1])[1]).all()


def test_a_saving_is_against_the_baseline_at_the_same_target() -> None:
    mine = np.array([[0.8, 0.95, 1.0]] * 5)
    other = np.array([[0.6, 0.8, 0.95]] * 5)
    found = compare(LABELS, mine, other, np.ones(5))
    assert found["target"] == pytest.approx(0.95)
    assert (found["labels"], found["baseline_labels"], found["saving"]) == pytest.approx((20, 40, 0.5))
    assert found["saving_interval"] == pytest.approx([0.5, 0.5])
    assert found["labels_by_seed"] == pytest.approx([20] * 5)


def test_an_interval_is_as_wide_as_the_seeds_differ() -> None:
    rng = np.random.default_rng(0)
    mine = np.sort(rng.uniform(0.7, 1.0, (5, 3)), axis=1)
    other = np.sort(rng.uniform(0.5, 1.0, (5, 3)), axis=1)
    found = compare(LABELS, mine, other, np.ones(5))
    low, high = found["labels_interval"]
    assert 10 <= low < high <= 40
    assert found == compare(LABELS, mine, other, np.ones(5))


def test_what_never_gets_there_is_null_and_never_passes() -> None:
    never = np.full((5, 3), 0.5)
    found = compare(LABELS, never, never, np.ones(5))
    assert found["labels"] is None
    assert found["saving"] is None
    assert found["labels_by_seed"] == [None] * 5
    study = Study("a", "b", LABELS, least=0.3)
    assert passed(study, found) is False
    assert passed(study, {"saving": 0.3}) is True
    assert passed(study, {"saving": 0.29}) is False
    assert passed(Study("a", "b", LABELS), found) is None


def test_the_fewest_labels_are_elected() -> None:
    votes = {"random": {"labels": 30.0}, "never": {"labels": None}, "best": {"labels": 20.0}}
    assert elect(votes) == "best"
    assert elect({"random": {"labels": None}, "other": {"labels": None}}) == "random"
