from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from serving.core.face import Face
from serving.core.face.landmarks import mesh_square, placing
from serving.core.measures import measure_face
from serving.core.measures.measure import WRINKLE_REGIONS
from serving.core.measures.patch import SIDE, upright
from tests.faces import face_at, skin, to_rgb

Line = tuple[NDArray[np.float64], NDArray[np.float64]]


def around(middle: NDArray[np.float64], right: float, down: float = 0, lower: float = 0) -> Line:
    """A line that reaches as far on both sides of a point, ``lower`` under it."""
    way, under = np.array([right, down]), np.array([0, lower])
    return middle + under - way, middle + under + way


def across_cheeks(face: Face, eyes: float) -> list[Line]:
    middles = [face.regions[name].mean(axis=0) for name in ("right_cheek", "left_cheek")]
    return [around(middle, 0.2 * eyes, 0, down * eyes) for middle in middles for down in (-0.15, 0, 0.15)]


def slanting(face: Face, eyes: float) -> list[Line]:
    middles = [face.regions[name].mean(axis=0) for name in ("right_cheek", "left_cheek")]
    return [around(middle, 0.2 * eyes, 0.2 * eyes) for middle in middles]


def over_the_forehead(face: Face, eyes: float) -> list[Line]:
    middle = face.regions["forehead"].mean(axis=0)
    return [around(middle, 0.4 * eyes)]


def drawn(lines: list[Line], size: int, width: float, depth: float) -> NDArray[np.uint8]:
    """Skin with dark lines, softened a little as a lens does."""
    mask = np.zeros((size, size), np.uint8)
    for start, end in lines:
        first, last = ([int(value * 16) for value in point] for point in (start, end))
        cv2.line(mask, first, last, 255, max(1, round(width)), cv2.LINE_AA, 4)
    lab = skin(size, (65, 12, 18))
    lab[..., 0] -= depth * cv2.GaussianBlur(mask.astype(np.float32) / 255, (0, 0), width / 3)
    return to_rgb(lab)


def truth(lines: list[Line], face: Face, size: int) -> float:
    """The lines' length within the regions by their area, in eye distances."""
    patch = upright(np.zeros((size, size, 3), np.uint8), face)
    mask = patch.mask(*WRINKLE_REGIONS)
    matrix, shift = placing(mesh_square(face.landmarks), SIDE)
    length = 0.0
    for line in lines:
        start, end = (np.linalg.solve(matrix, point - shift) for point in line)
        points = (start + (end - start) * np.linspace(0, 1, 2000)[:, None]).astype(int)
        length += mask[points[:, 1], points[:, 0]].mean() * np.linalg.norm(end - start)
    return length * patch.eye_distance / mask.sum()


@pytest.mark.parametrize("eyes", [70.0, 140.0])
@pytest.mark.parametrize("angle", [0.0, 20.0])
@pytest.mark.parametrize("lines_of", [across_cheeks, slanting, over_the_forehead])
@pytest.mark.parametrize(("width", "depth"), [(0.04, 15.0), (0.06, 8.0)])
def test_density_is_the_drawn_length(
    eyes: float, angle: float, lines_of: Callable[[Face, float], list[Line]], width: float, depth: float
) -> None:
    size = int(7 * eyes)
    face = face_at(size / 2, size / 2, eyes, angle)
    lines = lines_of(face, eyes)
    measured = measure_face(drawn(lines, size, width * eyes, depth), face).wrinkle_density
    assert measured == pytest.approx(truth(lines, face, size), rel=0.15)


def test_even_skin_and_spots_have_none() -> None:
    face = face_at(300, 300, 100)
    assert measure_face(to_rgb(skin(600, (65, 12, 18))), face).wrinkle_density == 0
    lab = skin(600, (65, 12, 18))
    dots = np.zeros((600, 600), np.uint8)
    for x in range(10, 600, 24):
        for y in range(10, 600, 24):
            cv2.circle(dots, (x, y), 4, 255, -1, cv2.LINE_AA)
    lab[..., 0] -= 10 * cv2.GaussianBlur(dots.astype(np.float32) / 255, (0, 0), 1.5)
    assert measure_face(to_rgb(lab), face).wrinkle_density < 0.2


def test_light_lines_are_no_wrinkles() -> None:
    face = face_at(300, 300, 100)
    lines = slanting(face, 100)
    assert measure_face(drawn(lines, 600, 4, -10), face).wrinkle_density < 0.1
