"""Set a profile's sharpness threshold from pairs: a photograph in focus, and the same one blurred."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from data.errors import UsageError
from data.quality.gate import judge
from data.quality.measure import measure
from data.quality.profile import QualityProfile

# Below this the blur doesn't show at the size that is measured, and no threshold would mean anything.
_LEAST_AUC = 0.95
_FEWEST = 20


@dataclass(frozen=True, slots=True)
class Separation:
    """How one kind of blurred copy compares. ``auc``: the chance that a sharp image measures sharper than a
    copy.

    ``rejected_before`` and ``rejected``: the shares not gradable by the profile given and by the one
    calibrated.
    """

    auc: float
    rejected_before: float
    rejected: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a calibration found. ``profile`` is the one given with a new ``min_sharpness``, where the blur
    shows.

    ``gradable_before``, ``gradable``: shares of the images as they are. ``reasons``: why the rest isn't, by
    the new profile.
    """

    profile: QualityProfile
    images: int
    sigma: float
    changed: bool
    threshold_before: float
    gradable_before: float
    gradable: float
    reasons: dict[str, int]
    blurred: Separation
    blurred_noisy: Separation

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def blur(rgb: NDArray[np.uint8], sigma: float) -> NDArray[np.uint8]:
    """Blur by a Gaussian of ``sigma`` pixels as they would be with the shorter side at 224."""
    return cv2.GaussianBlur(rgb, (0, 0), sigma * min(rgb.shape[:2]) / 224).astype(np.uint8, copy=False)


def add_noise(rgb: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    """What a camera adds after the lens has blurred: noise, and JPEG at quality 80.

    The noise is 3 grey levels at 448 pixels; a smaller picture was averaged down, and its noise with it.
    """
    level = 3 * min(1.0, min(rgb.shape[:2]) / 448)
    noisy = rgb + np.random.default_rng(seed).normal(0, level, rgb.shape)
    pixels = np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
    encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 80])[1]
    decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR_BGR)
    if decoded is None:
        raise RuntimeError("OpenCV can't read the JPEG that it has just written.")
    return decoded.astype(np.uint8, copy=False)


def calibrate(
    images: Iterable[NDArray[np.uint8]],
    profile: QualityProfile,
    *,
    sigma: float = 3.0,
    keep: float = 0.98,
    name: str | None = None,
) -> Calibration:
    """Set ``min_sharpness`` from RGB images that are in focus, and their copies blurred by ``sigma`` (see
    ``blur``).

    The threshold is midway between the copies' 99th percentile and the value that ``keep`` of the images
    exceed; where the two overlap it is the latter, so that good photographs are never traded for bad ones.
    Raises ``UsageError`` for fewer than 20 images.
    """
    sharp, blurred, noisy = [], [], []
    for seed, rgb in enumerate(images):
        sharp.append(measure(rgb, profile))
        soft = blur(rgb, sigma)
        blurred.append(measure(soft, profile))
        noisy.append(measure(add_noise(soft, seed), profile))
    if len(sharp) < _FEWEST:
        raise UsageError(
            f"{len(sharp)} images are too few to calibrate on.", hint=f"Give at least {_FEWEST}."
        )
    scores = np.array([each.sharpness for each in sharp])
    copies = np.array([each.sharpness for each in blurred])
    changed = auc(scores, copies) >= _LEAST_AUC
    threshold = profile.min_sharpness
    if changed:
        kept, below = float(np.quantile(scores, 1 - keep)), float(np.quantile(copies, 0.99))
        threshold = round((kept + below) / 2 if below < kept else kept, 3)
    new = replace(profile, name=name or f"{profile.name}-calibrated", min_sharpness=threshold)

    def failing(each: list[Any], by: QualityProfile) -> float:
        return sum(judge(one, by).verdict != "gradable" for one in each) / len(each)

    def separation(each: list[Any]) -> Separation:
        values = np.array([one.sharpness for one in each])
        return Separation(auc(scores, values), failing(each, profile), failing(each, new))

    return Calibration(
        profile=new,
        images=len(sharp),
        sigma=sigma,
        changed=changed,
        threshold_before=profile.min_sharpness,
        gradable_before=1 - failing(sharp, profile),
        gradable=1 - failing(sharp, new),
        reasons=dict(Counter(reason for one in sharp for reason in judge(one, new).reasons)),
        blurred=separation(blurred),
        blurred_noisy=separation(noisy),
    )


def auc(higher: NDArray[np.float64], lower: NDArray[np.float64]) -> float:
    """The chance that a value of ``higher`` exceeds one of ``lower``, ties counting half.

    >>> auc(np.array([2.0, 3.0]), np.array([1.0, 2.0]))
    0.875
    """
    ordered = np.sort(lower)
    below = np.searchsorted(ordered, higher, side="left") + np.searchsorted(ordered, higher, side="right")
    return float(below.mean() / (2 * len(ordered)))
