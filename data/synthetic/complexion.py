"""Skin and what is on it, drawn on any stretch of skin: a face's, or a patch that fills the picture.

=============  =======================================================================================
condition      what is drawn
=============  =======================================================================================
healthy        a mole or two, now and then one pimple
mild_acne      comedones (dark or white points) and a few small red papules
severe_acne    many papules and pustules (red with a yellow tip), some nodules, scars
rosacea        a flush over the middle of the face, fine red vessels in it, few papules and no comedones
eczema         red patches without a border, scaling and scratched
psoriasis      sharply bordered salmon plaques under silvery scale
pigmentation   brown, map-like patches, darker freckles
=============  =======================================================================================

Redness is a stain (what lies below shows through), so that it is dark rather than pink on dark
skin, as it is there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from data.synthetic.canvas import (
    Colour,
    Floats,
    blank,
    blob,
    dot,
    grid,
    paint,
    polyline,
    ramp,
    smooth_noise,
    soften,
    stain,
)
from data.synthetic.looks import Look
from data.synthetic.vessels import curve

_RED: Colour = (0.93, 0.50, 0.50)
_DEEP_RED: Colour = (0.80, 0.33, 0.33)
_BROWN: Colour = (0.70, 0.52, 0.40)


@dataclass(frozen=True, slots=True)
class Spot:
    """A part of the skin that conditions and light prefer, in pixels: an upright ellipse."""

    x: float
    y: float
    across: float
    down: float

    def inside(self, rng: np.random.Generator, reach: float = 1.0) -> tuple[float, float]:
        """A random place in it."""
        angle, distance = rng.uniform(0, 2 * np.pi), reach * np.sqrt(rng.random())
        return (
            float(self.x + self.across * distance * np.cos(angle)),
            float(self.y + self.down * distance * np.sin(angle)),
        )

    def field(self, size: int) -> Floats:
        """1 in its middle, falling smoothly to 0 at about 1.6 of its radii, ``[size, size]``."""
        x, y = grid(size)
        square = ((x - self.x) / self.across) ** 2 + ((y - self.y) / self.down) ** 2
        return np.asarray(np.exp(-1.2 * square), np.float32)


@dataclass(frozen=True, slots=True)
class Skin:
    """A stretch of skin: ``mask`` [size, size], 0 to 1; ``unit`` half a face's width in pixels; its parts.

    ``spots`` are ``cheeks`` (two), ``forehead``, ``nose`` and ``chin``; on a patch each is the whole patch.
    """

    image: Floats
    mask: Floats
    unit: float
    cheeks: tuple[Spot, Spot]
    forehead: Spot
    nose: Spot
    chin: Spot

    @property
    def size(self) -> int:
        """The picture's side in pixels."""
        return int(self.image.shape[1])

    @property
    def spots(self) -> tuple[Spot, ...]:
        """All of them."""
        return (*self.cheeks, self.forehead, self.nose, self.chin)

    def lay(self, alpha: Floats, colour: Colour) -> None:
        """Paint on the skin alone."""
        paint(self.image, alpha * self.mask, colour)

    def redden(self, alpha: Floats, colour: Colour = _RED) -> None:
        """Stain the skin alone."""
        stain(self.image, alpha * self.mask, colour)


def grain(rng: np.random.Generator, skin: Skin, look: Look) -> None:
    """The skin's own unevenness and pores."""
    size = skin.size
    cells = max(4, round(5 * size / skin.unit))
    mottle = 0.5 * smooth_noise(rng, size, cells) + 0.5 * smooth_noise(rng, size, 3 * cells)
    fine = smooth_noise(rng, size, min(size - 2, 9 * cells))
    pores = {"oily": 0.030, "combination": 0.024, "dry": 0.012}.get(look.skin_type, 0.018)
    depth = 0.028 * mottle + pores * fine
    for plane, weight in zip(skin.image, (0.7, 1.0, 1.1), strict=True):
        plane *= 1 + np.float32(weight) * depth * skin.mask


