"""Shifts of photographs as a camera makes them, each stated exactly.

Every one takes a decoded photograph, uint8 RGB [H, W, 3], before the quality gate and the preprocessing.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]

#: The light that sRGB's white is.
NEUTRAL = 6500.0

# Linear sRGB (D65) from CIE XYZ: IEC 61966-2-1.
_FROM_XYZ = np.array(
    [
        [3.2404542, -1.5371385, -0.4985314],
        [-0.9692660, 1.8760108, 0.0415560],
        [0.0556434, -0.2040259, 1.0572252],
    ]
)


def blurred(picture: Picture, sigma: float, *, at: int = 224) -> Picture:
    """A Gaussian blur of ``sigma`` pixels of the photograph shrunk or grown to a width of ``at``."""
    own = sigma * picture.shape[1] / at
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), own, borderType=cv2.BORDER_REFLECT_101), np.uint8)


def under_light(picture: Picture, kelvin: float) -> Picture:
    """The photograph in light of ``kelvin`` where it was :data:`NEUTRAL`, its white balance unchanged.

    Gains on the channels in linear light (von Kries); white keeps its luminance.
    """
    gains = white(kelvin) / white(NEUTRAL)
    linear = _linear(np.arange(256) / 255.0)
    table = [np.rint(255 * _encoded(np.clip(linear * gain, 0, 1))) for gain in gains]
    return np.asarray(cv2.LUT(picture, np.stack(table, axis=1).astype(np.uint8)[None]), np.uint8)


def white(kelvin: float) -> NDArray[np.float64]:
    """Daylight of a correlated colour temperature as linear sRGB [3] of luminance 1.

    The CIE's daylight locus (CIE 15:2004, 3.1), for 4000 to 25000 K.
    """
    t = 1000.0 / kelvin
    if kelvin <= 7000:
        x = 0.244063 + t * (0.09911 + t * (2.9678 - t * 4.6070))
    else:
        x = 0.237040 + t * (0.24748 + t * (1.9018 - t * 2.0064))
    y = -3.000 * x * x + 2.870 * x - 0.275
    return np.asarray(_FROM_XYZ @ np.array([x / y, 1.0, (1.0 - x - y) / y]))


def _linear(encoded: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def _encoded(linear: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
