"""Skin tone by the individual typology angle (ITA), and how it is read off a photograph without landmarks.

ITA = arctan((L* - 50) / b*) in degrees, of the skin's colour in CIELAB (D65): large for light skin, negative
for dark. Chardon, Cretois and Hourseau 1991 (Int. J. Cosmet. Sci. 13, 191) for the first five classes, Del
Bino and Bernerd 2013 (Br. J. Dermatol. 169 Suppl. 3, 33) for the six.

A photograph's light is not a spectrophotometer's. The angle serves to compare figures between groups of
images, as Kinyanjui et al. 2020 (MICCAI, LNCS 12266, 320) did for HAM10000's skin around the lesion; it says
nothing about a person.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from data.field import find_field

#: Class and its least angle, lightest first.
TONES: tuple[tuple[str, float], ...] = (
    ("very_light", 55.0),
    ("light", 41.0),
    ("intermediate", 28.0),
    ("tan", 10.0),
    ("brown", -30.0),
    ("dark", -90.0),
)

#: Where an image's skin is looked for: nowhere, in its middle (a face, a patch), or around what is in its
#: middle (a lesion).
Place = Literal["none", "centre", "around"]
PLACES: tuple[str, ...] = get_args(Place)

# Pictures are looked at with their shorter side at this many pixels.
_SIDE = 96
# The ellipse that ``centre`` looks inside of and ``around`` outside of, as shares of the half sides.
_CENTRE, _LESION = 0.45, 0.7
# Skin, in CIELAB: its hue lies between red and yellow whatever the tone, and reaches into purple under a
# dermatoscope's lamp, where nothing else is around the lesion. Paler pixels are clothes, lamps and hairs.
_HUES = {"centre": (10.0, 85.0), "around": (-40.0, 95.0)}
_CHROMA = (4.0, 60.0)
_LIGHTNESS = (12.0, 96.0)
# With less skin than this in the place looked at, nothing is said.
_ENOUGH = 0.12


def ita(lightness: float, yellow: float) -> float:
    """The individual typology angle in degrees: arctan((L* - 50) / b*), from -90 to 90.

    Where b* isn't positive, as no skin's is in neutral light, the angle is ±90.
    """
    return math.degrees(math.atan2(lightness - 50, max(yellow, 0.0)))


def tone_name(angle: float) -> str:
    """The class of an individual typology angle."""
    return next(name for name, least in TONES if angle > least or name == TONES[-1][0])


def image_ita(rgb: NDArray[np.uint8], place: Place = "centre") -> float | None:
    """The angle of the skin in an image ``uint8 [H, W, 3]``.

    None where too little looks like skin, and where b* isn't positive: the angle has no meaning then.
    The median of the pixels that look like skin, without the darkest and lightest quarter of them: creases,
    hairs, shadows and highlights are in those.
    """
    if place == "none":
        return None
    scale = _SIDE / min(rgb.shape[:2])
    if scale < 1:
        size = (max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale)))
        rgb = np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)
    where = _place(rgb, place)
    lab = np.asarray(cv2.cvtColor(rgb.astype(np.float32) / np.float32(255), cv2.COLOR_RGB2Lab), np.float32)
    pixels = lab[where]
    hue = np.degrees(np.arctan2(pixels[:, 2], pixels[:, 1]))
    chroma = np.hypot(pixels[:, 1], pixels[:, 2])
    reddest, yellowest = _HUES[place]
    looks = (hue > reddest) & (hue < yellowest)
    looks &= (chroma > _CHROMA[0]) & (chroma < _CHROMA[1])
    looks &= (pixels[:, 0] > _LIGHTNESS[0]) & (pixels[:, 0] < _LIGHTNESS[1])
    skin = pixels[looks]
    if len(skin) < max(16.0, _ENOUGH * len(pixels)):
        return None
    low, high = np.percentile(skin[:, 0], (25, 75))
    lightness, _, yellow = np.median(skin[(skin[:, 0] >= low) & (skin[:, 0] <= high)], axis=0)
    # Bluer than grey, which no skin is in neutral light: the lamp's colour hides the skin's.
    return ita(float(lightness), float(yellow)) if yellow > 0 else None


def _place(rgb: NDArray[np.uint8], place: Place) -> NDArray[np.bool_]:
    """Where to look [H, W]: inside or outside of an ellipse, and inside of a dermatoscope's round field."""
    height, width = rgb.shape[:2]
    y, x = np.mgrid[:height, :width]
    across, down = (2 * x + 1) / width - 1, (2 * y + 1) / height - 1
    distance = np.hypot(across, down)
    if place == "centre":
        return np.asarray(distance < _CENTRE, np.bool_)
    field = find_field(rgb)
    outside = distance > _LESION
    if field.found:
        inside = np.zeros((height, width), np.bool_)
        box = field.inner_mask(field.right - field.left, field.bottom - field.top) > 0
        inside[field.top : field.bottom, field.left : field.right] = box
        outside &= inside
    return np.asarray(outside, np.bool_)
