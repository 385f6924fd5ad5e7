"""The field of view: the bright disc that a fundus camera or a dermatoscope leaves on a black surround.

A field of view is found where three things hold: the frame's corners are dark, what is bright forms one
piece, and that piece is a disc, which the frame may cut and a resize may have stretched. A face before a dark
wall meets the first two and is not taken for one. The search runs on a copy of about 96 pixels, so that a
photograph and its reduced decode give the same answer; only the box's four edges are then read from the image
itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

_COPY = 96  # pixels on the longer side of the copy, about
_SMALLEST = 16  # a copy with a shorter side below this shows no disc
_MAX_SURROUND = 48.0  # grey level; a surround brighter than this isn't one
_MIN_STEP = 18.0  # grey levels from surround to field
_LEVEL = 0.15  # how far up that step the edge is taken
_MIN_AREA = 0.12  # of the frame
_MIN_ROUND = 0.6  # of the edge points lie on the outline
_MAX_DIAMETER = 1.6  # of the frame's longer side
# Intersection over union of outline and bright piece, inside the frame. An ellipse fits more things than a
# circle does.
_MIN_OVERLAP_CIRCLE, _MIN_OVERLAP_ELLIPSE = 0.88, 0.93
_EDGE_SHARE = 0.06  # of the diameter: a row or column with this many bright pixels belongs to the field

_Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Ellipse:
    """An upright ellipse; a circle where both radii are equal."""

    x: float
    y: float
    radius_x: float
    radius_y: float

    def radii(self, x: _Floats, y: _Floats) -> _Floats:
        """The distance of points from the centre, in radii: 1 on the outline. The arguments broadcast."""
        return np.hypot((x - self.x) / self.radius_x, (y - self.y) / self.radius_y)

    def scaled(self, factor: float) -> Ellipse:
        """The same on a copy that is ``factor`` times as large."""
        return Ellipse(self.x * factor, self.y * factor, self.radius_x * factor, self.radius_y * factor)


@dataclass(frozen=True, slots=True)
class Field:
    """Where the field of view is, in pixels of the image of ``width`` × ``height`` that it was found in.

    ``outline`` may reach over the frame, the box doesn't. Where there is no field of view, ``outline`` is
    None and the box is the whole image.
    """

    width: int
    height: int
    left: int
    top: int
    right: int
    bottom: int
    outline: Ellipse | None = None

    @property
    def found(self) -> bool:
        """Whether there is a field of view."""
        return self.outline is not None

    @property
    def side(self) -> int:
        """The side of the bounding square, in pixels."""
        return max(self.right - self.left, self.bottom - self.top)

    @property
    def share(self) -> float:
        """The share of the frame that the box covers; 0 where none was found."""
        box = (self.right - self.left) * (self.bottom - self.top)
        return box / (self.width * self.height) if self.found else 0.0

    def inner_mask(self, width: int, height: int, shrink: float = 0.94) -> NDArray[np.uint8]:
        """The field as 0 or 255 on a ``width`` × ``height`` copy of the box, less its sharp rim."""
        if self.outline is None:
            return np.full((height, width), 255, np.uint8)
        across, down = width / (self.right - self.left), height / (self.bottom - self.top)
        centre = (round((self.outline.x - self.left) * across), round((self.outline.y - self.top) * down))
        axes = (
            max(1, round(self.outline.radius_x * shrink * across)),
            max(1, round(self.outline.radius_y * shrink * down)),
        )
        mask = np.zeros((height, width), np.uint8)
        cv2.ellipse(mask, centre, axes, 0, 0, 360, 255, -1)
        return mask


def find_field(rgb: NDArray[np.uint8]) -> Field:
    """Find the field of view of an RGB image ``[H, W, 3]``. Deterministic; any image will do."""
    height, width = rgb.shape[:2]
    whole = Field(width, height, 0, 0, width, height)
    # Red and green: a fundus is nearly black in blue, and red alone misses what a green filter let through.
    bright = cv2.max(cv2.extractChannel(rgb, 0), cv2.extractChannel(rgb, 1)).astype(np.uint8, copy=False)
    # Averaging by a whole number is several times cheaper; what is left over is less than a pixel of the
    # copy.
    factor = max(1, round(max(height, width) / _COPY))
    rows, columns = height // factor, width // factor
    if min(rows, columns) < _SMALLEST:
        return whole
    trimmed = bright[: rows * factor, : columns * factor]
    copy = cv2.resize(trimmed, (columns, rows), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    surround, level = _levels(copy)
    if surround > _MAX_SURROUND or level - surround < _MIN_STEP:
        return whole
    threshold = surround + _LEVEL * (level - surround)
    piece = _largest_piece(copy > threshold)
    if np.count_nonzero(piece) < _MIN_AREA * piece.size:
        return whole
    outline = _outline(piece)
    if outline is None:
        return whole
    outline = outline.scaled(factor)
    left, right = _edges(bright, threshold, outline.x, outline.radius_x, factor)
    top, bottom = _edges(bright.T, threshold, outline.y, outline.radius_y, factor)
    if right - left < _SMALLEST or bottom - top < _SMALLEST:
        return whole
    return Field(width, height, left, top, right, bottom, outline)


def _levels(copy: NDArray[np.uint8]) -> tuple[float, float]:
    """The grey level of the surround, from the second brightest corner, and of the field, from the middle."""
    y, x = (max(1, n // 20) for n in copy.shape)
    corners = sorted(
        float(np.median(corner)) for corner in (copy[:y, :x], copy[:y, -x:], copy[-y:, :x], copy[-y:, -x:])
    )
    y, x = (n // 4 for n in copy.shape)
    return corners[2], float(np.median(copy[y:-y, x:-x]))


def _largest_piece(bright: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest connected piece, once what is thinner than three pixels (text, a notch) is gone."""
    opened = cv2.morphologyEx(bright.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(opened, connectivity=8)
    if count < 2:
        return np.zeros_like(bright)
    return np.equal(labels, 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA])))


