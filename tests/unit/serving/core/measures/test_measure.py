from __future__ import annotations

import dataclasses
import json

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from data.errors import RequestError
from serving.core.face import Face, find_face
from serving.core.measures import KINDS, Measures, measure_face
from serving.core.measures.balance import white_balance
from tests.faces import face_at, portrait, region, skin, to_rgb

# By how much each measure may change when the picture is scaled by a half to two. See docs/measures.md.
BOUNDS = {
    "ita": 1.0,
    "ita_balanced": 1.5,
    "redness": 0.5,
    "dark_circles": 0.6,
    "shine": 0.02,
    "shine_t_zone": 0.02,
    "shine_cheeks": 0.02,
    "texture_entropy": 0.2,
    "texture_homogeneity": 0.04,
    "wrinkle_density": 0.35,
}


def worn(size: int, face: Face, seed: int = 0) -> NDArray[np.uint8]:
    """A face with something of everything, drawn at ``size``: pores, lines, dark circles, shine."""
    rng = np.random.default_rng(seed)
    eyes = face.eye_distance
    lab = skin(size, (62, 14, 18))
    for cells in (8, 14, 22):
        grain = rng.normal(0, 1, (round(size * cells / eyes),) * 2).astype(np.float32)
        lab[..., 0] += 1.5 * cv2.resize(grain, (size, size), interpolation=cv2.INTER_CUBIC)
    for side in ("right", "left"):
        lab[region(face, f"{side}_under_eye", size)] += np.float32((-9, 2, -3))
    lines, spots = np.zeros((size, size), np.uint8), np.zeros((size, size), np.uint8)
    for name in ("forehead", "right_cheek", "left_cheek"):
        x, y = face.regions[name].mean(axis=0)
        start, end = (int(x - 0.2 * eyes), int(y)), (int(x + 0.2 * eyes), int(y))
        cv2.line(lines, start, end, 255, round(0.05 * eyes), cv2.LINE_AA)
        cv2.circle(
            spots, (int(x - 0.1 * eyes), int(y - 0.07 * eyes)), round(0.06 * eyes), 255, -1, cv2.LINE_AA
        )
    lab[..., 0] -= 12 * cv2.GaussianBlur(lines.astype(np.float32) / 255, (0, 0), 0.015 * eyes)
    strength = (spots.astype(np.float32) / 255)[..., None]
    picture = to_rgb(lab * (1 - strength) + np.float32((92, 3, 5)) * strength)
    # The surroundings are grey.
    left, top, side = face.square(0.2)
    around = np.full_like(picture, 128)
    inside = (slice(max(0, top), top + side), slice(max(0, left), left + side))
    around[inside] = picture[inside]
    return around


def numbers(measures: Measures) -> dict[str, float | None]:
    return {name: getattr(measures, name) for name in KINDS}


