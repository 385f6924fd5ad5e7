"""A drawn fundus photograph: retina, macula, optic disc, vessels, the lesions of a grade, and a camera."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data.synthetic.canvas import Colour, Floats, finish, grid, paint, ramp, smooth_noise, soften, stain
from data.synthetic.retinopathy import draw_haemorrhage_before, draw_lesions, findings
from data.synthetic.vessels import Anatomy, draw_vessels


@dataclass(frozen=True, slots=True)
class Camera:
    """How one clinic's camera takes pictures."""

    name: str
    gain: Colour
    gamma: float
    blur: float
    noise: float
    vignette: float
    fill: float  # the field of view's radius over half of the frame
    cut: float  # how much of the circle is cut off above and below


CAMERAS = (
    Camera("a", (1.00, 1.00, 1.00), 0.95, 0.35, 0.010, 0.30, 0.97, 0.00),
    Camera("b", (1.08, 0.92, 0.80), 1.05, 0.55, 0.016, 0.45, 1.04, 0.12),
    Camera("c", (0.93, 1.02, 1.12), 0.88, 0.45, 0.012, 0.20, 0.90, 0.00),
    Camera("d", (1.02, 0.96, 1.00), 1.15, 0.70, 0.022, 0.55, 0.99, 0.06),
)


def draw_fundus(rng: np.random.Generator, grade: int, size: int, camera: int, side: int) -> NDArray[np.uint8]:
    """An image ``uint8 [size, size, 3]`` of an eye with this grade; ``side`` +1 is a right eye."""
    taken = CAMERAS[camera]
    shown = findings(rng, grade)
    eye = _anatomy(rng, size, taken, side)
    vessels = draw_vessels(rng, eye, shown.beading)
    x, y = grid(size)

    image = _retina(rng, eye, x, y)
    _macula(rng, eye, image, x, y)
    _disc(rng, eye, image, x, y)
    unit = eye.radius / 120
    # Arteries are paler than veins.
    stain(image, soften(vessels.arteries, 0.45 * unit) * 0.72, (0.80, 0.52, 0.45))
    stain(image, soften(vessels.veins, 0.45 * unit) * 0.85, (0.66, 0.36, 0.34))
    draw_lesions(image, rng, eye, vessels, shown)
    draw_haemorrhage_before(image, rng, eye, shown)

    distance = np.hypot(x - eye.centre[0], y - eye.centre[1]) / eye.radius
    tilt = (
        (x - eye.centre[0]) * rng.normal(0, 0.09) + (y - eye.centre[1]) * rng.normal(0, 0.09)
    ) / eye.radius
    light = rng.uniform(0.78, 1.08) * (1 - taken.vignette * distance**2 * rng.uniform(0.8, 1.2) + tilt)
    inside = ramp(distance, 1.0, 0.975)
    if taken.cut:
        inside *= ramp(np.abs(y - eye.centre[1]) / eye.radius, 1 - taken.cut + 0.01, 1 - taken.cut - 0.01)
    image *= np.clip(light, 0.05, 1.5) * inside
    gain: Colour = tuple(value * rng.normal(1, 0.05) for value in taken.gain)  # type: ignore[assignment]
    blur = taken.blur * unit * rng.uniform(0.6, 1.3)
    return finish(
        image, rng, blur=blur, noise=taken.noise, gain=gain, gamma=taken.gamma * rng.normal(1, 0.06)
    )


def _anatomy(rng: np.random.Generator, size: int, camera: Camera, side: int) -> Anatomy:
    radius = size / 2 * camera.fill * rng.uniform(0.97, 1.0)
    centre = (size / 2 + rng.normal(0, 0.008) * size, size / 2 + rng.normal(0, 0.008) * size)
    # Some pictures have the macula in the middle, some lie half-way to the disc.
    offset = rng.choice([0.0, 0.28]) + rng.normal(0, 0.05)
    macula = (centre[0] - side * offset * radius, centre[1] + rng.normal(0.03, 0.05) * radius)
    disc = (macula[0] + side * rng.uniform(0.62, 0.7) * radius, macula[1] - rng.uniform(-0.02, 0.09) * radius)
    return Anatomy(size, centre, radius, macula, disc, radius * rng.uniform(0.125, 0.155), side)


def _retina(rng: np.random.Generator, eye: Anatomy, x: Floats, y: Floats) -> Floats:
    """The red-orange ground, from pale to strongly pigmented, with the choroid's mottling."""
    pale = rng.uniform(0, 1)
    base = (0.86 - 0.16 * (1 - pale), 0.40 + 0.16 * pale + rng.normal(0, 0.02), 0.17 + 0.13 * pale)
    mottle = 0.030 * smooth_noise(rng, eye.size, 7) + 0.018 * smooth_noise(rng, eye.size, 26)
    fine = 0.010 * smooth_noise(rng, eye.size, 90)
    mottle += fine
    planes = [
        np.float32(value) * (1 + np.float32(depth) * mottle)
        for value, depth in zip(base, (0.8, 1.3, 1.3), strict=True)
    ]
    return np.stack(planes)


def _macula(rng: np.random.Generator, eye: Anatomy, image: Floats, x: Floats, y: Floats) -> None:
    """A darker, yellowish-brown spot with a pin-point reflex."""
    distance = np.hypot(x - eye.macula[0], y - eye.macula[1]) / eye.radius
    stain(
        image,
        np.exp(-((distance / rng.uniform(0.13, 0.18)) ** 2)) * rng.uniform(0.55, 0.9),
        (0.72, 0.58, 0.55),
    )
    if rng.random() < 0.6:
        paint(image, np.exp(-((distance / 0.016) ** 2)) * 0.35, (1.0, 0.85, 0.6))


def _disc(rng: np.random.Generator, eye: Anatomy, image: Floats, x: Floats, y: Floats) -> None:
    """The pale yellow disc with its brighter cup, sometimes a pigmented crescent."""
    tall = rng.uniform(1.0, 1.15)
    dx, dy = (x - eye.disc[0]) / eye.disc_radius, (y - eye.disc[1]) / (eye.disc_radius * tall)
    distance = np.hypot(dx, dy)
    glow = np.exp(-((distance / 1.9) ** 2)) * 0.16
    paint(image, glow.astype(np.float32), (1.0, 0.75, 0.45))
    if rng.random() < 0.3:
        crescent = ramp(np.hypot(dx + eye.side * 0.18, dy), 1.14, 1.02)
        stain(image, crescent * 0.45, (0.7, 0.55, 0.5))
    paint(image, ramp(distance, 1.07, 0.90) * 0.9, (0.97, 0.78, 0.50))
    cup = rng.uniform(0.28, 0.5)
    inner = np.hypot(dx + eye.side * 0.12, dy)
    paint(image, ramp(inner, cup * 1.35, cup * 0.7) * 0.75, (1.0, 0.93, 0.74))
    np.minimum(image, 1.0, out=image)