def _outline(piece: NDArray[np.bool_]) -> Ellipse | None:
    """The circle around a piece, else the ellipse, in its pixels; None where it isn't a disc."""
    rows, columns = piece.shape
    ys, xs = np.flatnonzero(piece.any(axis=1)), np.flatnonzero(piece.any(axis=0))
    left, right = piece.argmax(axis=1)[ys], columns - piece[:, ::-1].argmax(axis=1)[ys]
    top, bottom = piece.argmax(axis=0)[xs], rows - piece[::-1].argmax(axis=0)[xs]
    # Edge points lie on the border between two pixels; where the frame cuts the piece there is no edge.
    x = np.concatenate([left, right, xs + 0.5, xs + 0.5]).astype(np.float64)
    y = np.concatenate([ys + 0.5, ys + 0.5, top, bottom]).astype(np.float64)
    kept = (x > 0) & (x < columns) & (y > 0) & (y < rows)
    across = np.arange(columns, dtype=np.float64) + 0.5
    down = np.arange(rows, dtype=np.float64)[:, None] + 0.5
    for circle, least in ((True, _MIN_OVERLAP_CIRCLE), (False, _MIN_OVERLAP_ELLIPSE)):
        outline = _fit(x[kept], y[kept], max(rows, columns), circle)
        if outline is not None:
            inside = outline.radii(across, down) < 1
            if np.count_nonzero(inside & piece) >= least * np.count_nonzero(inside | piece):
                return outline
    return None


def _fit(x: _Floats, y: _Floats, longer: int, circle: bool) -> Ellipse | None:
    """Least squares on ``x² + q y² = 2 a x + 2 b y + c``, then twice without the points that lie off it."""
    on = np.ones(len(x), bool)
    outline: Ellipse | None = None
    for _ in range(3):
        if np.count_nonzero(on) < max(12, _MIN_ROUND * len(x)):
            return None
        px, py = x[on], y[on]
        columns = [2 * px, 2 * py, np.ones_like(px)] + ([] if circle else [-py * py])
        target = px * px + (py * py if circle else 0.0)
        a, b, c, q = (*np.linalg.lstsq(np.column_stack(columns), target, rcond=None)[0].tolist(), 1.0)[:4]
        if not 0.2 < q < 5:
            return None
        square = c + a * a + b * b / q
        radius = math.sqrt(max(0.0, square))
        if not 1 < radius < longer * _MAX_DIAMETER / 2 or radius / math.sqrt(q) > longer * _MAX_DIAMETER / 2:
            return None
        outline = Ellipse(a, b / q, radius, radius / math.sqrt(q))
        off = np.abs(outline.radii(x, y) - 1) * min(outline.radius_x, outline.radius_y)
        on = off < max(1.5, 0.03 * longer)
    return outline if np.count_nonzero(on) >= _MIN_ROUND * len(x) else None


def _edges(
    bright: NDArray[np.uint8], threshold: float, centre: float, radius: float, factor: int
) -> tuple[int, int]:
    """The field's first column and one past its last, read from the image near where they must be."""
    length = bright.shape[1]
    reach = 2 * factor + 1
    found = []
    for edge, side in ((centre - radius, 0), (centre + radius, -1)):
        start, end = max(0, math.floor(edge) - reach), min(length, math.ceil(edge) + reach)
        at = min(max(round(edge), 0), length)
        if 0 < edge < length:
            counts = np.count_nonzero(bright[:, start:end] > threshold, axis=0)
            belongs = np.flatnonzero(counts >= _EDGE_SHARE * 2 * radius)
            if len(belongs):
                at = start + int(belongs[side]) - side
        found.append(at)
    return found[0], found[1]
