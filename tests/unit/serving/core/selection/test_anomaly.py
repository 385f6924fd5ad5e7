"""Anomaly scores as something that strategies can rank."""

from __future__ import annotations

import numpy as np
import pytest

from data.errors import UsageError
from serving.core.selection import Pool, select, sides


@pytest.mark.parametrize("name", ["margin", "entropy", "least_confidence"])
def test_what_is_nearest_the_threshold_comes_first(name: str) -> None:
    scores = np.array([0.05, 0.19, 0.9, 0.26, 0.0])
    pool = Pool(ids=tuple("abcde"), probabilities=sides(scores, 0.2))
    assert select(pool, name, 5, seed=0).ids == ("b", "d", "a", "c", "e")


def test_both_sides_add_up_and_no_score_stays_none() -> None:
    found = sides(np.array([0.2, 0.6, np.nan], np.float32), 0.2)
    assert found[:2] == pytest.approx(np.array([[0.5, 0.5], [0.25, 0.75]]))
    assert np.isnan(found[2]).all()


@pytest.mark.parametrize("threshold", [0.0, -1.0, float("nan")])
def test_without_a_threshold_there_is_no_doubt(threshold: float) -> None:
    with pytest.raises(UsageError):
        sides(np.array([0.1]), threshold)
