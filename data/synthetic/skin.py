"""A drawn dermoscopic photograph: skin, one lesion with the structures of its diagnosis, hairs, and light.

========  ==========================================================================================
code      what is drawn (the seven diagnoses of HAM10000, their usual dermoscopic criteria)
========  ==========================================================================================
nv        symmetric, one or two browns, a regular net or globules that fade at the border
mel       asymmetric, ragged, several colours (black, browns, blue-grey veil, white and red parts), an
          irregular net, dots and streaks at the border
bkl       sharply bordered, yellow-brown to grey, milia-like white cysts, dark comedo-like openings, ridges
bcc       pink and pearly, branching red vessels in focus, blue-grey nests, sometimes an ulcer
akiec     scaly pink-red patch without a border, a red net around pale follicles (strawberry pattern)
vasc      round red to purple lagoons, sharply bordered
df        a white, scar-like centre with a delicate, pale brown net around it
========  ==========================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import cv2
import numpy as np
from numpy.typing import NDArray

from data.synthetic.canvas import (
    Floats,
    blank,
    blob,
    dot,
    fill,
    finish,
    grid,
    outline,
    paint,
    polyline,
    ramp,
    smooth_noise,
    soften,
    stain,
)
from data.synthetic.vessels import curve

#: Real lesions are seldom as in a textbook: so many also have some of the look of what they are taken for.
_AMBIGUOUS = 0.55
_TAKEN_FOR = {
    "nv": ("mel", "bkl", "df"),
    "mel": ("nv", "bkl", "vasc"),
    "bkl": ("mel", "nv", "akiec"),
    "bcc": ("akiec", "bkl", "vasc"),
    "akiec": ("bcc", "bkl"),
    "vasc": ("mel", "bcc"),
    "df": ("nv", "bcc"),
}


class _Scene:
    """A picture in the making: the skin, and where the lesion is."""

    def __init__(self, rng: np.random.Generator, size: int) -> None:
        self.rng, self.size, self.unit = rng, size, size / 256
        self.image = _skin(rng, size)
        self.x = size / 2 + rng.normal(0, 0.04) * size
        self.y = size / 2 + rng.normal(0, 0.04) * size
        self.radius = rng.uniform(0.2, 0.37) * size

    def lesion(self, rough: float, edge: float, stretch: float | None = None) -> Floats:
        """The lesion's shape, 0 to 1; ``edge`` is how softly it ends, in pixels of a 256 px picture."""
        mask = blank(self.size)
        squeeze = self.rng.uniform(0.7, 1.0) if stretch is None else stretch
        fill(mask, outline(self.rng, self.x, self.y, self.radius, rough=rough, stretch=squeeze))
        return soften(mask, edge * self.unit)

    def inside(self, reach: float = 0.8) -> tuple[float, float]:
        """A random place in the lesion."""
        angle, distance = self.rng.uniform(0, 2 * np.pi), self.radius * reach * np.sqrt(self.rng.random())
        return float(self.x + distance * np.cos(angle)), float(self.y + distance * np.sin(angle) * 0.85)

    def net(self, cell: float, regular: float) -> Floats:
        """A pigment net's lines, 0 to 1: the borders of cells about ``cell`` pixels wide (256 px picture)."""
        return _net(self.rng, self.size, cell * self.unit, regular)


def draw_lesion(rng: np.random.Generator, code: str, size: int, camera: int) -> NDArray[np.uint8]:
    """An image ``uint8 [size, size, 3]`` of a lesion with this diagnosis."""
    scene = _Scene(rng, size)
    bare, x, y, radius = scene.image.copy(), scene.x, scene.y, scene.radius
    _DRAW[code](scene)
    if rng.random() < _AMBIGUOUS:
        likeness = scene.image
        scene.image, scene.x, scene.y, scene.radius = bare, x, y, radius
        _DRAW[str(rng.choice(_TAKEN_FOR[code]))](scene)
        share = np.float32(rng.uniform(0.3, 0.56))
        scene.image = (1 - share) * likeness + share * scene.image
    _hairs(rng, scene.image)
    _light(rng, scene.image, camera)
    gains = ((1.0, 1.0, 1.0), (1.04, 0.97, 0.93), (0.95, 0.98, 1.06), (1.0, 1.03, 0.98))
    gain = gains[camera]
    balance = (gain[0] * rng.normal(1, 0.03), gain[1] * rng.normal(1, 0.025), gain[2] * rng.normal(1, 0.035))
    return finish(
        scene.image,
        rng,
        blur=(0.35, 0.6, 0.45, 0.8)[camera] * scene.unit * rng.uniform(0.6, 1.4),
        noise=(0.008, 0.014, 0.011, 0.018)[camera],
        gain=balance,
        gamma=rng.normal(1.0, 0.07),
    )


