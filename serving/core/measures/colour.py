"""Measures of colour, in CIELAB (D65) as the photograph shows it: skin tone, redness, dark circles, shine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data.tone import ita, tone_name
from serving.core.measures.patch import Mask, Patch, Planes

CHEEKS = ("right_cheek", "left_cheek")
# Where skin is bare in most people and neither shaded nor reddened by its place.
TONE_REGIONS = (*CHEEKS, "forehead")
SHINE_REGIONS = ("forehead", "nose", *CHEEKS)

# A photograph whose skin has less colour than this anywhere is a grey one.
_GREY_CHROMA = 3.0
# Skin has more b* than this in any light that its tone can be told in.
_LEAST_YELLOW = 2.0
# The forehead is hair or a hat when it is further than this from the cheeks.
_COVERED = 25.0
# A highlight is so much lighter than the region's middle, and has lost so much of its colour.
_LIGHTER, _PALER = 9.0, 0.8


@dataclass(frozen=True, slots=True)
class Tone:
    """Skin tone: the individual typology angle in degrees, its class, and the skin's median L*, a*, b*."""

    ita: float
    name: str
    lab: tuple[float, float, float]


def is_grey(patch: Patch) -> bool:
    """Whether the photograph has no colour, so that nothing about colour can be said."""
    skin = patch.pixels(*TONE_REGIONS, "nose", "chin")
    return not len(skin) or float(np.percentile(np.hypot(skin[:, 1], skin[:, 2]), 95)) < _GREY_CHROMA


def covered(patch: Patch) -> bool:
    """Whether the forehead isn't bare skin: its colour is not that of the cheeks."""
    forehead, cheeks = patch.pixels("forehead"), patch.pixels(*CHEEKS)
    return bool(len(forehead) and len(cheeks)) and delta_e(middle(forehead), middle(cheeks)) > _COVERED


def middle(pixels: Planes) -> NDArray[np.float64]:
    """The median L*, a*, b* ``[3]`` of pixels ``[N, 3]``, without their darkest and lightest quarters.

    Creases, hairs and highlights are in those.
    """
    low, high = np.percentile(pixels[:, 0], (25, 75))
    kept = pixels[(pixels[:, 0] >= low) & (pixels[:, 0] <= high)]
    return np.asarray(np.median(kept, axis=0), np.float64)


def delta_e(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """The distance of two colours in CIELAB, ΔE*ab of 1976. 2.3 is about what an eye just sees."""
    return float(np.linalg.norm(one - other))


def skin_tone(patch: Patch) -> Tone | None:
    """The tone of cheeks and forehead; none where neither is in the picture, or hardly any yellow is in them.

    No skin is grey or blue in neutral light: the lamp's colour hides the skin's, and the angle, ±90 degrees
    there, has no meaning.
    """
    pixels = patch.pixels(*TONE_REGIONS)
    if not len(pixels):
        return None
    lightness, red, yellow = (float(value) for value in middle(pixels))
    if yellow < _LEAST_YELLOW:
        return None
    angle = ita(lightness, yellow)
    return Tone(angle, tone_name(angle), (lightness, red, yellow))


def redness(patch: Patch) -> float | None:
    """The median a* of cheeks and nose: the CIE's red-green axis, which rises with erythema."""
    pixels = patch.pixels(*CHEEKS, "nose")
    return float(middle(pixels)[1]) if len(pixels) else None


def dark_circles(patch: Patch) -> float | None:
    """ΔE*ab of the skin under the eyes from the cheek below: the sides' mean, 0 for one that isn't darker."""
    sides = []
    for side in ("right", "left"):
        under, cheek = patch.pixels(f"{side}_under_eye"), patch.pixels(f"{side}_cheek")
        if len(under) and len(cheek):
            below, beside = middle(under), middle(cheek)
            sides.append(delta_e(below, beside) if below[0] < beside[0] else 0.0)
    return sum(sides) / len(sides) if sides else None


def highlights(patch: Patch, *names: str) -> float | None:
    """The share of the regions' pixels that are highlights, each region judged by its own middle.

    A highlight is the lamp's light thrown back by the surface, not the skin's: lighter than the skin around,
    and paler, since the lamp's white is mixed in (the dichromatic model, Shafer 1985).
    """
    shining, all_pixels = 0, 0
    for name in names:
        pixels = patch.pixels(name)
        if len(pixels):
            shining += int(_highlight(pixels).sum())
            all_pixels += len(pixels)
    return shining / all_pixels if all_pixels else None


def _highlight(pixels: Planes) -> Mask:
    lightness, *colour = middle(pixels)
    chroma = np.hypot(pixels[:, 1], pixels[:, 2])
    found = (pixels[:, 0] > lightness + _LIGHTER) & (chroma < _PALER * np.hypot(*colour))
    return np.asarray(found, np.bool_)
