from __future__ import annotations

import numpy as np
import pytest

from serving.core.measures.texture import LEVELS, co_occurrence, detail, homogeneity, levels, local_entropy

WHOLE = np.ones((40, 40), np.bool_)


def test_entropy_of_known_levels() -> None:
    even = np.full((40, 40), 5)
    assert local_entropy(even, WHOLE) == pytest.approx(0, abs=1e-9)
    # Stripes of two levels: 45 to 36 in a full neighbourhood, so just under a bit.
    stripes = np.tile([3, 7], (40, 20))
    share = 45 / 81
    inner = np.zeros((40, 40), np.bool_)
    inner[:, 10:30] = True
    known = -share * np.log2(share) - (1 - share) * np.log2(1 - share)
    assert local_entropy(stripes, WHOLE) == pytest.approx(known, abs=0.01)
    # All sixteen levels alike often.
    rng = np.random.default_rng(0)
    assert local_entropy(rng.integers(0, LEVELS, (40, 40)), WHOLE) == pytest.approx(4, abs=0.3)


def test_only_the_mask_counts() -> None:
    values = np.full((40, 40), 5)
    values[:, 20:] = np.random.default_rng(0).integers(0, LEVELS, (40, 20))
    mask = np.zeros((40, 40), np.bool_)
    mask[:, :20] = True
    assert local_entropy(values, mask) == pytest.approx(0, abs=1e-9)
    assert homogeneity(values, mask) == 1


@pytest.mark.parametrize(("down", "right"), [(0, 2), (2, 0), (2, 2), (2, -2), (1, 0)])
def test_co_occurrence_is_the_plain_count(down: int, right: int) -> None:
    rng = np.random.default_rng(1)
    values, mask = rng.integers(0, LEVELS, (12, 15)), rng.random((12, 15)) < 0.8
    plain = np.zeros((LEVELS, LEVELS), int)
    for y in range(12):
        for x in range(15):
            y2, x2 = y + down, x + right
            if 0 <= y2 < 12 and 0 <= x2 < 15 and mask[y, x] and mask[y2, x2]:
                plain[values[y, x], values[y2, x2]] += 1
                plain[values[y2, x2], values[y, x]] += 1
    assert (co_occurrence(values, mask, down, right) == plain).all()


def test_homogeneity_of_known_levels() -> None:
    assert homogeneity(np.full((40, 40), 3), WHOLE) == 1
    # Rows in pairs: two pixels down, every level differs by one; two pixels right, none does.
    rows = np.repeat(np.tile([4, 4, 5, 5], 10), 40).reshape(40, 40)
    assert homogeneity(rows, WHOLE) == pytest.approx((1 + 0.5 + 0.5 + 0.5) / 4)


def test_a_band_leaves_out_shading_and_counts_levels_of_one() -> None:
    y, x = np.mgrid[:128, :128].astype(np.float32)
    shading = 50 + x / 8 + y / 16
    assert np.abs(detail(shading)[20:-20, 20:-20]).max() < 0.1
    waves = 50 + 4 * np.sin(x * 2 * np.pi / 14)
    assert detail(waves).std() == pytest.approx(4 / np.sqrt(2) * 0.85, rel=0.1)
    assert levels(np.float32([[-20, -0.6, -0.4, 0.4, 0.6, 20]])).tolist() == [[0, 7, 8, 8, 9, 15]]