def _skin(rng: np.random.Generator, size: int) -> Floats:
    tone = rng.uniform(0, 1)
    base = np.asarray([0.93 - 0.12 * tone, 0.73 - 0.15 * tone, 0.68 - 0.18 * tone])
    base = (base + rng.normal(0, 0.015, 3)).astype(np.float32)
    mottle = 0.022 * smooth_noise(rng, size, 6)
    furrows = 0.012 * np.abs(smooth_noise(rng, size, 36)) + 0.008 * smooth_noise(rng, size, 110)
    return np.stack(
        [
            value + np.float32(depth) * mottle - furrows
            for value, depth in zip(base, (0.6, 1.2, 1.1), strict=True)
        ]
    )


def _net(rng: np.random.Generator, size: int, cell: float, regular: float) -> Floats:
    """Borders between the nearest and the second nearest of jittered points, by two distance transforms."""
    pitch = max(3.0, cell)
    count = int(size / pitch) + 2
    rows, columns = np.mgrid[0:count, 0:count].astype(np.float32)
    jitter = 0.5 * (1 - regular)
    px = (columns + 0.5 * (rows % 2) + rng.uniform(-jitter, jitter, rows.shape)) * pitch
    py = (rows + rng.uniform(-jitter, jitter, rows.shape)) * pitch
    seeds = np.full((size, size), 255, np.uint8)
    ix, iy = np.round(px).astype(int).ravel(), np.round(py).astype(int).ravel()
    keep = (ix >= 0) & (iy >= 0) & (ix < size) & (iy < size)
    seeds[iy[keep], ix[keep]] = 0
    distance = np.asarray(cv2.distanceTransform(seeds, cv2.DIST_L2, 3), np.float32)
    return ramp(distance, 0.36 * pitch, 0.58 * pitch)


def _nv(scene: _Scene) -> None:
    rng, image = scene.rng, scene.image
    shape = scene.lesion(0.10, rng.uniform(3, 7))
    brown = np.asarray([0.56, 0.36, 0.24]) * rng.uniform(0.8, 1.25)
    paint(image, shape * rng.uniform(0.6, 0.85), tuple(np.clip(brown, 0, 1)))
    if rng.random() < 0.5:  # darker in the middle
        x, y = grid(scene.size)
        middle = np.exp(-(((x - scene.x) ** 2 + (y - scene.y) ** 2) / (0.5 * scene.radius) ** 2))
        paint(image, (middle * shape * 0.5).astype(np.float32), tuple(brown * 0.6))
    if rng.random() < 0.6:
        net = scene.net(rng.uniform(6, 9), rng.uniform(0.4, 0.65))
        paint(image, net * shape**2 * rng.uniform(0.3, 0.5), tuple(brown * 0.6))
    else:
        globules = blank(scene.size)
        for _ in range(int(rng.integers(25, 60))):
            dot(
                globules, *scene.inside(0.85), rng.uniform(1.3, 2.6) * scene.unit, int(rng.integers(120, 220))
            )
        paint(image, soften(globules, 0.6 * scene.unit) * shape, tuple(brown * 0.5))


