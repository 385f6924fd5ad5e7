from __future__ import annotations

import numpy as np
import pytest

from serving.core.drift.features import below, cuts_of, deviations, neighbour_distance, tones


def test_shares_below_cuts_are_those_of_the_quantiles() -> None:
    values = np.random.default_rng(0).normal(size=1000)
    shares = below(values, cuts_of(values)).mean(axis=0)
    assert shares == pytest.approx(np.linspace(0.05, 0.95, 19), abs=0.002)


def test_ties_and_constants_give_at_least_one_cut() -> None:
    assert cuts_of(np.zeros(10)).tolist() == [0.0]
    assert cuts_of(np.array([0.0] * 99 + [1.0])).tolist() == [0.0]


def test_what_is_missing_stays_missing() -> None:
    assert np.isnan(below(np.array([np.nan]), np.array([0.0, 1.0]))).all()


def test_tones_tell_light_from_exposure() -> None:
    one = np.array([[100.0, 80, 60, 10, 10, 10]])
    darker, warmer = one * [0.5, 0.5, 0.5, 1, 1, 1], one * [1.2, 1, 0.8, 1, 1, 1]
    assert tones(darker)[0, :2] == pytest.approx(tones(one)[0, :2], abs=0.02)
    assert tones(warmer)[0, 0] - tones(one)[0, 0] == pytest.approx(np.log(1.5), abs=0.02)
    assert tones(one)[0, 2:].tolist() == [80.0, 10.0]


def test_one_absurd_image_counts_as_five_deviations() -> None:
    found = deviations(np.array([[1e9, -1e9]]), np.zeros(2), np.ones(2))
    assert found.tolist() == [[5.0, -5.0]]


def test_neighbours_are_found_by_angle() -> None:
    rng = np.random.default_rng(0)
    sample, own = rng.normal(size=(30, 8)), rng.normal(size=(4, 8))
    cosines = (own / np.linalg.norm(own, axis=1)[:, None]) @ (
        sample / np.linalg.norm(sample, axis=1)[:, None]
    ).T
    wanted = np.sort(1 - cosines, axis=1)[:, 4]
    own[3] = np.nan
    found = neighbour_distance(own, sample, 5)
    assert found[:3] == pytest.approx(wanted[:3])
    assert np.isnan(found[3])
    assert neighbour_distance(own[:3], sample[:2], 5) == pytest.approx(np.sort(1 - cosines[:3, :2])[:, 1])
