"""A retina's vessels: arcades around the macula, branches towards the nose, each an artery with its vein."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data.synthetic.canvas import Floats, blank, dot, polyline

_STEPS = np.arange(400, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Anatomy:
    """Where things are, in pixels. ``side`` is +1 when the disc lies right of the macula (a right eye)."""

    size: int
    centre: tuple[float, float]
    radius: float
    macula: tuple[float, float]
    disc: tuple[float, float]
    disc_radius: float
    side: int

    def quadrant(self, x: float, y: float) -> int:
        """0 to 3: which quarter around the macula a point is in."""
        return (2 if y > self.macula[1] else 0) + (1 if x > self.macula[0] else 0)


@dataclass(frozen=True, slots=True)
class Vessels:
    """Masks ``uint8 [H, W]`` of arteries and veins, and the main veins' courses (for new vessels)."""

    arteries: NDArray[np.uint8]
    veins: NDArray[np.uint8]
    courses: tuple[Floats, ...]


def draw_vessels(rng: np.random.Generator, eye: Anatomy, beaded: frozenset[int] = frozenset()) -> Vessels:
    """Draw them. In the ``beaded`` quadrants the main veins swell and narrow like a string of pearls."""
    arteries, veins = blank(eye.size), blank(eye.size)
    courses = []
    scale = eye.radius / 120
    for up in (-1, 1):
        width = rng.uniform(2.6, 3.4) * scale
        for mask, widen, shift in ((veins, 1.0, 0.0), (arteries, 0.72, rng.uniform(0.05, 0.09))):
            course = _arcade(rng, eye, up, shift)
            _trunk(rng, eye, mask, course, width * widen, beaded if mask is veins else frozenset())
            _branches(rng, eye, mask, course, width * widen * 0.62, 2)
            if mask is veins:
                courses.append(course)
        nasal = _nasal(rng, eye, up)
        for mask, widen, shift in ((veins, 0.75, 0.0), (arteries, 0.55, 0.04 * eye.radius)):
            course = nasal + np.asarray([0.3 * shift, up * shift], np.float32)
            _trunk(rng, eye, mask, course, width * widen, frozenset())
            _branches(rng, eye, mask, course, width * widen * 0.6, 1)
            if mask is veins:
                courses.append(course)
    return Vessels(arteries, veins, tuple(courses))


def wander(rng: np.random.Generator, count: int, strength: float) -> Floats:
    """A smooth sideways wander ``[count]`` that starts at nothing: two waves of random length and phase."""
    a, b, p, q, u, w = rng.random(6)
    t = _STEPS[:count]
    first = np.sin((0.10 + 0.15 * u) * t + 6.283 * p) - np.sin(6.283 * p)
    second = np.sin((0.35 + 0.3 * w) * t + 6.283 * q) - np.sin(6.283 * q)
    return np.asarray(strength * ((0.5 + a) * first + 0.5 * (0.5 + b) * second), np.float32)


def curve(rng: np.random.Generator, x: float, y: float, angle: float, length: float, bend: float) -> Floats:
    """A wandering line ``[N, 2]`` from a point in a direction."""
    count = min(len(_STEPS), max(8, int(length / 3)))
    turn = angle + _STEPS[:count] * (bend / count) + wander(rng, count, 0.16)
    step = length / count
    course = np.empty((count, 2), np.float32)
    course[:, 0] = x + np.cumsum(np.cos(turn)) * step
    course[:, 1] = y + np.cumsum(np.sin(turn)) * step
    return course


def _arcade(rng: np.random.Generator, eye: Anatomy, up: int, shift: float) -> Floats:
    """From the disc in a wide bow above or below the macula: a parabola that opens away from the disc."""
    t = np.linspace(0, 1, 46, dtype=np.float32)
    reach = (rng.uniform(0.62, 0.74) + shift) * eye.radius
    away = -eye.side * (1.75 * eye.radius) * t
    rise = up * reach * np.sqrt(np.minimum(t * 1.9, 1)) * (1 - 0.35 * np.maximum(t - 0.6, 0))
    x = eye.disc[0] + away + eye.side * 0.1 * eye.radius * np.sin(np.pi * np.minimum(t * 3, 1))
    y = eye.disc[1] + rise + wander(rng, len(t), 0.014 * eye.radius)
    return np.stack([x, y], 1).astype(np.float32)


def _nasal(rng: np.random.Generator, eye: Anatomy, up: int) -> Floats:
    angle = np.arctan2(up * rng.uniform(0.5, 1.1), eye.side)
    return curve(rng, *eye.disc, float(angle), 0.75 * eye.radius, up * eye.side * rng.uniform(-0.4, 0.3))


def _trunk(
    rng: np.random.Generator,
    eye: Anatomy,
    mask: NDArray[np.uint8],
    course: Floats,
    width: float,
    beaded: frozenset[int],
) -> None:
    pieces = 6
    for piece in range(pieces):
        start, stop = piece * len(course) // pieces, (piece + 1) * len(course) // pieces + 1
        polyline(mask, course[start:stop], width * (1 - 0.6 * piece / pieces))
    if beaded:
        step = max(1.0, 4.2 * width)
        travelled = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(course, axis=0).T))])
        for at in np.arange(2 * step, travelled[-1], step):
            x = float(np.interp(at, travelled, course[:, 0]))
            y = float(np.interp(at, travelled, course[:, 1]))
            if eye.quadrant(x, y) in beaded:
                dot(mask, x, y, width * rng.uniform(0.95, 1.25))


def _branches(
    rng: np.random.Generator, eye: Anatomy, mask: NDArray[np.uint8], course: Floats, width: float, depth: int
) -> None:
    start = int(rng.integers(4, 8))
    for index in range(start, len(course) - 3, int(rng.integers(7, 11))):
        x, y = (float(value) for value in course[index])
        if np.hypot(x - eye.centre[0], y - eye.centre[1]) > 0.98 * eye.radius:
            break
        ahead = course[index + 2] - course[index]
        turn = rng.choice((-1, 1)) * rng.uniform(0.45, 1.0)
        angle = float(np.arctan2(ahead[1], ahead[0])) + turn
        branch = curve(rng, x, y, angle, rng.uniform(0.25, 0.65) * eye.radius, -0.7 * turn)
        branch = _outside_fovea(eye, branch)
        if len(branch) > 4:
            half = len(branch) // 2
            polyline(mask, branch[: half + 1], width)
            polyline(mask, branch[half:], 0.65 * width)
            if depth > 0 and width > 0.6:
                _branches(rng, eye, mask, branch, width * 0.6, depth - 1)


def _outside_fovea(eye: Anatomy, course: Floats) -> Floats:
    """Cut a course where it would enter the zone around the fovea that has no vessels."""
    distance = np.hypot(course[:, 0] - eye.macula[0], course[:, 1] - eye.macula[1])
    inside = np.flatnonzero(distance < 0.13 * eye.radius)
    return course[: inside[0]] if len(inside) else course