def _mel(scene: _Scene) -> None:
    rng, image = scene.rng, scene.image
    scene.radius *= 1.15
    shape = scene.lesion(0.42, rng.uniform(1.2, 3))
    brown = np.asarray([0.42, 0.26, 0.19]) * rng.uniform(0.8, 1.25)
    paint(image, shape * 0.85, tuple(brown))
    parts = (
        ((0.10, 0.075, 0.08), 0.85),
        ((0.62, 0.42, 0.30), 0.7),
        ((0.38, 0.40, 0.46), 0.75),
        ((0.80, 0.66, 0.64), 0.6),
        ((0.66, 0.26, 0.24), 0.5),
    )
    chosen = rng.choice(len(parts), size=int(rng.integers(2, 5)), replace=False).tolist()
    if not {0, 2} & set(chosen):
        chosen.append(int(rng.choice([0, 2])))
    for index in chosen:
        colour, strength = parts[index]
        patch = blank(scene.size)
        blob(patch, rng, *scene.inside(0.75), scene.radius * rng.uniform(0.25, 0.6), rough=0.5)
        paint(image, soften(patch, rng.uniform(4, 10) * scene.unit) * shape * strength, colour)
    net = scene.net(rng.uniform(7, 12), 0.1) * ramp(smooth_noise(scene.rng, scene.size, 5), -0.3, 0.8)
    paint(image, net * shape**2 * rng.uniform(0.35, 0.6), tuple(brown * 0.4))
    marks = blank(scene.size)
    for _ in range(int(rng.integers(8, 30))):
        dot(marks, *scene.inside(1.0), rng.uniform(0.9, 3.2) * scene.unit, int(rng.integers(150, 255)))
    if rng.random() < 0.6:  # streaks run outwards over a part of the border
        start = rng.uniform(0, 2 * np.pi)
        for _ in range(int(rng.integers(6, 16))):
            angle = start + rng.uniform(0, 1.6)
            x = scene.x + 0.85 * scene.radius * np.cos(angle)
            y = scene.y + 0.75 * scene.radius * np.sin(angle)
            line = curve(rng, x, y, angle, rng.uniform(0.15, 0.4) * scene.radius, rng.normal(0, 0.3))
            polyline(marks, line, rng.uniform(1.2, 2.4) * scene.unit)
    paint(image, soften(marks, 0.6 * scene.unit) * 0.85, (0.14, 0.09, 0.08))


def _bkl(scene: _Scene) -> None:
    rng, image = scene.rng, scene.image
    shape = scene.lesion(0.2, rng.uniform(0.7, 1.6))
    base = np.asarray([0.62, 0.47, 0.33]) if rng.random() < 0.65 else np.asarray([0.5, 0.45, 0.41])
    base = base * rng.uniform(0.85, 1.15)
    paint(image, shape * 0.82, tuple(base))
    ridges = np.abs(smooth_noise(rng, scene.size, int(rng.integers(20, 34))))
    if rng.random() < 0.65:  # cerebriform ridges
        paint(image, ramp(ridges, 0.35, 0.05) * shape * 0.55, tuple(base * 0.55))
    else:
        paint(image, ramp(ridges, 0.3, 1.2) * shape * 0.3, tuple(base * 0.65))
    light, dark = blank(scene.size), blank(scene.size)
    for _ in range(int(rng.integers(6, 24))):
        dot(light, *scene.inside(0.85), rng.uniform(1.4, 3.2) * scene.unit)
    for _ in range(int(rng.integers(3, 16))):
        blob(dark, rng, *scene.inside(0.85), rng.uniform(1.6, 3.8) * scene.unit, rough=0.25)
    paint(image, soften(light, 0.8 * scene.unit) * shape * 0.85, (0.95, 0.90, 0.80))
    paint(image, soften(dark, 0.7 * scene.unit) * shape * 0.85, (0.25, 0.16, 0.11))


