"""Masks: which pixels of an image are the defect. Stored as they came, read as true or false."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from data.errors import NotAnImage
from data.image import STORED_LIMITS, DecodeLimits, decode, read_header
from data.image_header import ImageHeader
from data.preprocess import Preprocessing

#: Formats that keep every pixel's value. A lossy one would put faint marks around each defect.
LOSSLESS = ("png", "bmp", "tiff", "gif")


def mask_header(data: bytes, limits: DecodeLimits | None = None) -> ImageHeader:
    """A mask file's header; :class:`data.errors.ImageError` when it is no lossless image within limits."""
    header = read_header(data, limits)
    if header.format not in LOSSLESS:
        raise NotAnImage(
            f"A mask must be in a lossless format, not {header.format}.", hint=f"Use {', '.join(LOSSLESS)}."
        )
    return header


def read_mask(data: bytes, limits: DecodeLimits | None = STORED_LIMITS) -> NDArray[np.bool_]:
    """A mask file as bool [H, W]: true wherever any channel is above zero. Raises as ``data.image``."""
    mask_header(data, limits)
    return np.asarray(decode(data, limits).any(axis=2), bool)


def fit_mask(
    mask: NDArray[np.bool_], preprocessing: Preprocessing, rgb: NDArray[np.uint8] | None = None
) -> NDArray[np.bool_]:
    """A mask as the model's input shows its image, bool [h, w] of ``preprocessing.size``.

    A pixel counts as marked when at least half of what it shows is. Where that leaves nothing of a mask (a
    scratch a pixel wide in a large photograph), every pixel that shows any of it counts. ``rgb`` is the image
    itself, which ``crop: fundus`` needs to find its field.
    """
    plain = Preprocessing(size=preprocessing.size, crop=preprocessing.crop, fit=preprocessing.fit)
    field = None
    if plain.crop == "fundus" and rgb is not None:
        from data.field import find_field

        field = find_field(rgb)
        if rgb.shape[:2] != mask.shape:  # a JPEG may have been decoded at a half of its size
            mask = cv2.resize(mask.astype(np.uint8), rgb.shape[1::-1], interpolation=cv2.INTER_NEAREST) > 0
    shown = plain(np.repeat(mask.astype(np.uint8)[..., None] * 255, 3, axis=2), field=field)[..., 0]
    fitted: NDArray[np.bool_] = shown >= 128
    return fitted if fitted.any() or not shown.any() else shown > 0
