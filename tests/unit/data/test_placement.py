"""Where a model's input lies in the photograph, held against the pixels that preprocessing makes."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data.field import find_field
from data.image import read_header
from data.image_header import ImageHeader
from data.placement import Axis, Placement, placement
from data.preprocess import Preprocessing

FITS: tuple[Any, ...] = ("stretch", "letterbox", "center")


def ramps(height: int, width: int) -> np.ndarray:
    """Red tells the place across, green down, blue that it is photograph and no padding."""
    y, x = np.mgrid[:height, :width]
    picture = np.stack([(x + 0.5) / width * 250 + 3, (y + 0.5) / height * 250 + 3, np.full(x.shape, 200)], -1)
    return np.asarray(picture.round().astype(np.uint8))


def header(height: int, width: int) -> ImageHeader:
    return ImageHeader("png", width, height, 1)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("strip", [False, True])
def test_each_pixel_of_the_input_is_where_it_came_from(fit: Any, strip: bool) -> None:
    rng = np.random.default_rng(0)
    for _ in range(40):
        # A strip is cut before it is scaled: another branch of preprocessing.
        low, high = ((1, 5), (500, 4000)) if strip else ((8, 600), (8, 600))
        height, width = int(rng.integers(*low)), int(rng.integers(*high))
        settings = Preprocessing(size=(int(rng.integers(8, 200)), int(rng.integers(8, 200))), fit=fit)
        made = settings(ramps(height, width)).astype(float)
        where = placement(settings, (height, width), None, header(height, width))
        inside = np.argwhere(made[..., 2] > 190)
        for v, u in inside[rng.integers(0, len(inside), 20)]:
            for axis, at, red_or_green, length in ((where.x, u, 0, width), (where.y, v, 1, height)):
                seen = (made[v, u, red_or_green] - 3) / 250 * length
                said = axis.offset + axis.scale * (at + 0.5)
                # One pixel of the coarser of the two, and what 250 grey levels can tell.
                assert abs(seen - said) <= max(1.0, axis.scale) + length / 250


def test_a_cropped_field_of_view_is_found_again() -> None:
    height, width = 300, 420
    y, x = np.mgrid[:height, :width]
    disc = np.hypot(x - 230, y - 150) < 120
    picture = np.where(disc[..., None], ramps(height, width) // 2 + 100, 4).astype(np.uint8)
    field = find_field(picture)
    assert field.found
    settings = Preprocessing(size=(96, 96), crop="fundus")
    where = placement(settings, (height, width), field, header(height, width))
    mark = picture.copy()
    mark[180:186, 270:276] = (255, 255, 0)
    moved = np.abs(settings(mark, field=field).astype(int) - settings(picture, field=field)).sum(axis=2)
    v, u = np.unravel_index(moved.argmax(), moved.shape)
    box = where.box(int(u), int(v), 1, 1)
    assert box is not None
    left, top, wide, high = box
    assert left - 3 <= 273 <= left + wide + 3
    assert top - 3 <= 183 <= top + high + 3


def test_a_reduced_and_turned_decode_is_told_in_the_photographs_pixels() -> None:
    stream = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by a quarter
    Image.fromarray(ramps(1203, 2001)).save(stream, "jpeg", exif=exif)
    settings = Preprocessing(size=(64, 64))
    decoded = settings.decode(stream.getvalue())
    assert decoded.shape[:2] == (1001, 602)  # a half of the size, upright
    where = placement(settings, (1001, 602), None, read_header(stream.getvalue()))
    assert (where.x.length, where.y.length) == (1203, 2001)
    assert where.box(0, 0, 64, 64) == (0, 0, 1203, 2001)


def test_boxes_are_cut_to_the_photograph_and_nothing_is_told_of_padding() -> None:
    # 100 × 50 letterboxed into 40 × 40: ten rows of padding above and below.
    where = placement(Preprocessing(size=(40, 40), fit="letterbox"), (50, 100), None, header(50, 100))
    assert where.box(0, 0, 40, 10) is None
    assert where.box(0, 30, 40, 10) is None
    assert where.box(0, 0, 40, 11) == (0, 0, 100, 3)
    assert where.box(10, 10, 20, 20) == (25, 0, 50, 50)
    assert where.area(4.0) == pytest.approx(25.0)


def test_points_stay_in_the_photograph() -> None:
    where = Placement(Axis(-10.0, 2.0, 50), Axis(0.0, 0.5, 20))
    points = where.points(np.array([[0, 0], [5, 3], [39, 39]], np.int32))
    assert points.tolist() == [[0, 0], [1, 1], [49, 19]]
    assert points.dtype == np.int32
