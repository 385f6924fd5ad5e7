"""The field of view: found on fundus photographs, exact, steady under reduced decoding, and not on faces."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from data.field import find_field
from data.image import decode


def eye(
    height: int = 500,
    width: int = 600,
    x: float = 290,
    y: float = 250,
    radius: float = 200,
    surround: int = 4,
) -> NDArray[np.uint8]:
    rows, columns = np.mgrid[:height, :width]
    rng = np.random.default_rng(0)
    image = np.clip(rng.normal(surround, 2, (height, width, 3)), 0, 255)
    inside = np.hypot(columns + 0.5 - x, rows + 0.5 - y) < radius
    # Vignetted, as fundus photographs are.
    fade = 1 - 0.4 * (np.hypot(columns - x, rows - y) / radius) ** 2
    for channel, level in enumerate((180, 90, 30)):
        image[..., channel] = np.where(inside, level * fade, image[..., channel])
    return image.astype(np.uint8)


def test_the_box_is_exact() -> None:
    field = find_field(eye())
    assert field.found
    assert (
        np.abs(np.array([field.left, field.top, field.right, field.bottom]) - [90, 50, 490, 450]).max() <= 2
    )
    assert field.outline is not None
    assert abs(field.outline.radius_x - 200) < 4
    assert field.share == pytest.approx(400 * 400 / 300_000, rel=0.02)


def test_a_disc_cut_by_the_frame_keeps_its_width() -> None:
    field = find_field(eye(height=330, y=165))
    assert (field.top, field.bottom) == (0, 330)
    assert abs(field.side - 400) <= 4


def test_printed_text_and_a_notch_are_left_out() -> None:
    image = eye()
    cv2.putText(image, "OD 12:30", (5, 25), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255, 255, 255), 1)
    cv2.rectangle(image, (484, 120), (500, 136), (150, 80, 30), -1)
    field = find_field(image)
    assert field.found
    assert abs(field.right - 490) <= 6
    assert abs(field.top - 50) <= 2


def test_a_stretched_photograph_is_an_ellipse() -> None:
    field = find_field(np.asarray(cv2.resize(eye(), (400, 500)), np.uint8))
    assert field.outline is not None
    assert field.outline.radius_y / field.outline.radius_x == pytest.approx(1.5, rel=0.05)


@pytest.mark.parametrize("shape", [(1, 1), (1, 4000), (7, 9), (15, 15), (40, 3000)])
def test_any_shape_will_do(shape: tuple[int, int]) -> None:
    assert not find_field(np.full((*shape, 3), 200, np.uint8)).found


def test_what_has_no_dark_surround_has_no_field() -> None:
    for image in (
        np.zeros((300, 300, 3), np.uint8),
        np.full((300, 300, 3), 180, np.uint8),
        np.random.default_rng(1).integers(0, 256, (300, 300, 3), dtype=np.uint8),
        eye(surround=120),
    ):
        field = find_field(image)
        assert not field.found
        assert (field.left, field.top, field.right, field.bottom) == (0, 0, image.shape[1], image.shape[0])
        assert field.share == 0


def test_a_bright_square_is_no_disc() -> None:
    image = np.full((300, 300, 3), 3, np.uint8)
    image[40:260, 40:260] = (180, 90, 40)
    assert not find_field(image).found


def test_the_inner_mask_leaves_the_rim_out() -> None:
    field = find_field(eye())
    mask = field.inner_mask(200, 200)
    assert mask[100, 100] == 255
    assert mask[100, 1] == mask[1, 100] == mask[5, 5] == 0
    assert find_field(np.full((50, 50, 3), 90, np.uint8)).inner_mask(4, 4).all()


def test_on_every_real_fundus_photograph_and_the_same_when_reduced(shared_data: Path) -> None:
    for path in sorted((shared_data / "idrid_640" / "images").iterdir())[::4]:
        data = path.read_bytes()
        whole, half = find_field(decode(data)), find_field(decode(data, min_side=200))
        assert whole.found, path.name
        assert half.width * 2 == whole.width
        for edge in ("left", "top", "right", "bottom"):
            assert abs(2 * getattr(half, edge) - getattr(whole, edge)) <= 3


def test_faces_and_skin_have_none(shared_data: Path) -> None:
    faces = [
        *sorted((shared_data / "faces").iterdir()),
        *sorted((shared_data / "acne04_640" / "images").iterdir()),
    ]
    found = [path.name for path in faces if find_field(decode(path.read_bytes())).found]
    assert len(found) <= 0.02 * len(faces), found
