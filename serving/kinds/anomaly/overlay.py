"""Distances as colours over the image that the model saw, with the outlines of the regions."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from serving.core.patchcore.score import PICTURE_PERCENTILES, anomaly_map
from serving.explain import coloured, encode_png

# Colour begins at the first of these, in thresholds, and is full at the second: the threshold is in the
# middle, and an image that is as the OK ones are stays as it is, whatever its own highest place is.
_FROM, _TO = 0.5, 1.5

_OUTLINE = (255, 255, 255)


def overlay_png(
    pixels: NDArray[np.uint8],
    distances: NDArray[np.float32],
    blur_sigma: float,
    threshold: float | None,
    outlines: Sequence[NDArray[np.int32]],
) -> bytes:
    """The model's input ``pixels`` uint8 RGB [H, W, 3] with ``distances`` [Ht, Wt] coloured, as a PNG.

    Without a threshold the colours span the image's own 1–99 % range, as S4's picture does: they show where,
    not how much. ``outlines`` are pixels (x, y), [n, 2] each.
    """
    height, width = pixels.shape[:2]
    full = anomaly_map(distances, (height, width), blur_sigma)
    picture = coloured(pixels, _heat(full, threshold))
    if outlines:
        if picture is pixels:
            picture = pixels.copy()
        cv2.drawContours(picture, [outline.reshape(-1, 1, 2) for outline in outlines], -1, _OUTLINE, 1)
    return encode_png(picture)


def _heat(full: NDArray[np.float32], threshold: float | None) -> NDArray[np.float32]:
    if threshold is None:
        low, high = (float(value) for value in np.percentile(full, PICTURE_PERCENTILES))
    else:
        low, high = _FROM * threshold, _TO * threshold
    if not high > low:
        return np.zeros_like(full)
    heat: NDArray[np.float32] = np.clip((full - low) / (high - low), 0.0, 1.0).astype(np.float32)
    return heat
