"""What both kinds of drawing share: smooth noise, soft shapes, and what a camera does to a picture.

A picture in the making is ``float32 [3, H, W]``, 0 to 1: a plane a colour, which NumPy works through fastest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Colour = tuple[float, float, float]

_SHIFT = 4  # OpenCV's sub-pixel drawing: coordinates in sixteenths
_ONE = 1 << _SHIFT


def smooth_noise(rng: np.random.Generator, size: int, cells: int) -> Floats:
    """Noise ``[size, size]`` of about unit spread whose bumps are ``size / cells`` wide."""
    coarse = rng.standard_normal((cells + 2, cells + 2)).astype(np.float32)
    return np.asarray(cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC), np.float32)


def grid(size: int) -> tuple[Floats, Floats]:
    """The pixel centres' x and y ``[size, size]``."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float32)
    return x, y


def ramp(value: Floats, low: float, high: float) -> Floats:
    """0 up to ``low``, 1 from ``high``, smooth between; falling when ``low`` is above ``high``."""
    t = np.clip((value - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def blank(size: int) -> NDArray[np.uint8]:
    """An empty mask."""
    return np.zeros((size, size), np.uint8)


def dot(mask: NDArray[np.uint8], x: float, y: float, radius: float, value: int = 255) -> None:
    """A disc with a soft edge, at a place and size between pixels."""
    cv2.circle(
        mask, (round(x * _ONE), round(y * _ONE)), max(1, round(radius * _ONE)), value, -1, cv2.LINE_AA, _SHIFT
    )


def polyline(mask: NDArray[np.uint8], points: Floats, width: float, value: int = 255) -> None:
    """A line through ``points [N, 2]``; widths below one pixel are drawn fainter instead."""
    strength = value if width >= 1 else round(value * max(width, 0.2))
    fixed = np.round(points * _ONE).astype(np.int32).reshape(-1, 1, 2)
    cv2.polylines(mask, [fixed], False, strength, max(1, round(width)), cv2.LINE_AA, _SHIFT)


def blob(
    mask: NDArray[np.uint8],
    rng: np.random.Generator,
    x: float,
    y: float,
    radius: float,
    *,
    rough: float = 0.2,
    stretch: float = 1.0,
    value: int = 255,
) -> None:
    """A filled, irregular closed shape; ``rough`` 0 is an ellipse, 0.5 is ragged."""
    fill(mask, outline(rng, x, y, radius, rough=rough, stretch=stretch), value)


def outline(
    rng: np.random.Generator, x: float, y: float, radius: float, *, rough: float, stretch: float = 1.0
) -> Floats:
    """An irregular closed line ``[N, 2]`` around a point."""
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False, dtype=np.float32)
    distance = np.ones(len(angle))
    for order in range(2, 8):
        distance += rough / order * rng.normal() * np.cos(order * angle + rng.uniform(0, 6.283))
    distance = np.maximum(distance, 0.25) * radius
    turn = rng.uniform(0, np.pi)
    across, along = distance * np.cos(angle), distance * np.sin(angle) * stretch
    return np.stack(
        [
            x + across * np.cos(turn) - along * np.sin(turn),
            y + across * np.sin(turn) + along * np.cos(turn),
        ],
        axis=1,
    ).astype(np.float32)


def fill(mask: NDArray[np.uint8], points: Floats, value: int = 255) -> None:
    """Fill a closed line ``[N, 2]``."""
    cv2.fillPoly(mask, [np.round(points * _ONE).astype(np.int32)], value, cv2.LINE_AA, _SHIFT)


def soften(mask: NDArray[np.uint8] | Floats, sigma: float) -> Floats:
    """A mask as 0 to 1, blurred."""
    values = mask.astype(np.float32) / 255 if mask.dtype == np.uint8 else np.asarray(mask, np.float32)
    if sigma < 0.2:
        return np.asarray(values, np.float32)
    return np.asarray(cv2.GaussianBlur(values, (0, 0), sigma), np.float32)


def paint(image: Floats, alpha: Floats, colour: Sequence[float] | NDArray[Any]) -> None:
    """Lay a colour over ``image [3, H, W]``, in place, as strongly as ``alpha [H, W]`` says."""
    for plane, value in zip(image, colour, strict=True):
        plane += alpha * (np.float32(value) - plane)


def stain(image: Floats, alpha: Floats, colour: Sequence[float]) -> None:
    """Multiply by a colour as strongly as ``alpha`` says: what lies below still shows, as through blood."""
    for plane, value in zip(image, colour, strict=True):
        plane *= 1 - alpha * np.float32(1 - value)


def finish(
    image: Floats,
    rng: np.random.Generator,
    *,
    blur: float,
    noise: float,
    gain: Colour,
    gamma: float,
) -> NDArray[np.uint8]:
    """The camera: colour balance, tone, a slightly soft lens, sensor noise. Gives ``uint8 [H, W, 3]``."""
    # One set of numbers for all three planes: sensors are noisier in colour, but nobody sees it at this size.
    grain = rng.standard_normal(image.shape[1:], dtype=np.float32) * (noise * 255)
    table = (np.linspace(0, 1, 1024, dtype=np.float32) ** gamma) * 255
    planes = []
    for plane, strength in zip(image, gain, strict=True):
        soft = cv2.GaussianBlur(plane, (0, 0), blur) if blur > 0.2 else plane
        steps = np.clip(soft * (1023 * strength), 0, 1023).astype(np.int32)
        planes.append(cv2.convertScaleAbs(np.maximum(table.take(steps) + grain, 0)))
    return np.asarray(cv2.merge(planes), np.uint8)
