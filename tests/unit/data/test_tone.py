from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from data.synthetic import pixels, plan
from data.tone import TONES, image_ita, ita, tone_name


def patch(lightness: float, red: float, yellow: float, size: int = 120) -> np.ndarray:
    """One CIELAB colour as an sRGB picture."""
    lab = np.full((size, size, 3), (lightness, red, yellow), np.float32)
    rgb = cv2.cvtColor(lab, cv2.COLOR_Lab2RGB)
    return np.asarray(np.clip(np.round(rgb * 255), 0, 255), np.uint8)


@pytest.mark.parametrize(
    ("lightness", "yellow", "angle"), [(70, 20, 45), (50, 15, 0), (30, 20, -45), (60, 0, 90), (40, -3, -90)]
)
def test_the_angle_by_its_definition(lightness: float, yellow: float, angle: float) -> None:
    assert ita(lightness, yellow) == pytest.approx(angle)


def test_the_classes_begin_where_they_are_defined_to() -> None:
    assert [tone_name(angle) for angle in (60, 55, 41.1, 41, 28, 10, -30, -89, -90)] == [
        "very_light",
        "light",
        "light",
        "intermediate",
        "tan",
        "brown",
        "dark",
        "dark",
        "dark",
    ]


@pytest.mark.parametrize("angle", [62.0, 48.0, 34.0, 20.0, -5.0, -45.0])
def test_a_painted_skin_has_the_angle_it_was_painted_with(angle: float) -> None:
    yellow = 16.0
    picture = patch(50 + yellow * math.tan(math.radians(angle)), 11, yellow)
    for place in ("centre", "around"):
        found = image_ita(picture, place)  # type: ignore[arg-type]
        assert found == pytest.approx(angle, abs=1.5)


def test_a_lesion_is_left_out_and_a_face_is_not_its_wall() -> None:
    picture = patch(70, 11, 17, 160)
    cv2.circle(picture, (80, 80), 45, (70, 35, 20), -1)
    assert image_ita(picture, "around") == pytest.approx(ita(70, 17), abs=2)
    wall = np.full((160, 160, 3), (90, 120, 200), np.uint8)
    cv2.ellipse(wall, (80, 80), (50, 65), 0, 0, 360, tuple(int(v) for v in patch(45, 12, 18)[0, 0]), -1)
    assert image_ita(wall, "centre") == pytest.approx(ita(45, 18), abs=3)


def test_a_dermatoscopes_rim_is_no_skin() -> None:
    picture = patch(68, 11, 16, 200)
    y, x = np.mgrid[:200, :200]
    picture[np.hypot(x - 100, y - 100) > 99] = (4, 3, 3)
    assert image_ita(picture, "around") == pytest.approx(ita(68, 16), abs=2)


@pytest.mark.parametrize("colour", [(128, 128, 128), (20, 60, 200), (0, 0, 0), (255, 255, 255)])
def test_where_no_skin_is_nothing_is_said(colour: tuple[int, int, int]) -> None:
    assert image_ita(np.full((64, 64, 3), colour, np.uint8)) is None
    assert image_ita(patch(70, 11, 17), "none") is None


def test_scale_does_not_matter() -> None:
    picture = pixels(plan("face", 1, seed=3, size=384, views=("close",))[0])
    whole = image_ita(picture)
    assert whole is not None
    for side in (96, 192):
        small = np.asarray(cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA), np.uint8)
        assert image_ita(small) == pytest.approx(whole, abs=3)


def test_drawn_people_are_found_in_the_order_of_their_tones() -> None:
    drawn, found = [], []
    for each in plan("face", 60, size=128, views=("close", "patch")):
        angle = image_ita(pixels(each))
        if angle is not None:
            drawn.append(each.look.ita)
            found.append(angle)
    assert len(found) > 55
    assert np.corrcoef(drawn, found)[0, 1] > 0.93
    assert {tone_name(angle) for angle in found} == {name for name, _ in TONES}
