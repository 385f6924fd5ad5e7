"""S4's images: shapes, sizes, turns, types and depths, and where in them its answers lie."""

from __future__ import annotations

import io
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.contract.s4_by_hand import map_by_hand, picture_of
from tests.contract.s4_server import HEIGHT, ROLE, WIDTH, S4Server, ng_pixels, ok_images, ok_pixels, png


def test_islands_below_the_area_are_dropped_by_the_requests_scale(s4: S4Server) -> None:
    roi = "Islands"
    s4.fit(ok_images(4), roi=roi)
    marked = png(ng_pixels(3, left=20, top=20))
    score = s4.infer(marked, roi=roi).json()["score"]
    s4.calibrate([score / 4], roi=roi, area_mm2_thr=1.0)
    large = s4.infer(marked, roi=roi, mm_per_px=0.5).json()["regions"]
    assert large
    tiny = s4.infer(marked, roi=roi, mm_per_px=0.0001).json()
    assert tiny["regions"] == []
    assert tiny["score"] == pytest.approx(s4.infer(marked, roi=roi, mm_per_px=0.5).json()["score"])


def _in_the_rect(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x > 10) & (x < 40) & (y > 5) & (y < 25)


@pytest.mark.parametrize(
    ("shape", "inside"),
    [
        (None, lambda x, y: np.ones_like(x, bool)),
        ("", lambda x, y: np.ones_like(x, bool)),
        ("null", lambda x, y: np.ones_like(x, bool)),
        ({}, lambda x, y: np.ones_like(x, bool)),
        ({"kind": "rect"}, lambda x, y: np.ones_like(x, bool)),
        ({"kind": "rect", "x": 10, "y": 5, "w": 30, "h": 20}, _in_the_rect),
        ({"x": 10, "y": 5, "w": 30, "h": 20}, _in_the_rect),
        ({"kind": "circle"}, lambda x, y: (x - 48) ** 2 + (y - 32) ** 2 <= 32**2),
        ({"kind": "CIRCLE", "cx": 30, "cy": 30, "r": 12}, lambda x, y: (x - 30) ** 2 + (y - 30) ** 2 <= 144),
        (
            {"kind": "circle", "cx": 30, "cy": 30, "r": 12, "r_inner": 0, "w": 5, "angle_deg": 3},
            lambda x, y: (x - 30) ** 2 + (y - 30) ** 2 <= 144,
        ),
        (
            {"kind": "annulus", "cx": 48, "cy": 32, "r": 30, "r_inner": 10},
            lambda x, y: ((x - 48) ** 2 + (y - 32) ** 2 <= 900) & ((x - 48) ** 2 + (y - 32) ** 2 >= 100),
        ),
    ],
)  # fmt: skip
def test_a_shape_masks_and_nothing_else(s4: S4Server, shape: Any, inside: Any) -> None:
    roi = "Shapes"
    if not (s4.models / ROLE / roi).exists():
        s4.fit(ok_images(4), roi=roi)
    marked = ng_pixels(5, left=24, top=24)
    answer = s4.infer(png(marked), roi=roi, shape=shape)
    assert answer.status_code == 200, answer.text
    x, y = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
    mask = inside(x, y)
    by_hand = map_by_hand(s4, roi, marked)
    assert answer.json()["score"] == pytest.approx(np.percentile(by_hand[mask], 99), abs=1e-5)
    picture = picture_of(answer.json())
    assert picture.shape == (HEIGHT, WIDTH)
    assert (picture[~mask] == 0).all()
    assert picture[mask].max() == 255


def _jpeg(rgb: np.ndarray, orientation: int) -> bytes:
    return _saved(rgb, "JPEG", orientation, quality=98)


def _saved(rgb: np.ndarray, kind: str, orientation: int, **options: Any) -> bytes:
    exif = Image.Exif()
    exif[0x112] = orientation
    stream = io.BytesIO()
    Image.fromarray(rgb).save(stream, kind, exif=exif, **options)
    return stream.getvalue()


@pytest.mark.parametrize(("orientation", "left", "top"), [(1, 2, 2), (3, 82, 50), (6, 2, 50), (8, 82, 2)])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_output_pixels_are_input_pixels(
    s4: S4Server, kind: str, orientation: int, left: int, top: int
) -> None:
    roi = "Geometry"
    if not (s4.models / ROLE / roi).exists():
        s4.fit(ok_images(6), roi=roi, memory_fit="true")
        s4.calibrate([0.02], roi=roi)
    marked = ng_pixels(7, left=left, top=top)
    answer = s4.infer(_saved(marked, kind, orientation), roi=roi).json()
    picture = picture_of(answer)
    # The width of the stored pixels, and the brightest place where the mark lies: nothing was turned.
    assert picture.shape == (HEIGHT, WIDTH)
    y, x = np.unravel_index(picture.astype(int).argmax(), picture.shape)
    assert left - 8 <= x < left + 20
    assert top - 6 <= y < top + 18
    bright = picture > 200
    ys, xs = np.nonzero(bright)
    assert abs(xs.mean() - (left + 5.5)) < 6
    assert abs(ys.mean() - (top + 5.5)) < 6
    x, y, w, h = answer["regions"][0]["bbox"]
    assert x <= left + 6 < x + w
    assert y <= top + 6 < y + h


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (300, 2), (13, 201)])
def test_any_size_is_answered_at_its_own_size(s4: S4Server, size: tuple[int, int]) -> None:
    roi = "Sizes"
    if not (s4.models / ROLE / roi).exists():
        s4.fit(ok_images(3), roi=roi)
    width, height = size
    answer = s4.infer(png(np.full((height, width, 3), 120, np.uint8)), roi=roi)
    assert answer.status_code == 200, answer.text
    assert picture_of(answer.json()).shape == (height, width)
    assert 0 <= answer.json()["score"] <= 4


@pytest.mark.parametrize("content_type", ["image/png", "image/jpeg", "application/octet-stream", None])
def test_what_names_an_image_is_its_bytes(s4: S4Server, content_type: str | None) -> None:
    roi = "Types"
    if not (s4.models / ROLE / roi).exists():
        s4.fit(ok_images(3), roi=roi)
    bmp = cv2.imencode(".bmp", ok_pixels(1))[1].tobytes()
    for data in (png(ok_pixels(1)), _jpeg(ok_pixels(1), 1), bmp):
        answer = s4.client.post(
            "/infer",
            data={"role_id": ROLE, "roi_id": roi, "mm_per_px": "0.2"},
            files={"image": ("roi", data, content_type)},
        )
        assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("kind", ["grey", "grey 16", "colour 16", "alpha"])
def test_other_depths_and_channels_are_read(s4: S4Server, kind: str) -> None:
    roi = "Types"
    if not (s4.models / ROLE / roi).exists():
        s4.fit(ok_images(3), roi=roi)
    rgb = ok_pixels(2)
    pixels = {
        "grey": rgb[..., 0],
        "grey 16": rgb[..., 0].astype(np.uint16) * 257,
        "colour 16": rgb[..., ::-1].astype(np.uint16) * 257,
        "alpha": np.dstack([rgb[..., ::-1], np.full(rgb.shape[:2], 7, np.uint8)]),
    }[kind]
    answer = s4.infer(cv2.imencode(".png", pixels)[1].tobytes(), roi=roi).json()
    if kind in ("colour 16", "alpha"):
        assert answer["score"] == pytest.approx(s4.infer(png(rgb), roi=roi).json()["score"], abs=1e-6)
    assert 0 <= answer["score"] <= 4
