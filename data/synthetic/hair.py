"""Drawn hair: a mass around the head, and strands that run straight, in waves, in curls or in coils."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from data.synthetic.canvas import Floats, blank, fill, outline, paint, polyline, soften
from data.synthetic.looks import Look

# By type: how far a strand swings and how long one swing is, both in half head widths, whether it swings in
# both directions (a loop), and how full the hair stands around the head.
_TYPES = {
    "straight": (0.012, 1.30, False, 1.10),
    "wavy": (0.085, 0.62, False, 1.20),
    "curly": (0.105, 0.30, True, 1.34),
    "coily": (0.048, 0.105, True, 1.46),
}
_STRANDS = 130
_COILS = 900


def draw_hair(
    rng: np.random.Generator, image: Floats, look: Look, face: Floats, x: float, y: float, unit: float
) -> None:
    """Draw the hair over ``image [3, size, size]``, in place, leaving ``face`` [size, size] (0 to 1) free.

    ``x``, ``y`` is the head's middle, ``unit`` half its width, in pixels.
    """
    size = image.shape[1]
    swing, wave, loop, full = _TYPES[look.hair_type]
    mass = blank(size)
    top = y - 0.45 * unit
    fill(mass, outline(rng, x, top, full * unit, rough=0.10, stretch=1.0))
    down = y + (0.2 + 1.5 * look.hair_length) * unit
    if look.hair_type == "coily":  # stands rather than hangs
        down = y + (0.1 + 0.5 * look.hair_length) * unit
    for side in (-1, 1):
        wide = (full + 0.05 * look.hair_length) * unit
        edge = [
            (x + side * 0.62 * unit, top),
            (x + side * wide, top),
            (x + side * wide * rng.uniform(0.98, 1.06), down - 0.15 * unit),
            (x + side * 0.9 * unit, down),
            (x + side * 0.72 * unit, down - 0.1 * unit),
        ]
        fill(mass, np.asarray(edge, np.float32))
    if look.hair_type in ("curly", "coily"):  # a bumpy border
        border = cv2.Canny(mass, 50, 150)
        ys, xs = np.nonzero(border)
        for index in rng.choice(len(xs), size=min(len(xs), 90), replace=False):
            cv2.circle(
                mass, (int(xs[index]), int(ys[index])), int(rng.uniform(0.04, 0.09) * unit) + 1, 255, -1
            )
    where = np.asarray(soften(mass, 0.024 * unit) * (1 - face), np.float32)
    colour = np.asarray(look.hair_colour)
    paint(image, where, tuple((0.72 * colour).tolist()))
    light, dark = blank(size), blank(size)
    if look.hair_type == "coily":
        _coils(rng, light, dark, where, unit)
    for number in range(0 if look.hair_type == "coily" else _STRANDS):
        line = _strand(rng, x, top, unit, full, down, swing, wave, loop)
        polyline(light if number % 2 else dark, line, max(0.7, 0.017 * unit), int(rng.integers(130, 245)))
    paint(image, soften(dark, 0.3) * where * np.float32(0.75), tuple((0.35 * colour).tolist()))
    glow = np.clip(1.25 * colour + 0.10, 0, 1)
    paint(image, soften(light, 0.3) * where * np.float32(0.75), tuple(glow.tolist()))


def _coils(
    rng: np.random.Generator, light: NDArray[np.uint8], dark: NDArray[np.uint8], where: Floats, unit: float
) -> None:
    """Small rings all over the mass: coils are too tight for a strand to be followed."""
    ys, xs = np.nonzero(where > 0.5)
    if not len(xs):
        return
    for number, index in enumerate(rng.integers(0, len(xs), _COILS)):
        ring = light if number % 2 else dark
        radius = max(1, round(rng.uniform(0.03, 0.06) * unit))
        cv2.circle(
            ring, (int(xs[index]), int(ys[index])), radius, int(rng.integers(130, 245)), 1, cv2.LINE_AA
        )


def _strand(
    rng: np.random.Generator,
    x: float,
    top: float,
    unit: float,
    full: float,
    down: float,
    swing: float,
    wave: float,
    loop: bool,
) -> Floats:
    """One strand ``[N, 2]``: from the crown outwards along the head, then down, swinging as its type does."""
    side = rng.choice((-1.0, 1.0))
    reach = rng.uniform(0.1, 1.0) * full * unit
    start = top - np.sqrt(max(0.0, 1 - (reach / (full * unit)) ** 2)) * full * unit
    length = max(unit, float(down - start))
    count = int(min(700, max(40, 10 * length / (wave * unit))))
    along = np.linspace(0, 1, count, dtype=np.float32) * length
    lean = side * (reach + 0.10 * unit * np.sin(np.pi * along / length) + rng.normal(0, 0.03) * along)
    angle = 2 * np.pi * (along / (wave * unit * rng.uniform(0.85, 1.2)) + rng.random())
    sway = swing * unit * rng.uniform(0.7, 1.3)
    xs = x + lean + sway * np.sin(angle)
    ys = start + along + (sway * np.cos(angle) if loop else 0)
    return np.stack([xs, ys], axis=1).astype(np.float32)