def _bcc(scene: _Scene) -> None:
    rng, image = scene.rng, scene.image
    shape = scene.lesion(0.25, rng.uniform(3, 7))
    paint(image, shape * rng.uniform(0.55, 0.85), (0.84, 0.56, 0.56))
    shine = ramp(smooth_noise(rng, scene.size, 9), 0.5, 1.6)
    paint(image, shine * shape * 0.45, (0.97, 0.88, 0.87))
    vessels = blank(scene.size)
    for _ in range(int(rng.integers(3, 6))):
        angle = rng.uniform(0, 2 * np.pi)
        x, y = scene.x + 0.95 * scene.radius * np.cos(angle), scene.y + 0.85 * scene.radius * np.sin(angle)
        _tree(rng, vessels, x, y, angle + np.pi + rng.normal(0, 0.5), 1.0 * scene.radius, 1.9 * scene.unit, 3)
    stain(image, soften(vessels, 0.45 * scene.unit) * np.clip(shape * 1.3, 0, 1) * 0.9, (0.78, 0.28, 0.28))
    nests = blank(scene.size)
    if rng.random() < 0.75:
        for _ in range(int(rng.integers(2, 8))):
            blob(nests, rng, *scene.inside(0.8), rng.uniform(3.5, 10) * scene.unit, rough=0.25)
        paint(image, soften(nests, 1.8 * scene.unit) * 0.72, (0.36, 0.37, 0.46))
    if rng.random() < 0.4:
        ulcer = blank(scene.size)
        blob(ulcer, rng, *scene.inside(0.4), rng.uniform(8, 18) * scene.unit, rough=0.4)
        paint(image, soften(ulcer, 1.6 * scene.unit) * 0.85, (0.60, 0.22, 0.14))


def _akiec(scene: _Scene) -> None:
    rng, image = scene.rng, scene.image
    scene.radius *= 1.1
    shape = scene.lesion(0.3, rng.uniform(9, 16))
    paint(image, shape * rng.uniform(0.5, 0.75), (0.83, 0.47, 0.43))
    patchy = ramp(smooth_noise(rng, scene.size, 8), -0.4, 1.2)
    paint(image, patchy * shape * 0.35, (0.72, 0.34, 0.32))
    net = scene.net(rng.uniform(10, 14), 0.15)
    stain(image, net * shape * 0.45, (0.82, 0.52, 0.50))
    follicles = blank(scene.size)
    for _ in range(int(rng.integers(14, 40))):
        x, y = scene.inside(0.9)
        dot(follicles, x, y, rng.uniform(2.0, 3.6) * scene.unit, 210)
    paint(image, soften(follicles, 0.9 * scene.unit) * shape * 0.75, (0.95, 0.84, 0.72))
    scale = ramp(smooth_noise(rng, scene.size, 22), 0.7, 1.5) * ramp(
        smooth_noise(rng, scene.size, 5), -0.2, 0.8
    )
    paint(image, scale * shape * rng.uniform(0.5, 0.9), (0.97, 0.94, 0.88))


def _vasc(scene: _Scene) -> None:
    rng, image = scene.rng, scene.image
    scene.radius *= rng.uniform(0.6, 0.95)
    shape = scene.lesion(0.15, rng.uniform(1.5, 3))
    hue = rng.random()
    red = np.asarray([0.66, 0.13, 0.16]) * (1 - hue) + np.asarray([0.36, 0.12, 0.28]) * hue
    paint(image, shape * rng.uniform(0.35, 0.7), tuple(np.clip(red * 1.35, 0, 1)))
    lagoons = blank(scene.size)
    for _ in range(int(rng.integers(7, 22))):
        x, y = scene.inside(0.85)
        blob(
            lagoons,
            rng,
            x,
            y,
            rng.uniform(0.14, 0.30) * scene.radius,
            rough=0.12,
            value=int(rng.integers(180, 255)),
        )
    alpha = soften(lagoons, 1.0 * scene.unit)
    paint(image, alpha * 0.9, tuple(red * rng.uniform(0.75, 1.05)))
    veil = ramp(smooth_noise(rng, scene.size, 7), 0.5, 1.5)
    paint(image, veil * shape * 0.3, (0.82, 0.70, 0.76))


def _df(scene: _Scene) -> None:
    rng, image = scene.rng, scene.image
    scene.radius *= rng.uniform(0.75, 1.0)
    shape = scene.lesion(0.08, rng.uniform(6, 11), stretch=rng.uniform(0.85, 1.0))
    brown = np.asarray([0.66, 0.47, 0.37]) * rng.uniform(0.85, 1.1)
    paint(image, shape * 0.7, tuple(brown))
    net = scene.net(rng.uniform(5.5, 8), 0.5)
    paint(image, net * shape * 0.45, tuple(brown * 0.68))
    scar = blank(scene.size)
    blob(scar, rng, scene.x, scene.y, scene.radius * rng.uniform(0.35, 0.55), rough=0.3)
    paint(image, soften(scar, rng.uniform(5, 9) * scene.unit) * rng.uniform(0.65, 0.95), (0.96, 0.86, 0.81))
    if rng.random() < 0.5:
        paint(image, shape * 0.18, (0.86, 0.44, 0.44))


