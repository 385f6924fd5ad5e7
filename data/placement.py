"""Where a model's input lies in the photograph: from the pixels of the one to those of the other.

The geometry of ``data.preprocess`` the other way round, as one scale and one offset for each axis.
Coordinates count from the upper left corner of the upright photograph, as viewers show it (EXIF orientation
applied).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data.field import Field
from data.image_header import ImageHeader
from data.preprocess import MOST_SCALED, Fit, Preprocessing

# By how much a JPEG may have been reduced when it was decoded.
_REDUCTIONS = (1, 2, 4, 8)


@dataclass(frozen=True, slots=True)
class Axis:
    """``photograph = offset + scale * input``, of pixels' edges; the photograph has ``length`` pixels."""

    offset: float
    scale: float
    length: int

    def edges(self, start: float, end: float) -> tuple[int, int]:
        """The whole pixels that a stretch of the input touches, cut to the photograph: start, end."""
        first = math.floor(self.offset + self.scale * start + 1e-6)
        last = math.ceil(self.offset + self.scale * end - 1e-6)
        return min(max(first, 0), self.length), min(max(last, 0), self.length)

    def centres(self, values: NDArray[np.int32]) -> NDArray[np.int32]:
        """Pixels of the input as the photograph's pixels at their centres, cut to the photograph."""
        found = np.floor(self.offset + self.scale * (values.astype(np.float64) + 0.5))
        cut: NDArray[np.float64] = np.clip(found, 0, self.length - 1)
        return cut.astype(np.int32)


@dataclass(frozen=True, slots=True)
class Placement:
    """Both axes."""

    x: Axis
    y: Axis

    def box(self, x: int, y: int, width: int, height: int) -> tuple[int, int, int, int] | None:
        """A box of the input as (x, y, width, height) in the photograph; None where it lies in padding."""
        left, right = self.x.edges(x, x + width)
        top, bottom = self.y.edges(y, y + height)
        return (left, top, right - left, bottom - top) if right > left and bottom > top else None

    def points(self, contour: NDArray[np.int32]) -> NDArray[np.int32]:
        """Pixels [n, 2] (x, y) of the input as pixels of the photograph."""
        return np.stack([self.x.centres(contour[:, 0]), self.y.centres(contour[:, 1])], axis=1)

    def area(self, pixels: float) -> float:
        """An area of the input in the photograph's pixels."""
        return pixels * self.x.scale * self.y.scale


def placement(
    preprocessing: Preprocessing, decoded: tuple[int, int], field: Field | None, header: ImageHeader
) -> Placement:
    """Where the input lies in the photograph.

    ``decoded`` is (height, width) of the pixels that were preprocessed, upright, and perhaps reduced as they
    were decoded; ``field`` is where the field of view was found in them; ``header`` is the file's.
    """
    height, width = decoded
    photo_height, photo_width = _upright(header, decoded)
    left, top, box_width, box_height = 0.0, 0.0, width, height
    if preprocessing.crop == "fundus" and field is not None and field.found:
        inner = (field.right - field.left, field.bottom - field.top)
        box_width = box_height = field.side
        left, top = field.left - (field.side - inner[0]) // 2, field.top - (field.side - inner[1]) // 2
    down, across = _fitted((box_height, box_width), preprocessing.size, preprocessing.fit)
    return Placement(x=_axis(left, across, photo_width, width), y=_axis(top, down, photo_height, height))


def _fitted(
    shape: tuple[int, int], size: tuple[int, int], fit: Fit
) -> tuple[tuple[float, float], tuple[float, float]]:
    """For rows and columns: (offset, scale) from the input to what was fitted, as preprocessing does it."""
    if fit == "stretch":
        return (0.0, shape[0] / size[0]), (0.0, shape[1] / size[1])
    ratios = (size[0] / shape[0], size[1] / shape[1])
    ratio = min(ratios) if fit == "letterbox" else max(ratios)
    new = [max(1, round(side * ratio)) for side in shape]
    if fit == "center" and new[0] * new[1] > MOST_SCALED * size[0] * size[1]:
        # Cut first, then scaled.
        kept = [min(max(1, round(to / ratio)), side) for to, side in zip(size, shape, strict=True)]
        down, across = (
            (float((side - cut) // 2), cut / to) for side, cut, to in zip(shape, kept, size, strict=True)
        )
        return down, across
    # A letterbox begins in the padding, a centre in what is cut away.
    start = [
        -((to - n) // 2) if fit == "letterbox" else (n - to) // 2 for n, to in zip(new, size, strict=True)
    ]
    down, across = ((at * side / n, side / n) for at, side, n in zip(start, shape, new, strict=True))
    return down, across


def _axis(start: float, fit: tuple[float, float], photo: int, decoded: int) -> Axis:
    offset, scale = fit
    ratio = photo / decoded
    return Axis((start + offset) * ratio, scale * ratio, photo)


def _upright(header: ImageHeader, decoded: tuple[int, int]) -> tuple[int, int]:
    """The photograph's (height, width) as decoded: the header's, or those exchanged by its orientation."""
    stored = (header.height, header.width)
    reduced = {(-(-stored[0] // n), -(-stored[1] // n)) for n in _REDUCTIONS}
    return stored if decoded in reduced else (stored[1], stored[0])
