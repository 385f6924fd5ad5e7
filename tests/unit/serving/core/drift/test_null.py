from __future__ import annotations

import numpy as np
import pytest

from serving.core.drift.null import Null, count, design_effect, distance, draw

EACH = np.arange(400)


def columns(seed: int = 0, n: int = 400) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 4))


def test_a_statistic_is_one_on_average_whatever_the_sizes() -> None:
    weights = np.full(4, 0.25)
    for size in (50, 200):
        assert draw(columns(), weights, EACH, size, 4000, 0).values.mean() == pytest.approx(1.0, abs=0.1)


def test_thresholds_hold_on_windows_that_were_not_drawn_from_the_reference() -> None:
    weights = np.full(4, 0.25)
    alarms = 0
    for seed in range(100):
        own = columns(seed)
        null = draw(own, weights, EACH, 100, 1000, seed)
        fresh = np.random.default_rng([seed, 7]).normal(size=(20, 100, 4)).mean(axis=1)
        alarms += int((distance(fresh - own.mean(axis=0), weights, 400, 100) >= null.threshold(0.05)).sum())
    assert 0.03 < alarms / 2000 < 0.075


def test_groups_that_come_together_widen_what_chance_does() -> None:
    own, pairs = np.repeat(columns(n=200), 2, axis=0), np.repeat(np.arange(200), 2)
    weights = np.full(4, 0.25)
    alone = draw(own, weights, EACH, 100, 2000, 0).threshold(0.05)
    assert draw(own, weights, pairs, 100, 2000, 0).threshold(0.05) > 1.6 * alone


def test_the_tail_goes_on_beyond_the_draws() -> None:
    # An exponential has a tail that is known: P(X > x) = exp(-x).
    null = Null.of(np.random.default_rng(0).exponential(size=20_000))
    assert null.threshold(1e-5) == pytest.approx(-np.log(1e-5), rel=0.1)
    assert null.threshold(0.5) == pytest.approx(np.log(2), rel=0.05)
    assert null.chance(null.threshold(1e-5)) == pytest.approx(1e-5)
    assert null.chance(0.0) == 1.0
    levels = [null.threshold(level) for level in (0.3, 0.05, 0.021, 0.019, 0.001)]
    assert levels == sorted(levels)


def test_what_never_varies_never_alarms() -> None:
    null = draw(np.ones((50, 1)), np.ones(1), np.arange(50), 20, 1000, 0)
    assert null.threshold(0.001) == pytest.approx(0.0)
    assert null.chance(0.0) == 1.0


@pytest.mark.parametrize("rate", [0.0, 0.003, 0.01, 0.3])
def test_a_shares_threshold_holds_where_the_reference_saw_few(rate: float) -> None:
    rng = np.random.default_rng(0)
    alarms, tried = 0, 0
    for _ in range(100):
        known = (rng.random(512) < rate).astype(float)
        null = count(known, 1.0, np.arange(512), 200)
        shares = rng.binomial(200, rate, 100) / 200
        off = distance((shares - known.mean())[:, None], np.ones(1), 512, 200)
        alarms, tried = alarms + int((off >= null.threshold(0.01)).sum()), tried + 100
    assert alarms / tried <= 0.013


def test_a_share_that_never_was_may_be_seen_a_few_times() -> None:
    null = count(np.zeros(512), 1.0, np.arange(512), 200)

    def chance(times: int) -> float:
        return null.chance(float(distance(np.array([times / 200]), np.ones(1), 512, 200)))

    assert chance(0) == pytest.approx(1.0)
    assert chance(1) > 0.1
    assert 1e-4 < chance(4) < 0.01
    assert chance(20) < 1e-8
    # So few images can't show a shift at this level: nothing reaches the threshold.
    small = count(np.array([0.0, 1.0] * 10), 1.0, np.arange(20), 3)
    assert small.threshold(1e-6) > small.values.max()


def test_groups_that_answer_alike_count_as_fewer() -> None:
    pairs = np.repeat(np.arange(100), 2)
    alike = np.repeat(np.random.default_rng(0).random(100) < 0.3, 2).astype(float)
    alone = (np.random.default_rng(1).random(200) < 0.3).astype(float)
    assert design_effect(alike, pairs) == pytest.approx(2.0)
    assert design_effect(alone, pairs) < 1.4
    assert design_effect(alone, np.arange(200)) == pytest.approx(1.0)
    assert design_effect(np.zeros(200), pairs) == 2.0
