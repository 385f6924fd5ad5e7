from __future__ import annotations

import numpy as np
import pytest

from serving.core.face.mesh import (
    LEFT_EYE,
    LEFT_HALF,
    MIDDLE,
    MIRROR,
    NOT_SKIN,
    OUTLINES,
    OVAL,
    RIGHT_EYE,
    RIGHT_HALF,
    corners,
)
from tests.faces import mean_mesh


def test_every_point_has_one_mirror_image() -> None:
    assert (MIRROR[MIRROR] == np.arange(468)).all()
    assert set(np.flatnonzero(np.arange(468) == MIRROR)) == set(MIDDLE)
    assert len(RIGHT_HALF) == len(LEFT_HALF) == 220
    # Known pairs: eyes' corners, mouth's corners, the face's sides.
    for right, left in ((33, 263), (133, 362), (61, 291), (234, 454), (50, 280), (105, 334)):
        assert MIRROR[right] == left
    assert tuple(int(MIRROR[index]) for index in RIGHT_EYE) == LEFT_EYE


def test_the_right_half_is_on_the_right_of_a_mean_face() -> None:
    points = mean_mesh()
    # In a photograph the person's right is on our left. A few points lie close to the middle line.
    assert (points[RIGHT_HALF, 0] < 0.03).all()
    assert np.abs(points[list(MIDDLE), 0]).max() < 0.03


@pytest.mark.parametrize("name", ["forehead", "nose", "chin"])
def test_middle_regions_mirror_themselves(name: str) -> None:
    outline = corners(mean_mesh()[:, :2], OUTLINES[name])
    flipped = outline * [-1, 1]
    apart = np.linalg.norm(outline[:, None] - flipped[None], axis=2)
    assert apart.min(axis=1).max() < 0.03


def test_sides_mirror_each_other() -> None:
    points = mean_mesh()[:, :2]
    for name in ("cheek", "under_eye"):
        right, left = (corners(points, OUTLINES[f"{side}_{name}"]) for side in ("right", "left"))
        assert right == pytest.approx(left * [-1, 1], abs=1e-9)
    assert len(OVAL) == 36
    assert len(NOT_SKIN) == 5
