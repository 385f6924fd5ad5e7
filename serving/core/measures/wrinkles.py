"""Wrinkles: dark lines, found by the second derivative across them, and how much of them there is."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from serving.core.measures.patch import Mask

Floats = NDArray[np.float32]

# Half widths of the lines looked for, pixels at 256.
_SCALES = (1.5, 2.5)
# A line's depth in L*, as its normalised second derivative shows it, from which it counts.
_DEEP = 1.2
# How much darker than the skin on both sides a line must be, in L*, and how far off that is, in scales.
_DARKER, _BESIDE = 0.5, 2.0
# Shorter lines are pores, hairs and noise. In pixels at 256; the eyes are about 68 apart.
_SHORT = 10


def ridges(lightness: Floats) -> tuple[Floats, Mask]:
    """How strongly each pixel of L* ``[H, W]`` lies in a dark line, and whether it is on its middle.

    At each scale the Hessian matrix of the blurred lightness is taken times the scale squared (Lindeberg
    1998, Int. J. Comput. Vis. 30, 117). Its larger eigenvalue is the one across a dark line; the other one's
    size is taken off, so that spots don't count (after Frangi et al. 1998). The middle is where the strength
    is largest across, and darker than the skin on both sides: beside a light line one side isn't lighter.
    """
    strength = np.zeros(lightness.shape, np.float32)
    angle, depth = strength.copy(), strength.copy()
    for scale in _SCALES:
        blurred = np.asarray(cv2.GaussianBlur(lightness, (0, 0), scale), np.float32)
        down, right = np.gradient(blurred)
        (yy, yx), (_, xx) = np.gradient(down), np.gradient(right)
        half, twist = (xx + yy) / 2, np.hypot((xx - yy) / 2, yx)
        here = (scale * scale * (half + twist - np.abs(half - twist))).astype(np.float32)
        way = (0.5 * np.arctan2(2 * yx, xx - yy)).astype(np.float32)
        beside = np.minimum(*(_along(blurred, way, side * _BESIDE * scale) for side in (-1, 1)))
        better = here > strength
        strength[better], angle[better] = here[better], way[better]
        depth[better] = (beside - blurred)[better]
    before, after = _along(strength, angle, -1), _along(strength, angle, 1)
    return strength, (strength > before) & (strength >= after) & (depth > _DARKER)


def _along(plane: Floats, angle: Floats, distance: float) -> Floats:
    """Each pixel's neighbour at a distance in its own direction."""
    down, right = np.arange(plane.shape[0], dtype=np.float32), np.arange(plane.shape[1], dtype=np.float32)
    x, y = right + distance * np.cos(angle), down[:, None] + distance * np.sin(angle)
    return np.asarray(cv2.remap(plane, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.float32)


def line_length(lightness: Floats, mask: Mask) -> float:
    """The length in pixels of the dark lines within the mask, of those that are deep and long enough."""
    strength, middle = ridges(lightness)
    lines = (middle & (strength > _DEEP) & mask).astype(np.uint8)
    count, labels = cv2.connectedComponents(lines, connectivity=8)
    length = 0.0
    ys, xs = np.nonzero(labels)
    order = np.argsort(labels[ys, xs], kind="stable")
    ys, xs = ys[order], xs[order]
    starts = np.searchsorted(labels[ys, xs], np.arange(1, count + 1))
    for first, last in pairwise(starts):
        reach = np.hypot(np.ptp(xs[first:last]) + 1, np.ptp(ys[first:last]) + 1) if last > first else 0
        if reach >= _SHORT:
            length += float(reach)
    return length


def density(lightness: Floats, mask: Mask, unit: float) -> float:
    """How long the dark lines are by the mask's area, with ``unit`` pixels as the unit of length."""
    area = float(mask.sum())
    return line_length(lightness, mask) * unit / area if area else 0.0
