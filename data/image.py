"""From the bytes of an image file to upright RGB pixels, safely.

Bytes and pixels are limited from the header, before anything is decoded. What comes out is always ``uint8 [H,
W, 3]`` in RGB, turned upright by the EXIF orientation:

- grey and palette images are spread to three channels, CMYK is converted;
- 16-bit samples are scaled to 8 bits (65535 → 255), never cut;
- alpha is dropped: the colours are those stored, whatever their opacity, like Pillow's ``convert("RGB")``;
- of an animation or a multi-page file it is the first frame;
- a file that ends too soon is an error, never a picture with a grey lower half. Bytes changed in the middle
  of a JPEG's data can't be told from a picture; only a recorded digest finds those.
"""

from __future__ import annotations

import os

# A second line only, read when OpenCV is imported: the header is what we judge by.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(1 << 28))

import cv2
import numpy as np
from numpy.typing import NDArray

from data.errors import NotAnImage
from data.image_header import STORED_LIMITS, DecodeLimits, ImageHeader, damaged, jpeg_scans, read_header

__all__ = ["STORED_LIMITS", "DecodeLimits", "ImageHeader", "decode", "read_header"]

if "OPENCV_LOG_LEVEL" not in os.environ:
    # Our errors say what is wrong with an image; a client that sends bad ones must not fill the log as well.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

# Each scan of a progressive JPEG is a pass over the whole picture; a normal one has about ten.
_MAX_JPEG_SCANS = 100
_REDUCED = {
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}


def decode(
    data: bytes, limits: DecodeLimits | None = None, *, min_side: int | None = None, upright: bool = True
) -> NDArray[np.uint8]:
    """Decode to RGB ``[H, W, 3]``, upright.

    ``min_side`` lets a JPEG be decoded at a half, a quarter or an eighth of its size (several times faster)
    as long as its shorter side stays at least that long; other formats ignore it. Without ``upright`` the
    pixels stay as they are stored, whatever the EXIF orientation says (a TIFF is turned all the same).

    Raises ``ImageTooLarge``, ``NotAnImage`` or ``ImageDamaged``, and nothing else whatever the bytes are.
    """
    header = read_header(data, limits)
    kind = header.format
    if kind == "jpeg":
        if jpeg_scans(data, _MAX_JPEG_SCANS) > _MAX_JPEG_SCANS:
            raise damaged(kind, f"it has more than {_MAX_JPEG_SCANS} scans")
        flags = cv2.IMREAD_COLOR_RGB | _REDUCED.get(_reduction(header, min_side), 0)
    elif kind == "png":
        flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_ANYDEPTH
    elif kind == "tiff":
        # OpenCV 5.0 scrambles a 16-bit colour TIFF that it is asked for in RGB.
        flags = cv2.IMREAD_COLOR_BGR | cv2.IMREAD_ANYDEPTH
    else:
        flags = cv2.IMREAD_COLOR_RGB
    if not upright:
        flags |= cv2.IMREAD_IGNORE_ORIENTATION
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        pixels = None
    if pixels is None:
        raise damaged(kind, "it can't be decoded whole")
    if kind == "tiff":
        pixels = pixels[..., ::-1]
    if pixels.dtype == np.uint16:
        # Rounded, not shifted, and in one pass: in numpy it would take ten times the picture's memory.
        pixels = cv2.convertScaleAbs(pixels, alpha=255 / 65535)
    if pixels.dtype != np.uint8:
        raise NotAnImage(
            f"The {kind.upper()} image holds samples of type {pixels.dtype}.",
            hint="Export it with 8 or 16 bits a channel.",
        )
    return np.ascontiguousarray(pixels, np.uint8)


def _reduction(header: ImageHeader, min_side: int | None) -> int:
    """By how much a JPEG may be reduced: 1, 2, 4 or 8. A reduced side is rounded up."""
    if min_side is None:
        return 1
    shorter = min(header.width, header.height)
    return next((factor for factor in (8, 4, 2) if -(-shorter // factor) >= min_side), 1)
