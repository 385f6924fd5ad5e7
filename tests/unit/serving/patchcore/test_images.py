from __future__ import annotations

import base64
import io

import cv2
import numpy as np
import pytest
from PIL import Image

from data.errors import ImageDamaged, ImageTooLarge, NotAnImage
from data.image import DecodeLimits, decode
from serving.patchcore.images import pixels_of, png_base64

RGB = np.random.default_rng(0).integers(0, 256, (20, 31, 3), dtype=np.uint8)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pixels_lie_where_they_are_stored(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x112] = orientation
    for kind in ("PNG", "JPEG"):
        stream = io.BytesIO()
        Image.fromarray(RGB).save(stream, kind, exif=exif, quality=100, subsampling=0)
        got = pixels_of(stream.getvalue(), DecodeLimits())
        assert got.shape == RGB.shape
        assert np.abs(got.astype(int) - RGB).max() <= (0 if kind == "PNG" else 12)
        # Elsewhere photographs are still turned upright.
        assert decode(stream.getvalue()).shape[:2] == ((31, 20) if orientation >= 5 else (20, 31))


def test_only_png_jpeg_and_bmp() -> None:
    limits = DecodeLimits()
    assert np.array_equal(pixels_of(cv2.imencode(".bmp", RGB[..., ::-1])[1].tobytes(), limits), RGB)
    for kind in ("TIFF", "GIF", "WEBP"):
        stream = io.BytesIO()
        Image.fromarray(RGB).save(stream, kind)
        with pytest.raises(NotAnImage, match=kind):
            pixels_of(stream.getvalue(), limits)
    with pytest.raises(ImageTooLarge):
        pixels_of(cv2.imencode(".png", RGB)[1].tobytes(), DecodeLimits(max_pixels=100))
    with pytest.raises(ImageDamaged):
        pixels_of(cv2.imencode(".png", RGB)[1].tobytes()[:200], limits)


def test_a_heatmap_survives_its_encoding() -> None:
    picture = RGB[..., 0]
    back = cv2.imdecode(np.frombuffer(base64.b64decode(png_base64(picture)), np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(back, picture)
