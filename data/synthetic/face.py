"""A drawn photograph of a person: a portrait with hair, a face from near by, or a patch of skin.

What is told apart (``data.synthetic.looks``) is drawn by ``complexion`` and ``hair``; here are the face's
parts, the light and the camera. No one is depicted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from data.synthetic.canvas import (
    Colour,
    Floats,
    blank,
    blob,
    fill,
    finish,
    grid,
    paint,
    polyline,
    smooth_noise,
    soften,
    stain,
)
from data.synthetic.complexion import Skin, Spot, draw_condition, draw_type, grain
from data.synthetic.hair import draw_hair
from data.synthetic.looks import Look

# Half a face's width as a share of the picture's side, at least and at most.
_WIDTHS = {"portrait": (0.235, 0.285), "close": (0.34, 0.42), "patch": (0.75, 1.1)}
#: Faces are seldom as in a textbook: so many also have a little of what theirs is taken for.
_AMBIGUOUS = 0.4
_TAKEN_FOR: Mapping[str, tuple[str, ...]] = {
    "healthy": ("mild_acne", "rosacea", "pigmentation", "eczema"),
    "mild_acne": ("rosacea", "pigmentation"),
    "severe_acne": ("rosacea", "eczema"),
    "rosacea": ("mild_acne", "eczema"),
    "eczema": ("psoriasis", "rosacea"),
    "psoriasis": ("eczema",),
    "pigmentation": ("mild_acne", "eczema"),
}
_GAINS: tuple[Colour, ...] = ((1.0, 1.0, 1.0), (1.03, 0.99, 0.95), (0.97, 0.99, 1.03), (1.0, 1.015, 0.985))


def draw_face(rng: np.random.Generator, look: Look, view: str, size: int, camera: int) -> NDArray[np.uint8]:
    """An image ``uint8 [size, size, 3]`` of this person, by one of four cameras."""
    unit = rng.uniform(*_WIDTHS[view]) * size
    if view == "patch":
        image = np.stack([np.full((size, size), value, np.float32) for value in look.colour])
        skin = _patch(rng, image, unit)
        _cover(rng, skin, look)
    else:
        image = _background(rng, size)
        _portrait(rng, image, look, unit)
    _light(rng, image)
    balance = tuple(float(value * rng.normal(1, 0.012)) for value in _GAINS[camera])
    return finish(
        image,
        rng,
        blur=(0.3, 0.5, 0.4, 0.65)[camera] * size / 256 * rng.uniform(0.6, 1.3),
        noise=(0.006, 0.010, 0.008, 0.014)[camera],
        gain=(balance[0], balance[1], balance[2]),
        gamma=rng.normal(1.0, 0.03),
    )


def _cover(rng: np.random.Generator, skin: Skin, look: Look) -> None:
    """Everything that is on the skin: the condition more or less pronounced, and at times some of another."""
    grain(rng, skin, look)
    if rng.random() < _AMBIGUOUS:
        _drawn(rng, skin, str(rng.choice(_TAKEN_FOR[look.condition])), rng.uniform(0.15, 0.35))
    _drawn(rng, skin, look.condition, rng.uniform(0.4, 1.0))
    draw_type(rng, skin, look)


def _drawn(rng: np.random.Generator, skin: Skin, condition: str, share: float) -> None:
    bare = skin.image.copy()
    draw_condition(rng, skin, condition)
    skin.image[:] = np.float32(1 - share) * bare + np.float32(share) * skin.image


def _patch(rng: np.random.Generator, image: Floats, unit: float) -> Skin:
    size = image.shape[1]
    middle = size / 2
    near = [
        Spot(middle + rng.normal(0, 0.2) * size, middle + rng.normal(0, 0.2) * size, 0.42 * size, 0.42 * size)
        for _ in range(5)
    ]
    whole = np.ones((size, size), np.float32)
    return Skin(image, whole, 0.45 * unit, (near[0], near[1]), near[2], near[3], near[4])


def _background(rng: np.random.Generator, size: int) -> Floats:
    """A wall out of focus."""
    base = np.clip(rng.uniform(0.25, 0.85) + rng.normal(0, 0.07, 3), 0.05, 0.97)
    shade = 0.06 * smooth_noise(rng, size, 3)
    return np.stack([np.asarray(value + shade, np.float32) for value in base])


def _portrait(rng: np.random.Generator, image: Floats, look: Look, unit: float) -> None:
    size = image.shape[1]
    x = size / 2 + rng.normal(0, 0.02) * size
    y = size * rng.uniform(0.5, 0.55)
    tall = unit * rng.uniform(1.28, 1.42)
    _shoulders(rng, image, look, x, y, unit, tall)
    oval = _oval(rng, size, x, y, unit, tall)
    face = soften(oval, 0.012 * unit)
    colour = look.colour
    paint(image, _ears(size, x, y, unit), tuple(0.9 * value for value in colour))
    paint(image, face, colour)
    skin = Skin(
        image,
        face,
        unit,
        (
            Spot(x - 0.50 * unit, y + 0.28 * tall, 0.34 * unit, 0.24 * tall),
            Spot(x + 0.50 * unit, y + 0.28 * tall, 0.34 * unit, 0.24 * tall),
        ),
        Spot(x, y - 0.56 * tall, 0.60 * unit, 0.19 * tall),
        Spot(x, y + 0.12 * tall, 0.15 * unit, 0.22 * tall),
        Spot(x, y + 0.78 * tall, 0.30 * unit, 0.13 * tall),
    )
    _cover(rng, skin, look)
    _shading(rng, image, face, x, y, unit, tall)
    _features(rng, image, look, x, y, unit, tall)
    line = blank(size)
    fill(line, _hairline(rng, x, y, unit, tall))
    draw_hair(rng, image, look, face * (1 - soften(line, 0.02 * unit)), x, y, unit)


def _oval(
    rng: np.random.Generator, size: int, x: float, y: float, unit: float, tall: float
) -> NDArray[np.uint8]:
    """The face: wide at the cheeks, narrower at the chin."""
    angle = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    narrow = rng.uniform(0.12, 0.24)
    below = np.clip(np.sin(angle), 0, 1)
    xs = x + unit * np.cos(angle) * (1 - narrow * below**2)
    ys = y + tall * np.sin(angle)
    mask = blank(size)
    fill(mask, np.stack([xs, ys], axis=1).astype(np.float32))
    return mask


def _hairline(rng: np.random.Generator, x: float, y: float, unit: float, tall: float) -> Floats:
    """What of the oval the hair covers: everything above a bow."""
    height = y - tall * rng.uniform(0.72, 0.84)
    across = np.linspace(-1.1, 1.1, 25)
    bow = height + 0.42 * tall * np.abs(across) ** 3.2
    points = [(x + unit * a, b) for a, b in zip(across, bow, strict=True)]
    return np.asarray([*points, (x + 1.2 * unit, y - 2 * tall), (x - 1.2 * unit, y - 2 * tall)], np.float32)


def _ears(size: int, x: float, y: float, unit: float) -> Floats:
    mask = blank(size)
    for side in (-1, 1):
        centre = (round(x + side * 1.0 * unit), round(y + 0.02 * unit))
        cv2.ellipse(mask, centre, (round(0.13 * unit), round(0.27 * unit)), 0, 0, 360, 255, -1, cv2.LINE_AA)
    return soften(mask, 0.015 * unit)


def _shoulders(
    rng: np.random.Generator, image: Floats, look: Look, x: float, y: float, unit: float, tall: float
) -> None:
    size = image.shape[1]
    neck, shirt = blank(size), blank(size)
    low = y + 1.25 * tall
    sides = [
        (x - 0.55 * unit, y),
        (x + 0.55 * unit, y),
        (x + 0.62 * unit, low + unit),
        (x - 0.62 * unit, low + unit),
    ]
    fill(neck, np.asarray(sides, np.float32))
    paint(image, soften(neck, 0.02 * unit), tuple(0.82 * value for value in look.colour))
    wide = 2.1 * unit
    edge = [
        (x - 0.6 * unit, low),
        (x, low + 0.25 * unit),
        (x + 0.6 * unit, low),
        (x + wide, low + 0.45 * unit),
        (x + wide, size + unit),
        (x - wide, size + unit),
        (x - wide, low + 0.45 * unit),
    ]
    fill(shirt, np.asarray(edge, np.float32))
    paint(image, soften(shirt, 0.02 * unit), tuple(rng.uniform(0.08, 0.85, 3).tolist()))


def _shading(
    rng: np.random.Generator, image: Floats, face: Floats, x: float, y: float, unit: float, tall: float
) -> None:
    """A rounded face is darker towards its edge, and on the side away from the lamp."""
    px, py = grid(image.shape[1])
    across, down = (px - x) / unit, (py - y) / tall
    rim = np.clip(across**2 + down**2, 0, 1.2) ** 2
    side = rng.normal(0, 0.05) * across + 0.03 * down
    image *= np.asarray(1 - face * (0.20 * rim + side), np.float32)
    for edge in (-1, 1):  # the nose's sides
        shadow = Spot(x + edge * 0.17 * unit, y + 0.14 * tall, 0.05 * unit, 0.22 * tall).field(image.shape[1])
        stain(image, shadow * np.float32(0.25), (0.75, 0.66, 0.60))


def _features(
    rng: np.random.Generator, image: Floats, look: Look, x: float, y: float, unit: float, tall: float
) -> None:
    size = image.shape[1]
    brow, white, iris, pupil, lid = (blank(size) for _ in range(5))
    level = y - 0.12 * tall
    gaze = rng.normal(0, 0.012) * unit
    for side in (-1, 1):
        ex = x + side * 0.40 * unit
        cv2.ellipse(
            white,
            (round(ex), round(level)),
            (round(0.17 * unit), round(0.075 * unit)),
            0,
            0,
            360,
            255,
            -1,
            cv2.LINE_AA,
        )
        cv2.circle(iris, (round(ex + gaze), round(level)), max(1, round(0.075 * unit)), 255, -1, cv2.LINE_AA)
        cv2.circle(pupil, (round(ex + gaze), round(level)), max(1, round(0.035 * unit)), 255, -1, cv2.LINE_AA)
        bow = np.linspace(-1, 1, 15)
        polyline(lid, _bow(ex, level - 0.02 * unit, bow, 0.18 * unit, 0.075 * unit), max(1.0, 0.03 * unit))
        polyline(brow, _bow(ex, level - 0.22 * unit, bow, 0.22 * unit, 0.06 * unit), max(1.2, 0.06 * unit))
    open_eye = soften(white, 0.3)
    paint(image, open_eye * 0.9, (0.93, 0.92, 0.90))
    irises: Sequence[Colour] = (
        (0.25, 0.15, 0.09),
        (0.38, 0.27, 0.15),
        (0.30, 0.42, 0.55),
        (0.35, 0.44, 0.30),
    )
    chosen = irises[int(rng.integers(4 if look.ita > 28 else 2))]
    paint(image, soften(iris, 0.3) * open_eye, chosen)
    paint(image, soften(pupil, 0.3) * open_eye, (0.03, 0.03, 0.03))
    paint(image, soften(lid, 0.3) * 0.8, (0.16, 0.10, 0.08))
    paint(image, soften(brow, 0.4) * 0.8, tuple(0.7 * value for value in look.hair_colour))
    nostrils, lips, mouth = blank(size), blank(size), blank(size)
    for side in (-1, 1):
        blob(nostrils, rng, x + side * 0.09 * unit, y + 0.36 * tall, 0.04 * unit, rough=0.1, stretch=0.6)
    stain(image, soften(nostrils, 0.4) * 0.8, (0.35, 0.22, 0.18))
    centre = (round(x), round(y + 0.58 * tall))
    cv2.ellipse(lips, centre, (round(0.30 * unit), round(0.095 * unit)), 0, 0, 360, 255, -1, cv2.LINE_AA)
    stain(image, soften(lips, 0.4) * np.float32(rng.uniform(0.6, 0.95)), (0.90, 0.58, 0.58))
    smile = np.linspace(-1, 1, 15)
    polyline(
        mouth,
        _bow(x, y + 0.585 * tall, smile, 0.28 * unit, -0.03 * unit * rng.uniform(0, 1)),
        max(1.0, 0.018 * unit),
    )
    stain(image, soften(mouth, 0.3) * 0.8, (0.40, 0.20, 0.20))


def _bow(x: float, y: float, across: NDArray[np.float64], wide: float, high: float) -> Floats:
    """A bow ``[N, 2]`` over ``across`` from -1 to 1, high in the middle."""
    return np.stack([x + wide * across, y - high * (1 - across**2)], axis=1).astype(np.float32)


def _light(rng: np.random.Generator, image: Floats) -> None:
    size = image.shape[1]
    x, y = grid(size)
    fall = ((x - size / 2) * rng.normal(0, 0.04) + (y - size / 2) * rng.normal(0, 0.04)) / (size / 2)
    image *= np.asarray(rng.uniform(0.95, 1.03) * (1 + fall), np.float32)
