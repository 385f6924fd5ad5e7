"""The light's colour, estimated from the picture around the face."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from serving.core.face.answer import Face

# The Minkowski norm of "shades of grey": 1 would be the grey world, infinity the brightest patch.
_NORM = 6
# Pictures are looked at with their longer side at this size.
_SIDE = 256
# Clipped and nearly black pixels tell nothing about the light's colour.
_BLACK, _CLIPPED = 5, 250
# With less than this share of the picture to go by, the estimate says more about the face than the light.
_ENOUGH = 0.15


@dataclass(frozen=True, slots=True)
class WhiteBalance:
    """The light's colour as estimated.

    - ``gains``: what linear red, green and blue must be multiplied by to make the light neutral; green is 1.
    - ``cast``: degrees between the light's linear RGB and grey. 0 is neutral; under 3 is hardly seen.
    - ``share``: the share of the picture that it was estimated from; ``reliable`` says whether it is enough.
    """

    gains: tuple[float, float, float]
    cast: float
    share: float
    reliable: bool

    def apply(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The picture as it would be in neutral light (von Kries' rule on linear RGB)."""
        linear = _linear(rgb) * np.asarray(self.gains, np.float32)
        small = linear * 12.92
        curved = 1.055 * np.power(np.maximum(linear, 0.0031308), 1 / 2.4) - 0.055
        values = np.where(linear <= 0.0031308, small, curved)
        return np.asarray(np.clip(np.round(values * 255), 0, 255), np.uint8)


def white_balance(rgb: NDArray[np.uint8], face: Face) -> WhiteBalance:
    """Estimate the light's colour from what is not the face (Finlayson and Trezzi 2004, "Shades of grey").

    It supposes that the surroundings are grey on the whole. In front of a coloured wall they aren't, which
    nothing in the picture tells: the estimate is reported, and no measure is changed by it.
    """
    scale = min(1.0, _SIDE / max(rgb.shape[:2]))
    size = (max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale)))
    small = np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)
    usable = (small.max(axis=2) < _CLIPPED) & (small.max(axis=2) > _BLACK)
    left, top, side = (int(value * scale) for value in face.square(0.25))
    usable[max(0, top) : max(0, top + side), max(0, left) : max(0, left + side)] = False
    share = float(usable.mean())
    if share < _ENOUGH:
        usable = (small.max(axis=2) < _CLIPPED) & (small.max(axis=2) > _BLACK)
    pixels = _linear(small)[usable].astype(np.float64)
    if not len(pixels):
        return WhiteBalance((1.0, 1.0, 1.0), 0.0, 0.0, reliable=False)
    light = np.maximum(np.mean(pixels**_NORM, axis=0) ** (1 / _NORM), 1e-6)
    cosine = light.sum() / (np.linalg.norm(light) * np.sqrt(3))
    red, _, blue = (float(light[1] / value) for value in light)
    cast = float(np.degrees(np.arccos(min(1.0, cosine))))
    return WhiteBalance((red, 1.0, blue), cast, share, reliable=share >= _ENOUGH)


def _linear(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """sRGB's curve undone: linear RGB, 0 to 1."""
    values = np.arange(256, dtype=np.float64) / 255
    table = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return np.asarray(table.astype(np.float32)[rgb], np.float32)
