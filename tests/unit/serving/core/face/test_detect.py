from __future__ import annotations

import numpy as np
import pytest

from serving.core.face.detect import FULL, SHORT, Detection, blend, distinct, overlap, same_face


def test_anchors_lie_as_the_networks_count_them() -> None:
    short, full = SHORT.anchors(), FULL.anchors()
    assert short.shape == (896, 2)
    assert full.shape == (2304, 2)
    # Two anchors a cell of 8 pixels, row by row; then six a cell of 16 pixels.
    assert short[0] == pytest.approx([4 / 128, 4 / 128])
    assert (short[0] == short[1]).all()
    assert short[2] == pytest.approx([12 / 128, 4 / 128])
    assert short[32] == pytest.approx([4 / 128, 12 / 128])
    assert short[512] == pytest.approx([8 / 128, 8 / 128])
    assert (short[512:518] == short[512]).all()
    assert full[49] == pytest.approx([6 / 192, 6 / 192])
    assert full[-1] == pytest.approx([190 / 192, 190 / 192])


def test_overlap_is_intersection_over_union() -> None:
    low, high = np.array([0.0, 0]), np.array([2.0, 2])
    lows, highs = np.array([[0.0, 0], [1, 1], [5, 5], [0, 0]]), np.array([[2.0, 2], [3, 3], [6, 6], [0, 0]])
    assert overlap(low, high, lows, highs) == pytest.approx([1, 1 / 7, 0, 0])


def test_answers_of_one_face_are_blended_by_their_scores() -> None:
    low = np.array([[0.0, 0], [1, 0], [20, 20]])
    high = low + 10
    points = np.repeat(low[:, None], 6, axis=1)
    first, second = blend(np.array([0.9, 0.6, 0.7]), low, high, points)
    assert first.score == 0.9
    assert first.low == pytest.approx([0.4, 0])
    assert first.high == pytest.approx([10.4, 10])
    assert first.points == pytest.approx(np.repeat([[0.4, 0]], 6, axis=0))
    assert second.score == 0.7
    assert second.low == pytest.approx([20, 20])


def test_nothing_is_blended_to_nothing_and_boxes_without_area_end() -> None:
    empty = np.zeros((0, 2))
    assert blend(np.zeros(0), empty, empty, np.zeros((0, 6, 2))) == []
    still = np.zeros((3, 2))
    assert len(blend(np.array([0.9, 0.8, 0.7]), still, still, np.zeros((3, 6, 2)))) == 3


def place(score: float, left: float, side: float) -> Detection:
    low = np.array([left, 0.0])
    return Detection(score, low, low + side, np.zeros((6, 2)))


def test_a_box_within_another_is_the_same_face() -> None:
    large, inside, apart = place(0.6, 0, 10), place(0.9, 2, 5), place(0.7, 30, 10)
    assert same_face(large.low, large.high, inside.low, inside.high)
    assert not same_face(large.low, large.high, apart.low, apart.high)
    assert distinct([large, inside, apart]) == [inside, apart]


def test_a_place_is_moved_whole() -> None:
    there = place(0.5, 1, 4).moved(10, 20)
    assert there.low == pytest.approx([11, 20])
    assert there.high == pytest.approx([15, 24])
    assert there.points == pytest.approx(np.repeat([[10, 20]], 6, axis=0))
