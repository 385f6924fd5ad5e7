"""The verdict on one photograph, and the one call that makes a model's input of a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from data.field import Field, find_field
from data.image import DecodeLimits
from data.preprocess import Preprocessing
from data.quality.measure import Measures, measure
from data.quality.profile import QualityProfile

Verdict = Literal["gradable", "retake", "ungradable"]

# Here the file isn't the kind of picture that it should be; the other faults more care with the camera mends.
UNGRADABLE = frozenset({"too_small", "blank", "no_field_of_view", "unexpected_colour"})


@dataclass(frozen=True, slots=True)
class QualityVerdict:
    """``reasons`` are stable codes, the gravest first; ``scores`` the measures behind them."""

    verdict: Verdict
    reasons: tuple[str, ...]
    scores: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A model's input ``uint8 [H, W, 3]`` and the verdict on its photograph (None without a profile).

    ``decoded`` is (height, width) of the pixels that it was made of, and ``field`` the field of view in them
    where one was looked for: what ``data.placement`` needs.
    """

    pixels: NDArray[np.uint8]
    verdict: QualityVerdict | None
    decoded: tuple[int, int]
    field: Field | None


def assess(rgb: NDArray[np.uint8], profile: QualityProfile) -> QualityVerdict:
    """Judge an RGB image ``[H, W, 3]``."""
    return judge(measure(rgb, profile), profile)


def judge(measures: Measures, profile: QualityProfile) -> QualityVerdict:
    """Hold measures against a profile."""
    checks = (
        ("too_small", measures.side < profile.min_side),
        ("blank", measures.contrast < profile.blank_contrast),
        ("no_field_of_view", profile.field == "required" and measures.field == 0.0),
        ("unexpected_colour", measures.redness < profile.min_redness),
        ("blurred", measures.sharpness < profile.min_sharpness),
        ("too_dark", measures.exposure < profile.min_exposure),
        ("too_bright", measures.exposure > profile.max_exposure),
        ("dark_clipped", measures.dark > profile.max_dark),
        ("bright_clipped", measures.bright > profile.max_bright),
        ("low_contrast", measures.contrast < profile.min_contrast),
    )
    reasons = tuple(code for code, failed in checks if failed)
    verdict: Verdict = "gradable"
    if reasons:
        verdict = "ungradable" if UNGRADABLE.intersection(reasons) else "retake"
    return QualityVerdict(verdict, reasons, measures.to_dict())


def prepare(
    data: bytes,
    preprocessing: Preprocessing,
    profile: QualityProfile | None = None,
    limits: DecodeLimits | None = None,
) -> Prepared:
    """Decode, judge and preprocess one image file, each step once; training and serving both call this.

    Pixels are made whatever the verdict is: the caller decides what to do with a photograph that isn't
    gradable. Raises what ``data.image.decode`` raises.
    """
    rgb = preprocessing.decode(data, limits)
    wanted = preprocessing.crop == "fundus" or (profile is not None and profile.field != "none")
    field = find_field(rgb) if wanted else None
    verdict = judge(measure(rgb, profile, field=field), profile) if profile is not None else None
    return Prepared(preprocessing(rgb, field=field), verdict, (rgb.shape[0], rgb.shape[1]), field)
