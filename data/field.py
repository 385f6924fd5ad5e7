"""The field of view: the bright disc of a fundus camera or a dermatoscope on its black surround.

Found from two properties: the frame's corners are dark, and one bright piece inside is far from them in
brightness. The work is done on a small copy, so that a photograph and its reduced decode give the same answer
to within a pixel or two of that copy, then the box's four edges are set from the full-size rows and columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

_SIDE = 96  # longer side of the copy that the search runs on
_MIN_SEPARATION = 18.0  # grey levels between surround and field
_MAX_SURROUND = 48.0  # a surround brighter than this isn't one
_MIN_AREA = 0.12  # of the frame
_MIN_EXTENT = 0.6  # of its bounding box; a disc has 0.785, one cut at top and bottom more
_LEVEL = 0.22  # where between surround and field the edge is


@dataclass(frozen=True, slots=True)
class Field:
    """Where the field of view is, in pixels of the image it was found in.

    ``found`` is False where the image has no dark surround; the box is then the whole image. ``mask`` is 0 or
    255 on a small copy of the whole image.
    """

    found: bool
    width: int
    height: int
    left: int
    top: int
    right: int
    bottom: int
    mask: NDArray[np.uint8]

    def box_on(self, width: int, height: int) -> tuple[int, int, int, int]:
        """The box (left, top, right, bottom) on a copy of the image of another size."""
        x, y = width / self.width, height / self.height
        return round(self.left * x), round(self.top * y), round(self.right * x), round(self.bottom * y)

    @property
    def side(self) -> int:
        """The side of the bounding square, in pixels."""
        return max(self.right - self.left, self.bottom - self.top)


def find_field(rgb: NDArray[np.uint8]) -> Field:
    """Find the field of view of an RGB image ``[H, W, 3]``. Deterministic; never raises on an image."""
    height, width = rgb.shape[:2]
    scale = _SIDE / max(height, width)
    small = (max(1, round(width * scale)), max(1, round(height * scale))) if scale < 1 else (width, height)
    # Every n-th pixel averaged over a small box would alias; area averaging of two channels is cheap enough.
    copy = cv2.resize(rgb, small, interpolation=cv2.INTER_AREA) if scale < 1 else rgb
    bright = np.maximum(copy[..., 0], copy[..., 1])
    whole = Field(False, width, height, 0, 0, width, height, np.full(bright.shape, 255, np.uint8))
    if min(bright.shape) < 8:
        return whole
    surround, level = _levels(bright)
    if surround > _MAX_SURROUND or level - surround < _MIN_SEPARATION:
        return whole
    threshold = surround + _LEVEL * (level - surround)
    mask = _largest((bright > threshold).astype(np.uint8))
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(ys) or not len(xs):
        return whole
    top, bottom, left, right = int(ys[0]), int(ys[-1]) + 1, int(xs[0]), int(xs[-1]) + 1
    area = int(np.count_nonzero(mask))
    if area < _MIN_AREA * mask.size or area < _MIN_EXTENT * (bottom - top) * (right - left):
        return whole
    factor_x, factor_y = width / mask.shape[1], height / mask.shape[0]
    box = (round(left * factor_x), round(top * factor_y), round(right * factor_x), round(bottom * factor_y))
    return Field(True, width, height, *box, mask * np.uint8(255))


def _levels(bright: NDArray[np.uint8]) -> tuple[float, float]:
    """The brightness of the surround, from the darker corners, and of the field, from the middle."""
    height, width = bright.shape
    y, x = max(1, height // 16), max(1, width // 16)
    corners = sorted(
        float(np.median(part))
        for part in (bright[:y, :x], bright[:y, -x:], bright[-y:, :x], bright[-y:, -x:])
    )
    middle = bright[height // 4 : height - height // 4, width // 4 : width - width // 4]
    return corners[2], float(np.median(middle))


def _largest(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The largest 8-connected piece of a 0/1 mask, with thin attachments such as printed text removed."""
    opened = cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(opened, connectivity=8)
    if count < 2:
        return np.zeros_like(mask)
    best = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    piece: NDArray[np.uint8] = np.equal(labels, best).astype(np.uint8)
    return piece
