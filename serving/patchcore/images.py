"""From the bytes of a region's image to RGB pixels that lie where the client put them."""

from __future__ import annotations

import base64

import cv2
import numpy as np
from numpy.typing import NDArray

from data.errors import ImageDamaged, NotAnImage, ServingError
from data.image import DecodeLimits, ImageHeader, decode, read_header

# PNG and JPEG are the contract's, BMP is what the old GUI could send besides. A TIFF would be turned by its
# orientation tag whatever is asked, and the others nobody sends.
FORMATS = frozenset({"png", "jpeg", "bmp"})


def header_of(data: bytes, limits: DecodeLimits) -> ImageHeader:
    """Format and size, before anything is decoded. Raises ``ImageError``."""
    header = read_header(data, limits)
    if header.format not in FORMATS:
        raise NotAnImage(f"The image is a {header.format.upper()}.", hint="Send PNG or JPEG.")
    return header


def pixels_of(data: bytes, limits: DecodeLimits) -> NDArray[np.uint8]:
    """RGB [h, w, 3] as the file stores it. Raises ``ImageError``.

    An EXIF orientation turns nothing: the client has cropped and turned already.
    """
    header = header_of(data, limits)
    pixels = decode(data, limits, upright=False)
    if pixels.shape[:2] != (header.height, header.width):
        raise ImageDamaged(
            f"The image says {header.width}×{header.height} pixels and holds "
            f"{pixels.shape[1]}×{pixels.shape[0]}.",
            hint="Export it again.",
        )
    return pixels


def png_base64(picture: NDArray[np.uint8]) -> str:
    """A grey picture [h, w] as base64 of a PNG of the same pixels."""
    # Level 1: a heatmap is smooth, so that more effort saves a few percent and costs most of the time.
    done, encoded = cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not done:
        raise ServingError("The heatmap could not be written as PNG.", hint="Send a smaller image.")
    return base64.b64encode(encoded.tobytes()).decode("ascii")
