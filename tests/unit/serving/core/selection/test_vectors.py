"""Embeddings made comparable."""

from __future__ import annotations

import numpy as np
import pytest

from serving.core.selection import comparable


def test_what_all_have_in_common_goes_and_length_does_not_count() -> None:
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(50, 6)) + 9).astype(np.float32)
    found = comparable(x, x)
    assert found.dtype == np.float32
    assert found.mean(axis=0) == pytest.approx(np.zeros(6), abs=1e-6)
    assert comparable(x * 3, x * 0.5) == pytest.approx(found, abs=1e-6)


def test_rows_without_numbers_stay_without_and_nothing_is_divided_by_zero() -> None:
    x = np.array([[1, 0], [np.nan, 1], [0, 0]], np.float32)
    found = comparable(x, np.array([[1, 0], [0, 1]], np.float32))
    assert found[0] == pytest.approx([0.5, -0.5])
    assert np.isnan(found[1]).all()
    assert found[2] == pytest.approx([-0.5, -0.5])