def draw_type(rng: np.random.Generator, skin: Skin, look: Look) -> None:
    """What tells the skin type: shine and where it is, flakes, or a blotchy red."""
    if look.skin_type in ("oily", "combination"):
        zones = [skin.forehead, skin.nose, skin.chin]
        if look.skin_type == "oily":
            zones += skin.cheeks
        _shine(rng, skin, zones)
    elif look.skin_type == "dry":
        _dryness(rng, skin)
    elif look.skin_type == "sensitive":
        blotches = ramp(smooth_noise(rng, skin.size, max(4, round(4 * skin.size / skin.unit))), 0.1, 1.2)
        where = np.clip(sum(spot.field(skin.size) for spot in skin.cheeks) + 0.35, 0, 1)
        skin.redden(np.asarray(blotches * where * rng.uniform(0.35, 0.6), np.float32))


def draw_condition(rng: np.random.Generator, skin: Skin, condition: str) -> None:
    """What is on the skin."""
    _CONDITIONS[condition](rng, skin)


def _shine(rng: np.random.Generator, skin: Skin, zones: list[Spot]) -> None:
    alpha = np.zeros((skin.size, skin.size), np.float32)
    for zone in zones:
        x, y = zone.x + 0.25 * zone.across * rng.normal(), zone.y - 0.25 * zone.down
        small = Spot(float(x), float(y), 0.55 * zone.across, 0.5 * zone.down)
        alpha = np.maximum(alpha, small.field(skin.size) * np.float32(rng.uniform(0.45, 0.75)))
    broken = 0.9 + 0.1 * smooth_noise(rng, skin.size, max(6, round(6 * skin.size / skin.unit)))
    skin.lay(np.clip(alpha * broken, 0, 0.8).astype(np.float32), (1.0, 0.985, 0.96))


def _dryness(rng: np.random.Generator, skin: Skin) -> None:
    size, unit = skin.size, skin.unit / 70
    flakes, cracks = blank(size), blank(size)
    for _ in range(int(rng.integers(45, 110))):
        spot = skin.spots[int(rng.integers(len(skin.spots)))]
        x, y = spot.inside(rng, 1.1)
        blob(flakes, rng, x, y, rng.uniform(0.7, 1.9) * unit, rough=0.5, value=int(rng.integers(120, 230)))
    for _ in range(int(rng.integers(14, 34))):
        spot = skin.spots[int(rng.integers(len(skin.spots)))]
        x, y = spot.inside(rng)
        line = curve(rng, x, y, rng.uniform(0, 6.3), rng.uniform(6, 15) * unit, rng.normal(0, 0.8))
        polyline(cracks, line, 0.8 * unit, 150)
    grey = float(skin.image.mean())
    skin.lay(np.full((size, size), 0.10, np.float32), (grey + 0.05, grey + 0.04, grey + 0.04))
    pale = tuple(min(1.0, 0.62 + 0.45 * value) for value in skin.image.mean(axis=(1, 2)).tolist())
    skin.lay(soften(flakes, 0.4 * unit) * 0.5, (pale[0], pale[1], pale[2]))
    skin.lay(soften(cracks, 0.3 * unit) * 0.4, (0.35, 0.22, 0.18))


def _bumps(
    rng: np.random.Generator, skin: Skin, count: int, radius: tuple[float, float], *, tips: float
) -> None:
    """Papules: red rounds with a darker rim; a share of them with a yellow tip."""
    size, unit = skin.size, skin.unit / 70
    red, core, tip = blank(size), blank(size), blank(size)
    for _ in range(count):
        spot = skin.spots[int(rng.choice(5, p=(0.27, 0.27, 0.22, 0.06, 0.18)))]
        x, y = spot.inside(rng, 1.05)
        r = rng.uniform(*radius) * unit
        blob(red, rng, x, y, 1.5 * r, rough=0.2, value=int(rng.integers(150, 235)))
        dot(core, x, y, 0.75 * r, int(rng.integers(150, 240)))
        if rng.random() < tips:
            dot(tip, x, y, 0.45 * r, 235)
    skin.redden(soften(red, 0.8 * unit))
    skin.redden(soften(core, 0.5 * unit) * 0.6, _DEEP_RED)
    skin.lay(soften(tip, 0.3 * unit) * 0.9, (0.97, 0.90, 0.68))


