"""How a face's skin looks at a glance: light enough to measure, and shaded as in a photograph."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from serving.core.face.answer import Face

# Faces are looked at with their box at this size, at most.
_SIDE = 128
# Neighbouring pixels that vary by less are of one even colour: half a grey level in good light, less in a dim
# photograph, where shades are fainter too.
_EVEN, _GOOD_LIGHT = 0.5, 150.0
# A picture is dark when so many of its pixels are; it is brightened until they reach the second number.
_DARK_PERCENTILE, _BRIGHTENED = 98, 200
# Below this a picture is black: there is nothing to brighten.
_BLACK = 2
# What whole pictures are sampled down to.
_SAMPLE = 256


def face_skin(rgb: NDArray[np.uint8], face: Face) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The face's box as grey levels ``[H, W]``, reduced by area, and which of it is skin; never none."""
    height, width = rgb.shape[:2]
    box = face.box
    left, top = int(np.clip(box.left, 0, width - 1)), int(np.clip(box.top, 0, height - 1))
    right = int(np.clip(np.ceil(box.left + box.width), left + 1, width))
    bottom = int(np.clip(np.ceil(box.top + box.height), top + 1, height))
    grey = cv2.cvtColor(np.ascontiguousarray(rgb[top:bottom, left:right]), cv2.COLOR_RGB2GRAY)
    mask = face.mask("skin", bottom - top, right - left, shift=(left, top))
    factor = _SIDE / box.side
    if factor < 1:
        size = (max(1, round(grey.shape[1] * factor)), max(1, round(grey.shape[0] * factor)))
        grey = cv2.resize(grey.astype(np.float32), size, interpolation=cv2.INTER_AREA)
        mask = cv2.resize(mask, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
    inner = cv2.erode((mask == 255).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    return grey.astype(np.float32), inner if inner.any() else np.ones(grey.shape, np.bool_)


def flatness(grey: NDArray[np.float32], mask: NDArray[np.bool_]) -> float:
    """The share of the mask whose 3 x 3 neighbourhoods hardly vary. Skin is shaded; drawings are not.

    0.06 at most on the photographs of faces that this was tried on, out of focus, dim or grey ones included;
    0.4 and more on line drawings, cartoons and posters, saved as JPEG or not.
    """
    mean = cv2.blur(grey, (3, 3))
    spread = cv2.blur(grey * grey, (3, 3)) - mean * mean
    even = _EVEN * min(1.0, float(np.percentile(grey[mask], 90)) / _GOOD_LIGHT)
    return float((spread[mask] < even * even).mean())


def gain(rgb: NDArray[np.uint8], light: float) -> float:
    """By how much to brighten a picture that is dark all over; 0 for one that isn't, or is black."""
    step = max(1, max(rgb.shape[:2]) // _SAMPLE)
    small = cv2.cvtColor(np.ascontiguousarray(rgb[::step, ::step]), cv2.COLOR_RGB2GRAY)
    level = float(np.percentile(small, _DARK_PERCENTILE))
    return _BRIGHTENED / level if _BLACK <= level < 2 * light else 0.0
