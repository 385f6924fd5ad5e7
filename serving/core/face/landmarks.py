"""The 468 landmarks: MediaPipe's face mesh (Kartynnik et al. 2019, arXiv 1907.06724) on an upright square.

The mesh depends a little on how the square lies and on left and right. So the square is laid anew from the
mesh that it gave, a few times, and each time the picture and its mirror image are both asked and the answers'
mean is taken. The landmarks then depend on the photograph alone: those of rotated, scaled and mirrored copies
fall on each other (docs/face.md has the figures).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from serving.core.face.detect import Detection
from serving.core.face.mesh import LEFT_HALF, MIRROR, POINTS, RIGHT_HALF
from serving.core.face.models import LANDMARKS, Network, read_model

Floats = NDArray[np.float64]

SIDE = 192
# The first square is one and a half times the detected box, as the mesh was trained.
_BOX_TO_SIDE = 1.5
# Later ones are this many times the landmarks' root mean square distance from their mean: the same size.
_SPREAD_TO_SIDE = 4.8
# Pictures much larger than the network's are reduced once, to this many pixels a side of the square.
_VIEW_SIDE = 256
# Reducing by less than this isn't worth its time: cutting the square out does it as well.
_HARDLY_SMALLER = 0.6
# How much of the surroundings a view keeps: the square may be turned, grow a little and move.
_VIEW_MARGIN = 1.7


@dataclass(frozen=True, slots=True, eq=False)
class Square:
    """A turned square in the picture: its centre ``[2]``, side in pixels, and angle in radians, clockwise."""

    centre: Floats
    side: float
    angle: float


@dataclass(frozen=True, slots=True, eq=False)
class Mesh:
    """Landmarks ``[468, 2]`` in pixels, depths ``[468]``, and how sure the network is of a face, 0 to 1."""

    points: Floats
    depth: Floats
    score: float

    @property
    def low(self) -> Floats:
        """The upper left corner of the box around the landmarks."""
        return np.asarray(self.points.min(axis=0), np.float64)

    @property
    def high(self) -> Floats:
        """The lower right corner."""
        return np.asarray(self.points.max(axis=0), np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A part of a picture, reduced: ``pixels`` shows what begins at ``corner`` at ``scale`` of its size."""

    pixels: NDArray[np.uint8]
    corner: Floats
    scale: Floats


def detected_square(found: Detection) -> Square:
    """The square of a detection: turned so that the eyes are level."""
    across = found.points[1] - found.points[0]
    size = found.high - found.low
    return Square((found.low + found.high) / 2, _BOX_TO_SIDE * float(size.max()), _angle(across))


def mesh_square(points: Floats) -> Square:
    """The square of landmarks ``[468, 2]``. Centre, size and angle come from all, so that no one moves it.

    The angle is that of all left-hand points from their right-hand mirror images.
    """
    centre = points.mean(axis=0)
    spread = float(np.sqrt(((points - centre) ** 2).sum(axis=1).mean()))
    return Square(centre, _SPREAD_TO_SIDE * spread, _angle(across(points)))


def across(points: Floats) -> Floats:
    """The mean way from a right-hand landmark to its left-hand mirror image, in all the dimensions given."""
    return np.asarray((points[LEFT_HALF] - points[RIGHT_HALF]).mean(axis=0), np.float64)


def view_of(
    rgb: NDArray[np.uint8], square: Square, side: int = _VIEW_SIDE, *, below: float = _HARDLY_SMALLER
) -> View:
    """The square and its surroundings, reduced by area until the square has ``side``; never enlarged.

    Where that is no less than ``below`` of its size, it is left as it is.
    """
    height, width = rgb.shape[:2]
    reach = square.side * _VIEW_MARGIN / 2
    low = np.clip(np.floor(square.centre - reach), 0, [width - 1, height - 1]).astype(int)
    high = np.clip(np.ceil(square.centre + reach), low + 1, [width, height]).astype(int)
    part = rgb[low[1] : high[1], low[0] : high[0]]
    factor = side / square.side
    if factor < below:
        size = np.maximum(1, np.round((high - low) * factor)).astype(int)
        part = cv2.resize(part, (int(size[0]), int(size[1])), interpolation=cv2.INTER_AREA).astype(np.uint8)
    scale = np.array([part.shape[1], part.shape[0]]) / (high - low)
    return View(np.ascontiguousarray(part), low.astype(np.float64), scale)


class Landmarker:
    """The mesh's network. For one thread at a time."""

    def __init__(self) -> None:
        self._network = Network(read_model(LANDMARKS))

    def mesh(self, view: View, square: Square) -> Mesh:
        """Ask the network once."""
        matrix, shift = placing(square)
        values, score = self._ask(cut(view.pixels, view, square))
        return Mesh(values[:, :2] @ matrix.T + shift, values[:, 2] * (square.side / SIDE), score)

    def both(self, view: View, square: Square) -> Mesh:
        """Ask for the picture and for its mirror image, and take the mean. The score is the lower one."""
        matrix, shift = placing(square)
        image = cut(view.pixels, view, square)
        values, score = self._ask(image)
        mirrored, other = self._ask(np.ascontiguousarray(image[:, ::-1]))
        mirrored[:, 0] = SIDE - mirrored[:, 0]
        values = (values + mirrored[MIRROR]) / 2
        return Mesh(values[:, :2] @ matrix.T + shift, values[:, 2] * (square.side / SIDE), min(score, other))

    def _ask(self, image: NDArray[np.uint8]) -> tuple[Floats, float]:
        values, logit = self._network.run(image.astype(np.float32) / np.float32(255))
        score = 1 / (1 + np.exp(-np.clip(float(logit.item()), -80, 80)))
        return values.reshape(POINTS, 3).astype(np.float64), float(score)


def placing(square: Square, side: int = SIDE) -> tuple[Floats, Floats]:
    """The matrix and shift that take pixels of the square, cut at ``side`` a side, to the picture's."""
    cosine, sine = np.cos(square.angle), np.sin(square.angle)
    matrix = np.array([[cosine, -sine], [sine, cosine]]) * (square.side / side)
    return matrix, square.centre - matrix @ np.full(2, side / 2)


def cut(
    pixels: NDArray[np.uint8], view: View, square: Square, side: int = SIDE, *, smooth: bool = False
) -> NDArray[np.uint8]:
    """The square out of ``pixels``, which lie as the view's: ``[side, side]``, black beyond them.

    ``smooth`` interpolates by cubics, for squares that are enlarged.
    """
    matrix, shift = placing(square, side)
    within = view.scale[:, None] * matrix
    origin = view.scale * (shift - view.corner)
    # OpenCV counts from pixels' centres, we from their corners.
    place = np.column_stack([within, origin + within @ np.full(2, 0.5) - 0.5])
    flags = (cv2.INTER_CUBIC if smooth else cv2.INTER_LINEAR) | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(pixels, place, (side, side), flags=flags), np.uint8)


def _angle(way: Floats) -> float:
    return float(np.arctan2(way[1], way[0]))