def _comedones(rng: np.random.Generator, skin: Skin, count: int) -> None:
    size, unit = skin.size, skin.unit / 70
    black, white = blank(size), blank(size)
    for _ in range(count):
        spot = skin.spots[int(rng.integers(5))]
        dot(black if rng.random() < 0.6 else white, *spot.inside(rng), rng.uniform(0.5, 1.0) * unit, 220)
    skin.lay(soften(black, 0.3 * unit) * 0.75, (0.20, 0.13, 0.10))
    skin.lay(soften(white, 0.4 * unit) * 0.6, (0.95, 0.90, 0.84))


def _healthy(rng: np.random.Generator, skin: Skin) -> None:
    moles = blank(skin.size)
    for _ in range(int(rng.choice([0, 0, 1, 2]))):
        spot = skin.spots[int(rng.integers(5))]
        dot(moles, *spot.inside(rng), rng.uniform(0.7, 1.5) * skin.unit / 70, 230)
    skin.lay(soften(moles, 0.3) * 0.85, (0.22, 0.13, 0.09))
    if rng.random() < 0.25:
        _bumps(rng, skin, 1, (1.2, 2.0), tips=0.3)


def _mild_acne(rng: np.random.Generator, skin: Skin) -> None:
    _comedones(rng, skin, int(rng.integers(8, 22)))
    _bumps(rng, skin, int(rng.integers(5, 12)), (1.3, 2.3), tips=0.25)


def _severe_acne(rng: np.random.Generator, skin: Skin) -> None:
    size, unit = skin.size, skin.unit / 70
    _comedones(rng, skin, int(rng.integers(5, 18)))
    scars = blank(size)
    for _ in range(int(rng.integers(4, 16))):
        spot = skin.cheeks[int(rng.integers(2))]
        blob(scars, rng, *spot.inside(rng), rng.uniform(0.8, 1.8) * unit, rough=0.4)
    skin.lay(soften(scars, 0.5 * unit) * 0.4, (0.45, 0.30, 0.26))
    nodules = blank(size)
    for _ in range(int(rng.integers(3, 9))):
        spot = skin.spots[int(rng.choice([0, 1, 0, 1, 4, 2]))]
        blob(nodules, rng, *spot.inside(rng, 0.9), rng.uniform(3.0, 5.0) * unit, rough=0.25)
    skin.redden(soften(nodules, 1.3 * unit) * 0.85, _DEEP_RED)
    _bumps(rng, skin, int(rng.integers(20, 45)), (1.4, 3.0), tips=0.45)


def _rosacea(rng: np.random.Generator, skin: Skin) -> None:
    size, unit = skin.size, skin.unit / 70
    flush = np.zeros((size, size), np.float32)
    zones = (*skin.cheeks, skin.nose, *((skin.chin, skin.forehead) if rng.random() < 0.5 else ()))
    for zone in zones:
        wide = Spot(zone.x, zone.y, 1.15 * zone.across, 1.15 * zone.down)
        flush = np.maximum(flush, wide.field(size) * np.float32(rng.uniform(0.75, 1.0)))
    uneven = 0.85 + 0.15 * smooth_noise(rng, size, max(6, round(7 * size / skin.unit)))
    skin.redden(np.clip(flush * uneven * rng.uniform(0.65, 1.0), 0, 1).astype(np.float32))
    vessels = blank(size)
    for _ in range(int(rng.integers(14, 34))):
        zone = (*skin.cheeks, skin.nose)[int(rng.integers(3))]
        x, y = zone.inside(rng, 0.9)
        line = curve(rng, x, y, rng.uniform(0, 6.3), rng.uniform(6, 18) * unit, rng.normal(0, 1.2))
        polyline(vessels, line, rng.uniform(0.6, 1.0) * unit, 220)
    skin.redden(soften(vessels, 0.35 * unit) * 0.8, (0.75, 0.30, 0.34))
    if rng.random() < 0.5:
        _bumps(rng, skin, int(rng.integers(2, 6)), (1.2, 2.0), tips=0.1)


