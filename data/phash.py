"""The perceptual hash of an image, and all pairs of near hashes in one array operation.

The hash is ``imagehash.phash`` with its default settings, bit for bit (a test holds it to that), written on
NumPy alone: it runs for every image of an ingest.
"""

from __future__ import annotations

import functools

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

_SIDE = 32
_KEEP = 8


@functools.cache
def _basis() -> NDArray[np.float64]:
    """The first eight rows of the 32-point DCT-II."""
    frequency = np.arange(_KEEP)[:, None]
    place = np.arange(_SIDE)[None, :]
    return 2 * np.cos(np.pi * frequency * (2 * place + 1) / (2 * _SIDE))


def phash(rgb: NDArray[np.uint8]) -> str:
    """16 hex digits for an RGB image ``[H, W, 3]``."""
    height, width = rgb.shape[:2]
    if min(height, width) > 8 * _SIDE:
        # Brought near the final size by areas first: Pillow's filter over a whole photograph is slow.
        scale = 4 * _SIDE / min(height, width)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        rgb = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    grey = Image.fromarray(rgb).convert("L").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    basis = _basis()
    low = basis @ np.asarray(grey, np.float64) @ basis.T
    ranked = np.sort(low, axis=None)
    median = (ranked[31] + ranked[32]) / 2
    return np.packbits(low.ravel() > median).tobytes().hex()


def near_pairs(hashes: list[str], limit: int, *, block: int = 512) -> NDArray[np.int64]:
    """Index pairs ``[P, 2]``, first below second, whose hashes differ in at most ``limit`` of 64 bits.

    All pairs, exactly: XOR and popcount on 64-bit words, in blocks, so that memory stays small.
    """
    words = np.array([int(text, 16) for text in hashes], np.uint64)
    found = []
    for start in range(0, len(words), block):
        left = words[start : start + block]
        distance = np.bitwise_count(left[:, None] ^ words[None, start:])
        rows, columns = np.nonzero(distance <= limit)
        keep = columns > rows
        found.append(np.stack([rows[keep] + start, columns[keep] + start], axis=1))
    return np.concatenate(found) if found else np.empty((0, 2), np.int64)
