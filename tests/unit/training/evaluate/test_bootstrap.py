from __future__ import annotations

import numpy as np
import pytest

from training.evaluate.bootstrap import interval, resamples


def test_resamples_keep_every_class_at_its_size() -> None:
    strata = np.array([0] * 50 + [1] * 7 + [2])
    weights = np.concatenate(list(resamples(strata, 200, seed=0)))
    assert weights.shape == (200, 58)
    assert (weights >= 0).all()
    for value, size in ((0, 50), (1, 7), (2, 1)):
        np.testing.assert_array_equal(weights[:, strata == value].sum(axis=1), size)


def test_resamples_are_drawn_with_replacement() -> None:
    weights = np.concatenate(list(resamples(np.zeros(1000, int), 100, seed=1)))
    # A multinomial's counts: an image is left out with (1 - 1/n)^n, near 1/e.
    assert abs((weights == 0).mean() - np.exp(-1)) < 0.01
    assert abs(weights.var() - 1.0) < 0.02


def test_a_seed_repeats_them_whatever_the_block() -> None:
    strata = np.repeat([0, 1], [300, 40])
    one = np.concatenate(list(resamples(strata, 50, seed=3)))
    np.testing.assert_array_equal(one, np.concatenate(list(resamples(strata, 50, seed=3))))
    assert not np.array_equal(one, np.concatenate(list(resamples(strata, 50, seed=4))))


def test_groups_are_drawn_whole_from_among_those_of_their_class() -> None:
    strata = np.array([0] * 12 + [1] * 4 + [1, 1, 0])  # the last group has images of both classes
    groups = np.array([f"a{k // 3}" for k in range(12)] + ["b", "b", "c", "c"] + ["d"] * 3)
    weights = np.concatenate(list(resamples(strata, 300, 0, groups)))
    for name in np.unique(groups):
        part = weights[:, groups == name]
        np.testing.assert_array_equal(part, part[:, :1].repeat(part.shape[1], axis=1))
    np.testing.assert_array_equal(weights[:, :12].sum(axis=1), 12)
    firsts = weights[:, [12, 14, 16]]  # one image of each group of class 1
    np.testing.assert_array_equal(firsts.sum(axis=1), 3)


def test_groups_of_one_image_each_change_nothing() -> None:
    strata = np.repeat([0, 1], [30, 10])
    (plain,), (grouped,) = resamples(strata, 20, 3), resamples(strata, 20, 3, np.arange(40)[::-1])
    np.testing.assert_array_equal(plain, grouped)


def test_intervals_of_images_that_come_in_groups_cover_the_truth() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(80), 5)
    hits = {"groups": 0, "images": 0}
    for seed in range(120):
        right = np.repeat(rng.random(80) < 0.7, 5)  # one group's answers are all right or all wrong
        for name, given in (("groups", groups), ("images", None)):
            weights = np.concatenate(list(resamples(np.zeros(400, int), 300, seed, given)))
            found = interval(right.mean(), weights @ right / 400)
            assert found.low is not None
            assert found.high is not None
            hits[name] += found.low <= 0.7 <= found.high
    assert hits["groups"] / 120 >= 0.88
    assert hits["images"] / 120 < 0.75, "images taken for independent promise too much"


def test_none_is_none() -> None:
    assert list(resamples(np.zeros(5, int), 0, seed=0)) == []
    assert interval(0.5, np.empty(0)).to_dict() == {"value": 0.5, "low": None, "high": None}
    assert interval(float("nan"), np.ones(3)).to_dict() == {"value": None, "low": None, "high": None}


def test_an_interval_skips_what_is_not_defined() -> None:
    found = interval(0.5, np.r_[np.linspace(0, 1, 1001), np.full(100, np.nan)])
    assert found.low == pytest.approx(0.025)
    assert found.high == pytest.approx(0.975)


def test_a_centred_interval_holds_its_figure() -> None:
    found = interval(0.04, np.random.default_rng(0).normal(0.07, 0.01, 1000), centred=True)
    assert found.low is not None
    assert found.high is not None
    assert 0 <= found.low < 0.04 < found.high


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for seed in range(120):
        right = rng.random(150) < 0.7
        weights = np.concatenate(list(resamples(np.zeros(150, int), 300, seed)))
        found = interval(right.mean(), weights @ right / 150)
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= 0.7 <= found.high
    assert 0.88 <= hits / 120 <= 1.0
