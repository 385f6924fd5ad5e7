"""What the 468 landmarks of MediaPipe's face mesh are: mirror images, named points, outlines of regions.

"Right" and "left" are the person's own; in a photograph that isn't mirrored, the right eye is on the left.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

POINTS = 468

# The points that are their own mirror images. The mesh counts the right half and the middle line first (0 to
# 247), then the left half in the same order: so these few say which point mirrors which.
MIDDLE = (
    *(0, 1, 2, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19),
    *(94, 151, 152, 164, 168, 175, 195, 197, 199, 200),
)
_FIRST_LEFT = 248

RIGHT_HALF: NDArray[np.intp] = np.setdiff1d(np.arange(_FIRST_LEFT), MIDDLE)
LEFT_HALF: NDArray[np.intp] = np.arange(_FIRST_LEFT, POINTS)


def _mirror() -> NDArray[np.intp]:
    table = np.arange(POINTS)
    table[RIGHT_HALF], table[LEFT_HALF] = LEFT_HALF, RIGHT_HALF
    table.setflags(write=False)
    return table


# ``landmarks[MIRROR]`` of a mirrored picture are the landmarks of the picture, mirrored.
MIRROR: NDArray[np.intp] = _mirror()

# The eyes' corners, outer and inner. An eye's centre is their midpoint.
RIGHT_EYE = (33, 133)
LEFT_EYE = (263, 362)
# Under the forehead's middle and on the chin: level with each other in depth when a head is upright.
FOREHEAD, CHIN = 151, 199

# A closed outline is a list of corners; a corner is the mean of the landmarks named, so that a corner may lie
# between two of them.
Corner = tuple[int, ...]
Outline = tuple[Corner, ...]


def _mirrored(outline: Outline) -> Outline:
    return tuple(tuple(int(MIRROR[index]) for index in corner) for corner in outline)


def _both(right: Outline) -> Outline:
    """An outline from its right half, which begins and ends on the middle line."""
    return (*right, *reversed(_mirrored(right[1:-1])))


def _single(*points: int) -> Outline:
    return tuple((point,) for point in points)


# The upper edge stays under the hairline, the lower over the brows.
_FOREHEAD = _both(((10, 151), (109, 108), (67, 69), (103, 104), (104, 105), (69, 66), (108, 107), (151, 9)))
_RIGHT_CHEEK = _single(117, 118, 101, 36, 206, 207, 187, 123)
# Without the nostrils.
_NOSE = _both(_single(168, 122, 174, 198, 131, 115, 220, 44, 1))
_CHIN = _both(_single(18, 83, 194, 32, 140, 171, 175))
# Between the lower lid's lashes and the cheekbone.
_RIGHT_UNDER_EYE = ((110,), (24,), (23,), (22,), (26,), (121, 232), (120,), (119,), (118, 229), (228,))

OUTLINES: dict[str, Outline] = {
    "forehead": _FOREHEAD,
    "right_cheek": _RIGHT_CHEEK,
    "left_cheek": _mirrored(_RIGHT_CHEEK),
    "nose": _NOSE,
    "chin": _CHIN,
    "right_under_eye": _RIGHT_UNDER_EYE,
    "left_under_eye": _mirrored(_RIGHT_UNDER_EYE),
}

# The whole face, and what in it is not skin.
OVAL: Outline = _both(
    _single(10, 109, 67, 103, 54, 21, 162, 127, 234, 93, 132, 58, 172, 136, 150, 149, 176, 148, 152)
)
_EYE = _single(33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246)
_BROW = _single(70, 63, 105, 66, 107, 55, 65, 52, 53, 46)
_LIPS = _both(_single(0, 37, 39, 40, 185, 61, 146, 91, 181, 84, 17))
NOT_SKIN: tuple[Outline, ...] = (_EYE, _mirrored(_EYE), _BROW, _mirrored(_BROW), _LIPS)


def corners(landmarks: NDArray[np.float64], outline: Outline) -> NDArray[np.float64]:
    """An outline's corners ``[N, 2]`` on a face's landmarks ``[468, 2]``."""
    points, starts, counts = _gathered(outline)
    return np.asarray(np.add.reduceat(landmarks[points], starts, axis=0) / counts, np.float64)


@cache
def _gathered(outline: Outline) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """All its landmarks, where each corner's begin, and how many they are ``[N, 1]``."""
    counts = np.array([len(corner) for corner in outline])
    points = np.array([point for corner in outline for point in corner])
    return points, np.cumsum(counts) - counts, counts[:, None]
