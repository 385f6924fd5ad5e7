"""The measures behind the quality verdict, all on one small grey copy of what is inside the field of view."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from data.field import Field, find_field
from data.quality.profile import QualityProfile

# Grey levels. Added to the coarser band, so that noise in an empty picture doesn't count as detail.
_NOISE = 0.3
_DARK, _BRIGHT = 6, 250


@dataclass(frozen=True, slots=True)
class Measures:
    """What was measured; grey levels are 0 to 255, fractions 0 to 1 of the pixels inside the field of view.

    - ``sharpness``: see ``sharpness()``.
    - ``exposure``: the mean grey level; ``contrast``: the grey levels' standard deviation.
    - ``dark``, ``bright``: the fractions below 6 and from 250 on.
    - ``redness``: mean red over mean blue. A retina is above 1.4, whatever the camera.
    - ``field``: the share of the frame in the field of view's box; 0 where none was found, 1 where none was
      looked for.
    - ``side``: the image's shorter side in pixels, as decoded.
    """

    sharpness: float
    exposure: float
    contrast: float
    dark: float
    bright: float
    redness: float
    field: float
    side: float

    def to_dict(self) -> dict[str, float]:
        """The scores by name."""
        return asdict(self)


def measure(rgb: NDArray[np.uint8], profile: QualityProfile, *, field: Field | None = None) -> Measures:
    """Measure an RGB image ``[H, W, 3]``. ``field`` saves the search where it is already known."""
    height, width = rgb.shape[:2]
    share, side, mask, inside = 1.0, min(height, width), None, rgb
    if profile.field != "none":
        field = field or find_field(rgb)
        share = field.share
        if field.found:
            inside = rgb[field.top : field.bottom, field.left : field.right]
            # A model that is shown the field's square sees it at that square's scale.
            side = field.side if profile.field == "required" else side
    grey = cv2.cvtColor(inside, cv2.COLOR_RGB2GRAY).astype(np.uint8, copy=False)
    # A strip a thousand times as long as it is wide must not cost a second: its longer side is held down too.
    grey = _down(grey, min(profile.measure_size / side, 4 * profile.measure_size / max(grey.shape)))
    if field is not None and field.found:
        mask = field.inner_mask(grey.shape[1], grey.shape[0])
    counts = cv2.calcHist([grey], [0], mask, [256], [0, 256]).ravel()
    pixels = max(1.0, float(counts.sum()))
    mean, spread = cv2.meanStdDev(grey, mask=mask)
    red, _, blue, _ = cv2.mean(inside)
    return Measures(
        sharpness=sharpness(grey, mask),
        exposure=float(mean[0, 0]),
        contrast=float(spread[0, 0]),
        dark=float(counts[:_DARK].sum()) / pixels,
        bright=float(counts[_BRIGHT:].sum()) / pixels,
        redness=(red + 1) / (blue + 1),
        field=share,
        side=float(min(height, width)),
    )


def sharpness(grey: NDArray[np.uint8], mask: NDArray[np.uint8] | None = None) -> float:
    """How much detail there is at 1 to 2 pixels, against 2 to 4: a ratio, so that contrast and exposure
    cancel out.

    The bands are differences of Gaussians (sigma 0.7, 1.4, 2.8). Photographs in focus give 0.5 to 0.9 at the
    profiles' sizes, since natural pictures hold nearly as much in one octave as in the next; a blur empties
    the finer one first. Detail finer than a pixel, where a camera's noise is, isn't counted. See
    docs/quality.md.
    """
    levels = [cv2.GaussianBlur(grey.astype(np.float32), (0, 0), sigma) for sigma in (0.7, 1.4, 2.8)]
    fine, coarse = (
        float(cv2.meanStdDev(cv2.subtract(one, two), mask=mask)[1][0, 0]) for one, two in pairwise(levels)
    )
    return fine / (coarse + _NOISE)


def _down(grey: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
    """The image at ``scale``, area-averaged; never enlarged."""
    if scale >= 1:
        return grey
    to = (max(1, round(grey.shape[1] * scale)), max(1, round(grey.shape[0] * scale)))
    return cv2.resize(grey, to, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
