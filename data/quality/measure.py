"""The measures behind the quality verdict, each on the same small copy of the image."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from data.field import Field, find_field
from data.quality.profile import QualityProfile


@dataclass(frozen=True, slots=True)
class Measures:
    """What was measured. Fractions are of the pixels inside the field of view.

    ``sharpness`` see ``sharpness()``; ``exposure`` mean grey level; ``dark``, ``bright`` clipped fractions;
    ``contrast`` standard deviation of the grey levels; ``field`` the field of view's share of the frame, 0
    where none was found and 1 where none was looked for; ``side`` the shorter side of the image in pixels, as
    decoded.
    """

    sharpness: float
    exposure: float
    dark: float
    bright: float
    contrast: float
    field: float
    side: float

    def to_dict(self) -> dict[str, float]:
        """The scores by name."""
        return asdict(self)


def measure(rgb: NDArray[np.uint8], profile: QualityProfile, *, field: Field | None = None) -> Measures:
    """Measure an RGB image ``[H, W, 3]``. ``field`` saves the search where it is already known."""
    height, width = rgb.shape[:2]
    share = 1.0
    mask: NDArray[np.uint8] | None = None
    inside = rgb
    if profile.field != "none":
        field = field or find_field(rgb)
        share = float(np.count_nonzero(field.mask)) / field.mask.size if field.found else 0.0
        if field.found:
            inside = rgb[field.top : field.bottom, field.left : field.right]
    grey = cv2.cvtColor(_down(inside, profile.measure_size), cv2.COLOR_RGB2GRAY)
    if field is not None and field.found:
        mask = _inner(field, grey.shape[0], grey.shape[1])
    total = cv2.countNonZero(mask) if mask is not None else grey.size
    counts = cv2.calcHist([grey], [0], mask, [256], [0, 256]).ravel() / max(1, total)
    mean, spread = cv2.meanStdDev(grey, mask=mask)
    contrast = float(spread[0, 0])
    return Measures(
        sharpness=sharpness(grey, mask),
        exposure=float(mean[0, 0]),
        dark=float(counts[:6].sum()),
        bright=float(counts[250:].sum()),
        contrast=contrast,
        field=share,
        side=float(min(height, width)),
    )


def sharpness(grey: NDArray[Any], mask: NDArray[np.uint8] | None = None) -> float:
    """The Laplacian's spread over the picture's own, so that contrast cancels out."""
    detail = cv2.Laplacian(grey, cv2.CV_32F, ksize=3)
    fine = float(cv2.meanStdDev(detail, mask=mask)[1][0, 0])
    spread = float(cv2.meanStdDev(grey, mask=mask)[1][0, 0])
    return fine / (spread + 1.0)


def _down(rgb: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """The image with its shorter side at ``size``; a smaller one as it is."""
    height, width = rgb.shape[:2]
    scale = size / min(height, width)
    if scale >= 1:
        return rgb
    to = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(rgb, to, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def _inner(field: Field, height: int, width: int) -> NDArray[np.uint8]:
    """The field's mask on the measured copy, its rim left out: the rim is the sharpest edge there is."""
    full_height, full_width = field.mask.shape
    ys = field.box_on(full_width, full_height)
    part = field.mask[ys[1] : ys[3], ys[0] : ys[2]]
    mask = cv2.resize(part, (width, height), interpolation=cv2.INTER_NEAREST)
    reach = max(3, min(height, width) // 16) | 1
    return cv2.erode(
        mask, np.ones((reach, reach), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=255
    ).astype(np.uint8, copy=False)