@pytest.mark.parametrize("eyes", [110.0, 160.0])
def test_measures_keep_their_value_at_half_and_twice_the_size(eyes: float) -> None:
    size = int(11 * eyes)
    large = worn(size, face_at(size / 2, size / 2, 2 * eyes))
    taken = []
    for scale in (1, 2, 4):
        small = cv2.resize(large, (size // scale,) * 2, interpolation=cv2.INTER_AREA)
        taken.append(
            numbers(measure_face(small, face_at(size / 2 / scale, size / 2 / scale, 2 * eyes / scale)))
        )
    assert all(value is not None for value in taken[0].values())
    for other in (taken[0], taken[2]):
        for name, bound in BOUNDS.items():
            assert other[name] == pytest.approx(taken[1][name], abs=bound), name


def test_everything_is_in_its_range_and_json() -> None:
    rng = np.random.default_rng(0)
    face = face_at(250, 250, 90)
    pictures = [
        worn(500, face),
        rng.integers(0, 256, (500, 500, 3), np.uint8),
        np.full((500, 500, 3), 255, np.uint8),
        np.zeros((500, 500, 3), np.uint8),
        np.full((500, 500, 3), (255, 0, 255), np.uint8),
    ]
    for picture in pictures:
        measures = measure_face(picture, face)
        for name, value in numbers(measures).items():
            assert (value is None) == (name in measures.missing), name
            assert value is None or KINDS[name].low <= value <= KINDS[name].high, name
        document = json.loads(json.dumps(measures.to_dict(), allow_nan=False))
        assert set(document) == {"skin_tone", "skin_type", "texture_quality", "wrinkles", "dark_circles"}
        assert set(document["wrinkles"]) == {"detected", "density"}
        assert set(document["dark_circles"]) == {"detected", "severity"}
        details = json.loads(json.dumps(measures.details(), allow_nan=False))
        assert set(details["measures"]) == set(KINDS)
        assert all(
            {"value", "unit", "low", "high", "source"} <= set(one) for one in details["measures"].values()
        )


def test_a_grey_photograph_has_no_colour_to_measure() -> None:
    face = face_at(250, 250, 90)
    grey = cv2.cvtColor(cv2.cvtColor(worn(500, face), cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    measures = measure_face(grey.astype(np.uint8), face)
    assert measures.ita is None
    assert measures.redness is None
    assert "no colour" in measures.missing["ita"]
    assert measures.to_dict()["skin_tone"] == "unknown"
    assert measures.to_dict()["skin_type"] == "unknown"
    # Lightness is still there.
    assert measures.texture_entropy is not None
    assert measures.dark_circles is not None


@pytest.mark.parametrize("lightness", [75, 30])
def test_skin_in_blue_light_has_no_tone(lightness: float) -> None:
    # By its formula the angle would be 90 or -90 degrees: the lightest of all skins, or the darkest.
    face = face_at(250, 250, 90)
    measures = measure_face(to_rgb(skin(500, (lightness, 6, -12))), face)
    assert (measures.ita, measures.tone) == (None, "unknown")
    assert "grey or blue" in measures.missing["ita"]
    assert (measures.redness, measures.skin_type) == (None, "unknown")
    assert measures.dark_circles is not None
    assert "dark_circles" not in measures.missing
    # What is around the face is in the same light here, so that balancing gives the skin no colour back.
    assert measures.ita_balanced is None


def test_a_small_face_shows_no_fine_detail() -> None:
    face = face_at(60, 60, 24)
    measures = measure_face(worn(120, face), face)
    assert measures.ita is not None
    assert measures.texture_homogeneity is None
    assert "too small" in measures.missing["wrinkle_density"]
    assert measures.to_dict()["wrinkles"] == {"detected": None, "density": None}
    assert measures.to_dict()["texture_quality"] is None


def test_hair_over_the_forehead_is_left_out() -> None:
    face = face_at(250, 250, 90)
    lab = skin(500, (65, 12, 18))
    lab[region(face, "forehead", 500)] = (20, 3, 5)
    measures = measure_face(to_rgb(lab), face)
    assert measures.ita == pytest.approx(np.degrees(np.arctan2(15, 18)), abs=1)


def test_what_the_frame_cuts_off_is_not_measured() -> None:
    whole = face_at(250, 250, 90)
    picture = to_rgb(skin(500, (65, 12, 18)))
    # Only the face's left half is in the picture: one cheek is enough.
    cut = np.ascontiguousarray(picture[:, 250:])
    shifted = face_at(0, 250, 90)
    assert measure_face(cut, shifted).ita == pytest.approx(measure_face(picture, whole).ita, abs=0.5)
    away = measure_face(picture, face_at(-2000, 250, 90))
    assert away.ita is None
    assert away.dark_circles is None


@pytest.mark.parametrize("gains", [(1.0, 1.0, 1.0), (0.8, 1.0, 1.3), (1.25, 1.0, 0.7)])
def test_white_balance_is_the_painted_light(gains: tuple[float, float, float]) -> None:
    rng = np.random.default_rng(0)
    face = face_at(400, 400, 60)
    # Grey surroundings, in linear light, under a coloured lamp; then sRGB's curve.
    linear = rng.uniform(0.02, 0.6, (800, 800, 1)) / np.float64(gains)
    curved = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    picture = np.clip(np.round(curved * 255), 0, 255).astype(np.uint8)
    found = white_balance(picture, face)
    assert found.reliable
    assert found.gains == pytest.approx(gains, rel=0.03)
    light = 1 / np.float64(gains)
    angle = np.degrees(np.arccos(min(1, light.sum() / np.linalg.norm(light) / np.sqrt(3))))
    assert found.cast == pytest.approx(angle, abs=0.6)
    neutral = found.apply(picture).astype(int)
    assert np.abs(neutral[..., 0] - neutral[..., 2]).mean() < 2


def test_tone_after_balance_is_that_under_neutral_light() -> None:
    face = face_at(400, 400, 80)
    rng = np.random.default_rng(1)
    lab = skin(800, (66, 11, 17))
    neutral = to_rgb(lab)
    grey = np.repeat(rng.integers(60, 200, (800, 800, 1)), 3, axis=2).astype(np.uint8)
    left, top, side = face.square(0.2)
    grey[top : top + side, left : left + side] = neutral[top : top + side, left : left + side]
    truth = measure_face(grey, face).ita
    lamp = white_balance(grey, face)
    warm = dataclasses.replace(lamp, gains=(1.15, 1.0, 0.8)).apply(grey)
    under = measure_face(warm, face)
    assert under.ita is not None
    assert under.ita_balanced is not None
    assert abs(under.ita - truth) > 5
    assert under.ita_balanced == pytest.approx(truth, abs=1.5)
    assert under.white_balance.cast > 5


def test_a_found_face_can_be_measured() -> None:
    picture = portrait(480)
    face = find_face(picture).face
    assert face is not None
    measures = measure_face(picture, face)
    assert measures.tone in ("very_light", "light", "intermediate", "tan")
    assert not measures.missing


def test_what_is_no_picture_is_an_error() -> None:
    with pytest.raises(RequestError, match="uint8"):
        measure_face(np.zeros((10, 10), np.uint8), face_at(5, 5, 3))
