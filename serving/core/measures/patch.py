"""The face as it is measured: upright, always at one size, with its regions as masks.

Measured at one size, a number doesn't depend on how large the photograph is, as long as the face in it isn't
much smaller than that.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from serving.core.face.answer import Face, draw
from serving.core.face.landmarks import cut, mesh_square, placing, view_of
from serving.core.face.mesh import LEFT_EYE, NOT_SKIN, OUTLINES, RIGHT_EYE, corners

Mask = NDArray[np.bool_]
Planes = NDArray[np.float32]

# The square around the face, at which everything is measured, in pixels; the face fills 0.6 to 0.7 of it.
SIDE = 256
# A region counts if this share of it is in the picture.
_VISIBLE = 0.6


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """An upright face.

    - ``rgb``: ``uint8 [256, 256, 3]``; ``lab``: CIELAB (D65), ``float32 [256, 256, 3]``, L* 0 to 100.
    - ``masks``: the pixels of each region that is in the picture for the most part, by name.
    - ``eye_distance``: pixels between the eyes' centres, here.
    - ``enlarged``: how many pixels here come from one of the photograph, along a line; 1 or less is none made
      up.
    """

    rgb: NDArray[np.uint8]
    lab: Planes
    masks: dict[str, Mask]
    eye_distance: float
    enlarged: float

    def pixels(self, *names: str) -> Planes:
        """The CIELAB pixels ``[N, 3]`` of the regions named, without those that there aren't."""
        mask = self.mask(*names)
        return self.lab[mask]

    def mask(self, *names: str) -> Mask:
        """The regions named, together."""
        together = np.zeros((SIDE, SIDE), np.bool_)
        for name in names:
            if name in self.masks:
                together |= self.masks[name]
        return together

    def without(self, *names: str) -> Patch:
        """The patch without these regions."""
        masks = {name: mask for name, mask in self.masks.items() if name not in names}
        return Patch(self.rgb, self.lab, masks, self.eye_distance, self.enlarged)


def upright(rgb: NDArray[np.uint8], face: Face) -> Patch:
    """Cut the face out of its photograph ``uint8 [H, W, 3]``."""
    square = mesh_square(face.landmarks)
    view = view_of(rgb, square, SIDE, below=1.0)
    enlarged = SIDE / square.side
    pixels = cut(view.pixels, view, square, SIDE, smooth=enlarged > 1)
    there = cut(np.full(view.pixels.shape[:2], 255, np.uint8), view, square, SIDE) == 255
    matrix, shift = placing(square, SIDE)
    points = (face.landmarks - shift) @ np.linalg.inv(matrix).T
    not_skin = np.zeros((SIDE, SIDE), np.uint8)
    for outline in NOT_SKIN:
        draw(not_skin, corners(points, outline))
    masks = {}
    for name, outline in OUTLINES.items():
        region = draw(np.zeros((SIDE, SIDE), np.uint8), corners(points, outline)) > 0
        region &= not_skin == 0
        seen = region & there
        if seen.sum() > _VISIBLE * max(1, region.sum()):
            masks[name] = seen
    right, left = (points[list(eye)].mean(axis=0) for eye in (RIGHT_EYE, LEFT_EYE))
    return Patch(pixels, to_lab(pixels), masks, float(np.hypot(*(left - right))), enlarged)


def to_lab(rgb: NDArray[np.uint8]) -> Planes:
    """sRGB ``uint8 [..., 3]`` as CIELAB for D65, ``float32``, by the CIE's 1976 formulas."""
    return np.asarray(cv2.cvtColor(rgb.astype(np.float32) / np.float32(255), cv2.COLOR_RGB2Lab), np.float32)