def _tree(
    rng: np.random.Generator,
    mask: np.ndarray,
    x: float,
    y: float,
    angle: float,
    length: float,
    width: float,
    depth: int,
) -> None:
    line = curve(rng, x, y, angle, length, rng.normal(0, 0.6))
    polyline(mask, line, width)
    if depth > 0 and width > 0.6:
        for _ in range(int(rng.integers(2, 4))):
            at = line[int(rng.integers(len(line) // 4, len(line)))]
            turn = rng.choice((-1, 1)) * rng.uniform(0.4, 1.0)
            _tree(
                rng,
                mask,
                float(at[0]),
                float(at[1]),
                angle + turn,
                length * rng.uniform(0.3, 0.55),
                width * 0.6,
                depth - 1,
            )


def _hairs(rng: np.random.Generator, image: Floats) -> None:
    """No hair, a few, or many; dark or fair."""
    size = image.shape[1]
    count = int(rng.choice([0, 0, 3, 8, 16])) + int(rng.integers(0, 3))
    if not count:
        return
    mask = blank(size)
    lean = rng.uniform(0, np.pi)
    for _ in range(count):
        angle = lean + rng.normal(0, 0.5)
        x, y = rng.uniform(0, size, 2)
        length = rng.uniform(0.25, 0.8) * size
        line = curve(
            rng,
            float(x - 0.5 * length * np.cos(angle)),
            float(y - 0.5 * length * np.sin(angle)),
            angle,
            length,
            rng.normal(0, 0.5),
        )
        polyline(mask, line, rng.uniform(0.7, 1.6) * size / 256, int(rng.integers(140, 240)))
    colour = (0.16, 0.11, 0.09) if rng.random() < 0.75 else (0.80, 0.66, 0.45)
    paint(image, soften(mask, 0.3 * size / 256) * 0.85, colour)


def _light(rng: np.random.Generator, image: Floats, camera: int) -> None:
    """Fall-off to the corners, sometimes the dermatoscope's rim, a ruler, or a bubble in the gel."""
    size = image.shape[1]
    x, y = grid(size)
    distance = np.hypot(x - size / 2, y - size / 2) / (size / 2)
    tilt = ((x - size / 2) * rng.normal(0, 0.06) + (y - size / 2) * rng.normal(0, 0.06)) / (size / 2)
    fall = (0.05, 0.16, 0.1, 0.22)[camera]
    image *= np.asarray(rng.uniform(0.88, 1.06) * (1 - fall * distance**2 + tilt), np.float32)
    if camera in (1, 3) and rng.random() < 0.5:
        image *= ramp(distance, rng.uniform(1.15, 1.3), 1.1)
    if camera == 2 and rng.random() < 0.5:
        ruler = blank(size)
        row = rng.uniform(0.9, 0.96) * size
        for index, at in enumerate(np.arange(0.03, 1, 0.045)):
            reach = (0.035 if index % 5 else 0.06) * size
            polyline(ruler, np.asarray([[at * size, row], [at * size, row + reach]], np.float32), size / 256)
        paint(image, soften(ruler, 0.3) * 0.7, (0.12, 0.12, 0.14))
    if rng.random() < 0.3:
        bubbles = blank(size)
        for _ in range(int(rng.integers(1, 6))):
            cx, cy = rng.uniform(0, size, 2)
            cv2.circle(
                bubbles, (int(cx), int(cy)), int(rng.uniform(2, 9) * size / 256) + 1, 220, 1, cv2.LINE_AA
            )
        paint(image, soften(bubbles, 0.4) * 0.6, (0.98, 0.97, 0.96))


_DRAW: Mapping[str, Callable[[_Scene], None]] = MappingProxyType(
    {"nv": _nv, "mel": _mel, "bkl": _bkl, "bcc": _bcc, "akiec": _akiec, "vasc": _vasc, "df": _df}
)
CODES = tuple(_DRAW)
