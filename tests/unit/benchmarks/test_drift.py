from __future__ import annotations

import numpy as np
import pytest

from benchmarks.drift import mixed, together, wilson
from benchmarks.shifts import blurred, under_light, white


def test_daylight_is_redder_when_it_is_warmer() -> None:
    # Luminance 1 in each: the weights of Y in linear sRGB.
    for kelvin in (4000.0, 5000.0, 6500.0, 8000.0):
        assert white(kelvin) @ [0.2126, 0.7152, 0.0722] == pytest.approx(1.0, abs=1e-3)
    # D65 is the white of sRGB, and the locus at 6504 K.
    assert white(6504.0) == pytest.approx([1, 1, 1], abs=0.01)
    warm, cold = white(5000.0), white(8000.0)
    assert warm[0] > 1 > warm[2]
    assert cold[0] < 1 < cold[2]


def test_light_changes_colours_and_black_stays_black() -> None:
    picture = np.full((4, 4, 3), 128, np.uint8)
    picture[0] = 0
    red, _, blue = under_light(picture, 5000.0)[1, 0].astype(int)
    assert red > 128 > blue
    assert (under_light(picture, 6500.0) == picture).all()
    assert (under_light(picture, 8000.0)[0] == 0).all()


def test_a_blur_is_of_the_photograph_at_the_stated_width() -> None:
    point = np.zeros((101, 101, 3), np.uint8)
    point[50, 50] = 255
    spread = blurred(np.repeat(point, 1, axis=0), 2.0 * 224 / 101)[50, :, 0].astype(float)
    places = np.arange(101) - 50
    assert np.sqrt((spread * places**2).sum() / spread.sum()) == pytest.approx(2.0, abs=0.35)


def test_draws_are_what_they_say() -> None:
    common = np.arange(600) < 400
    chosen = mixed(common, 0.25)(np.random.default_rng(0))
    assert len(set(chosen.tolist())) == 200
    assert common[chosen].sum() == 50
    groups = np.array([0, 1, 1, 2, 0, 2, 1])
    order = groups[together(groups)(np.random.default_rng(1))]
    assert np.count_nonzero(np.diff(order)) == 2


def test_the_interval_of_a_rate_is_wilsons() -> None:
    assert wilson(0, 200) == pytest.approx((0.0, 0.01885), abs=1e-4)
    low, high = wilson(50, 100)
    assert (low, high) == pytest.approx((0.4038, 0.5962), abs=1e-3)