def _eczema(rng: np.random.Generator, skin: Skin) -> None:
    size, unit = skin.size, skin.unit / 70
    patch = blank(size)
    places = []
    for _ in range(int(rng.integers(2, 5))):
        spot = skin.spots[int(rng.choice([0, 1, 2, 4]))]
        x, y = spot.inside(rng, 0.8)
        radius = rng.uniform(9, 18) * unit
        places.append((x, y, radius))
        blob(patch, rng, x, y, radius, rough=0.45, stretch=rng.uniform(0.5, 1))
    area = soften(patch, 3.5 * unit)
    skin.redden(area * np.float32(rng.uniform(0.65, 0.95)), (0.88, 0.52, 0.48))
    flakes, scratches, crusts = blank(size), blank(size), blank(size)
    for x, y, radius in places:
        for _ in range(int(rng.integers(14, 34))):
            at = rng.normal(0, 0.5, 2) * radius
            blob(flakes, rng, x + at[0], y + at[1], rng.uniform(0.6, 1.8) * unit, rough=0.5, value=210)
        lean = rng.uniform(0, 3.1)
        for _ in range(int(rng.integers(3, 8))):
            at = rng.normal(0, 0.45, 2) * radius
            line = curve(rng, x + at[0], y + at[1], lean + rng.normal(0, 0.2), 0.8 * radius, 0.1)
            polyline(scratches, line, 0.9 * unit, 220)
        for _ in range(int(rng.integers(0, 5))):
            at = rng.normal(0, 0.4, 2) * radius
            blob(crusts, rng, x + at[0], y + at[1], rng.uniform(0.8, 2.2) * unit, rough=0.4)
    skin.lay(soften(flakes, 0.4 * unit) * 0.45, (0.93, 0.84, 0.78))
    skin.redden(soften(scratches, 0.3 * unit) * 0.8, _DEEP_RED)
    skin.lay(soften(crusts, 0.5 * unit) * 0.7, (0.62, 0.40, 0.20))


def _psoriasis(rng: np.random.Generator, skin: Skin) -> None:
    size, unit = skin.size, skin.unit / 70
    plaque = blank(size)
    for _ in range(int(rng.integers(2, 5))):
        spot = skin.spots[int(rng.choice([2, 2, 0, 1, 4]))]
        x, y = spot.inside(rng, 0.95)
        blob(plaque, rng, x, y, rng.uniform(8, 17) * unit, rough=0.2, stretch=rng.uniform(0.6, 1))
    sharp = soften(plaque, 0.6 * unit)
    skin.redden(sharp * np.float32(rng.uniform(0.8, 1.0)), (0.86, 0.50, 0.46))
    plates = np.abs(smooth_noise(rng, size, max(10, round(14 * size / skin.unit))))
    inner = ramp(soften(plaque, 2.5 * unit), 0.45, 0.95)
    scale = ramp(plates, -0.5, 0.9) * inner * np.float32(rng.uniform(0.6, 0.9))
    skin.lay(np.asarray(scale, np.float32), (0.93, 0.91, 0.90))


def _pigmentation(rng: np.random.Generator, skin: Skin) -> None:
    size, unit = skin.size, skin.unit / 70
    patch, freckles = blank(size), blank(size)
    if rng.random() < 0.8:
        zones = [*skin.cheeks] + ([skin.forehead] if rng.random() < 0.5 else [])
        for zone in zones:
            for _ in range(int(rng.integers(2, 5))):
                x, y = zone.inside(rng, 0.8)
                blob(patch, rng, x, y, rng.uniform(5, 12) * unit, rough=0.55, stretch=rng.uniform(0.6, 1))
    count = int(rng.integers(30, 90)) if not patch.any() or rng.random() < 0.5 else int(rng.integers(0, 15))
    for _ in range(count):
        spot = skin.spots[int(rng.integers(4))]
        dot(freckles, *spot.inside(rng, 1.1), rng.uniform(0.5, 1.6) * unit, int(rng.integers(120, 230)))
    skin.redden(soften(patch, 1.3 * unit) * np.float32(rng.uniform(0.6, 0.95)), _BROWN)
    skin.redden(soften(freckles, 0.4 * unit) * 0.9, (0.60, 0.42, 0.30))


_CONDITIONS: Mapping[str, Callable[[np.random.Generator, Skin], None]] = MappingProxyType(
    {
        "healthy": _healthy,
        "mild_acne": _mild_acne,
        "severe_acne": _severe_acne,
        "rosacea": _rosacea,
        "eczema": _eczema,
        "psoriasis": _psoriasis,
        "pigmentation": _pigmentation,
    }
)
