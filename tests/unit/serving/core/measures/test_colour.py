from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from serving.core.measures import measure_face
from serving.core.measures.colour import SHINE_REGIONS, delta_e
from tests.faces import Lab, face_at, region, skin, to_rgb

SIZE = 600
FACE = face_at(300, 290, 110)


@pytest.mark.parametrize(
    ("lab", "tone"),
    [
        ((78, 8, 14), "very_light"),
        ((70, 12, 18), "light"),
        ((62, 14, 19), "intermediate"),
        ((56, 14, 20), "tan"),
        ((45, 14, 18), "brown"),
        ((30, 8, 10), "dark"),
    ],
)
def test_tone_and_redness_are_those_painted(lab: Lab, tone: str) -> None:
    measures = measure_face(to_rgb(skin(SIZE, lab)), FACE)
    lightness, red, yellow = lab
    # Eight bits a channel leave a degree of doubt where skin is dark.
    assert measures.ita == pytest.approx(np.degrees(np.arctan2(lightness - 50, yellow)), abs=1.0)
    assert measures.tone == tone
    assert measures.redness == pytest.approx(red, abs=0.5)
    assert measures.shine == 0


@pytest.mark.parametrize("change", [(-10.0, 3.0, -2.0), (-4.0, 0.0, -3.0), (-20.0, 2.0, -6.0)])
def test_dark_circles_are_the_painted_difference(change: Lab) -> None:
    lab = skin(SIZE, (65, 12, 18))
    for side in ("right", "left"):
        lab[region(FACE, f"{side}_under_eye", SIZE)] += np.float32(change)
    lab[region(FACE, "right_cheek", SIZE) | region(FACE, "left_cheek", SIZE)] = (65, 12, 18)
    measures = measure_face(to_rgb(lab), FACE)
    assert measures.dark_circles == pytest.approx(np.linalg.norm(change), abs=0.8)
    found = measures.to_dict()["dark_circles"]
    assert found["detected"] is bool(np.linalg.norm(change) > 10)
    assert found["severity"] == pytest.approx(np.linalg.norm(change) / 25, abs=0.04)


def test_lighter_skin_under_the_eyes_is_no_dark_circle() -> None:
    lab = skin(SIZE, (65, 12, 18))
    lab[region(FACE, "right_under_eye", SIZE)] = (75, 10, 15)
    assert measure_face(to_rgb(lab), FACE).dark_circles == 0


def shining(share: float, *names: str) -> tuple[NDArray[np.uint8], float]:
    """Skin with pale spots over the regions named, about this share of each, and what share it is of all."""
    lab = skin(SIZE, (62, 13, 18))
    spots = np.zeros((SIZE, SIZE), np.uint8)
    step = 44
    radius = step * np.sqrt(share / np.pi)
    for y in range(0, SIZE, step):
        for x in range(0, SIZE, step):
            cv2.circle(spots, (x * 16, y * 16), round(radius * 16), 255, -1, cv2.LINE_AA, 4)
    here = np.zeros((SIZE, SIZE), np.float32)
    for name in names:
        here[FACE.mask(name, SIZE, SIZE) > 0] = 1
    strength = (here * spots / 255)[..., None]
    regions = sum(FACE.mask(name, SIZE, SIZE) for name in SHINE_REGIONS) > 0
    rgb = to_rgb(lab * (1 - strength) + np.float32((84, 5, 8)) * strength)
    return rgb, float(strength[regions].mean())


@pytest.mark.parametrize("share", [0.02, 0.1, 0.25])
def test_shine_is_the_painted_share(share: float) -> None:
    rgb, painted = shining(share, *SHINE_REGIONS)
    assert measure_face(rgb, FACE).shine == pytest.approx(painted, rel=0.15, abs=0.005)


def test_the_skin_type_is_made_of_shine_and_redness() -> None:
    cheeks = ("right_cheek", "left_cheek")
    assert measure_face(shining(0.2, "forehead", "nose", *cheeks)[0], FACE).skin_type == "oily"
    assert measure_face(shining(0.2, "forehead", "nose")[0], FACE).skin_type == "combination"
    assert measure_face(shining(0.2, *cheeks)[0], FACE).skin_type == "normal"
    assert measure_face(shining(0.0)[0], FACE).skin_type == "normal"
    assert measure_face(to_rgb(skin(SIZE, (60, 30, 18))), FACE).skin_type == "sensitive"


def test_distances_of_colours_are_the_euclidean_ones() -> None:
    assert delta_e(np.array([50.0, 0, 0]), np.array([50.0, 3, 4])) == 5
