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
# Shorter lines are pores, hairs and noise. In pixels at 256; the eyes are about 66 apart.
_SHORT = 10


def ridges(lightness: Floats) -> tuple[Floats, Mask]:
    """How strongly each pixel of L* ``[H, W]`` lies in a dark line, and whether it is on the line's middle.

    At each scale the Hessian matrix of the blurred lightness is taken times the scale squared (Lindeberg 1998,
    Int. J. Comput. Vis. 30, 117). Its larger eigenvalue is the one across a dark line; the other one's size is
    taken off, so that spots don't count (after Frangi et al. 1998). The middle is where the strength is
    largest across.
    """
    strength = np.zeros(lightness.shape, np.float32)
    angle = np.zeros(lightness.shape, np.float32)
    for scale in _SCALES:
        blurred = cv2.GaussianBlur(lightness, (0, 0), scale)
        down, right = np.gradient(blurred)
        (yy, yx), (_, xx) = np.gradient(down), np.gradient(right)
        half, twist = (xx + yy) / 2, np.hypot((xx - yy) / 2, yx)
        larger, smaller = half + twist, half - twist
        here = (scale * scale * (larger - np.abs(smaller))).astype(np.float32)
        better = here > strength
        strength[better] = here[better]
        angle[better] = (0.5 * np.arctan2(2 * yx, xx - yy))[better].astype(np.float32)
    y, x = np.mgrid[: lightness.shape[0], : lightness.shape[1]].astype(np.float32)
    across = [
        cv2.remap(strength, x + way * np.cos(angle), y + way * np.sin(angle), cv2.INTER_LINEAR)
        for way in (-1, 1)
    ]
    return strength, (strength > across[0]) & (strength >= across[1])


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
