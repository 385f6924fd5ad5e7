"""Every measure of one face in one call."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from data.errors import RequestError
from serving.core.face.answer import Face
from serving.core.measures.answer import UNKNOWN, Measures
from serving.core.measures.balance import white_balance
from serving.core.measures.colour import (
    CHEEKS,
    SHINE_REGIONS,
    TONE_REGIONS,
    covered,
    dark_circles,
    highlights,
    is_grey,
    redness,
    skin_tone,
)
from serving.core.measures.patch import Patch, to_lab, upright
from serving.core.measures.texture import detail, homogeneity, levels, local_entropy
from serving.core.measures.wrinkles import density

# A face enlarged by more than this has lost the detail that texture and wrinkles are measured on.
ENLARGED_MOST = 1.3
WRINKLE_REGIONS = ("forehead", "right_under_eye", "left_under_eye", *CHEEKS)

_GREY = "the photograph has no colour"
_SMALL = "the face is too small in the photograph to show fine detail"
_CLOSE = "too little around the face to estimate the light's colour from"
_BLUE = "in this light the skin looks grey or blue"
_UNSEEN = "the part of the face that it is measured on is not in the picture"


def measure_face(rgb: NDArray[np.uint8], face: Face) -> Measures:
    """Measure the skin of ``face``, found in ``rgb`` ``uint8 [H, W, 3]``.

    Raises:
        RequestError: the array is no such picture.
    """
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or not rgb.size:
        raise RequestError(
            f"A picture is uint8 [H, W, 3], not {rgb.dtype} {list(rgb.shape)}.",
            hint="Give the picture that the face was found in.",
        )
    patch = upright(rgb, face)
    if covered(patch):
        patch = patch.without("forehead")
    balance = white_balance(rgb, face)
    numbers: dict[str, float | None] = {}
    missing: dict[str, str] = {}
    tone = UNKNOWN
    if is_grey(patch):
        colours = ("ita", "ita_balanced", "redness", "shine", "shine_t_zone", "shine_cheeks")
        missing |= dict.fromkeys(colours, _GREY)
    else:
        found = skin_tone(patch)
        if found:
            tone, numbers["ita"] = found.name, found.ita
            numbers["redness"] = redness(patch)
        if balance.reliable:
            neutral = balance.apply(patch.rgb)
            other = skin_tone(dataclasses.replace(patch, rgb=neutral, lab=to_lab(neutral)))
            numbers["ita_balanced"] = other.ita if other else None
        if patch.mask(*TONE_REGIONS).any():
            missing |= dict.fromkeys(("ita", "ita_balanced", "redness"), _BLUE)
            if not balance.reliable:
                missing["ita_balanced"] = _CLOSE
        numbers["shine"] = highlights(patch, *SHINE_REGIONS)
        numbers["shine_t_zone"] = highlights(patch, "forehead", "nose")
        numbers["shine_cheeks"] = highlights(patch, *CHEEKS)
    numbers["dark_circles"] = dark_circles(patch)
    if patch.enlarged > ENLARGED_MOST:
        missing |= dict.fromkeys(("texture_entropy", "texture_homogeneity", "wrinkle_density"), _SMALL)
    else:
        numbers |= _fine(patch)
    names = ("ita", "ita_balanced", "redness", "shine", "shine_t_zone", "shine_cheeks", "dark_circles")
    for name in (*names, "texture_entropy", "texture_homogeneity", "wrinkle_density"):
        if numbers.setdefault(name, None) is None:
            missing.setdefault(name, _UNSEEN)
        else:
            missing.pop(name, None)
    return Measures(tone=tone, white_balance=balance, missing=missing, **numbers)


def _fine(patch: Patch) -> dict[str, float | None]:
    """Texture and wrinkles, on lightness."""
    lightness = np.ascontiguousarray(patch.lab[..., 0])
    skin, creased = patch.mask(*TONE_REGIONS), patch.mask(*WRINKLE_REGIONS)
    values = levels(detail(lightness))
    return {
        "texture_entropy": local_entropy(values, skin) if skin.any() else None,
        "texture_homogeneity": homogeneity(values, skin) if skin.any() else None,
        "wrinkle_density": density(lightness, creased, patch.eye_distance) if creased.any() else None,
    }
