"""Measures of the skin's texture, on lightness at one size: local entropy, and co-occurrence of levels."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from serving.core.measures.patch import Mask

Levels = NDArray[np.intp]

# Texture is what is coarser than a pixel, so that noise and the photograph's own sharpness hardly count, and
# finer than this, so that the face's shading doesn't (standard deviations of Gaussians, pixels at 256).
_FINE, _COARSE = 1.2, 8.0
# Levels of one L* each around 0; what is beyond falls into the outer ones.
LEVELS = 16
# Pixels a side of the neighbourhood whose entropy is taken.
_WINDOW = 9
# Pixels between the two whose levels are compared, in four directions.
_STEPS = ((0, 2), (2, 0), (2, 2), (2, -2))


def detail(lightness: NDArray[np.float32]) -> NDArray[np.float32]:
    """What of L* ``[H, W]`` is texture: a band of sizes."""
    fine = cv2.GaussianBlur(lightness, (0, 0), _FINE)
    return np.asarray(fine - cv2.GaussianBlur(lightness, (0, 0), _COARSE), np.float32)


def levels(band: NDArray[np.float32]) -> Levels:
    """A band as whole numbers 0 to 15, one L* each; 0 L* is in the middle of level 8."""
    return np.asarray(np.clip(np.floor(band + 0.5).astype(np.intp) + LEVELS // 2, 0, LEVELS - 1), np.intp)


def local_entropy(values: Levels, mask: Mask) -> float:
    """The mean Shannon entropy, in bits, of the levels in a 9 x 9 neighbourhood, over the mask's pixels.

    From 0, one level everywhere, to 4, all sixteen alike often. Only the mask's pixels count as neighbours.
    """
    size = (_WINDOW, _WINDOW)
    border = cv2.BORDER_CONSTANT
    inside = mask.astype(np.float32)
    total = cv2.boxFilter(inside, -1, size, normalize=False, borderType=border)[mask]
    entropy = np.zeros(total.shape, np.float64)
    for level in range(LEVELS):
        here = ((values == level) & mask).astype(np.float32)
        count = cv2.boxFilter(here, -1, size, normalize=False, borderType=border)[mask]
        share = np.clip(count / total, 1e-12, 1)
        entropy -= np.where(count > 0.5, share * np.log2(share), 0)
    return float(entropy.mean())


def homogeneity(values: Levels, mask: Mask) -> float:
    """The co-occurrence matrix's inverse difference moment, the mean of four directions at two pixels.

    From 1, neighbours always alike, down. Haralick, Shanmugam and Dinstein 1973 (IEEE Trans. SMC 3, 610),
    their fifth feature: the sum over p(i, j) / (1 + (i - j)²).
    """
    found = []
    for down, right in _STEPS:
        matrix = co_occurrence(values, mask, down, right)
        if matrix.sum():
            apart = np.subtract.outer(np.arange(LEVELS), np.arange(LEVELS))
            found.append(float((matrix / matrix.sum() / (1 + apart**2)).sum()))
    return sum(found) / len(found) if found else 1.0


def co_occurrence(values: Levels, mask: Mask, down: int, right: int) -> NDArray[np.intp]:
    """How often each two levels lie ``down`` (0 or more) and ``right`` pixels apart, both in the mask.

    ``[16, 16]``, counted both ways, so symmetric.
    """
    height, width = values.shape
    here = (slice(0, height - down), slice(max(0, -right), width - max(0, right)))
    there = (slice(down, height), slice(max(0, right), width + min(0, right)))
    both = mask[here] & mask[there]
    codes = values[here][both] * LEVELS + values[there][both]
    matrix = np.bincount(codes, minlength=LEVELS * LEVELS).reshape(LEVELS, LEVELS)
    return np.asarray(matrix + matrix.T, np.intp)
