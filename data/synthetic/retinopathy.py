"""The lesions of diabetic retinopathy, by the International Clinical DR Disease Severity Scale.

========  =============================================================================================
grade     what is drawn (Wilkinson et al., Ophthalmology 2003;110:1677)
========  =============================================================================================
0         nothing
1         microaneurysms only
2         more than microaneurysms, less than severe: dot and blot haemorrhages (never more than 20 in all
          four quadrants), hard exudates, cotton-wool spots
3         the 4-2-1 rule, at least one of: more than 20 haemorrhages in each of 4 quadrants; venous beading
          in 2 or more; an intraretinal microvascular abnormality in 1 or more; and no sign of grade 4
4         new vessels (at the disc or elsewhere), or a preretinal or vitreous haemorrhage
========  =============================================================================================
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data.synthetic.canvas import Floats, blank, blob, dot, paint, polyline, ramp, smooth_noise, soften, stain
from data.synthetic.vessels import Anatomy, Vessels, curve

_BLOOD = (0.62, 0.2, 0.16)
_EXUDATE = (0.98, 0.90, 0.50)
_COTTON = (0.95, 0.88, 0.72)


@dataclass(frozen=True, slots=True)
class Findings:
    """What an eye shows. ``haemorrhages`` is one count a quadrant."""

    microaneurysms: int = 0
    haemorrhages: tuple[int, int, int, int] = (0, 0, 0, 0)
    exudates: int = 0
    cotton_wool: int = 0
    beading: frozenset[int] = frozenset()
    irma: frozenset[int] = frozenset()
    new_vessels_disc: bool = False
    new_vessels_elsewhere: int = 0
    preretinal: bool = False
    vitreous: bool = False

    @property
    def grade(self) -> int:
        """The grade by the scale's own rules, from the findings alone."""
        if self.new_vessels_disc or self.new_vessels_elsewhere or self.preretinal or self.vitreous:
            return 4
        if min(self.haemorrhages) > 20 or len(self.beading) >= 2 or self.irma:
            return 3
        if any(self.haemorrhages) or self.exudates or self.cotton_wool:
            return 2
        return 1 if self.microaneurysms else 0


def findings(rng: np.random.Generator, grade: int) -> Findings:
    """Findings that make an eye of this grade, as varied as the scale allows."""
    if grade == 0:
        return Findings()
    if grade == 1:
        return Findings(microaneurysms=int(rng.integers(4, 16)))
    if grade == 2:
        haemorrhages, exudates, cotton = _background(rng, int(rng.integers(1, 9)))
        return Findings(int(rng.integers(4, 22)), haemorrhages, exudates, cotton)
    if grade == 3:
        chosen = set(
            rng.choice(3, size=int(rng.choice([1, 2, 3], p=[0.45, 0.4, 0.15])), replace=False).tolist()
        )
        haemorrhages, exudates, cotton = _background(rng, int(rng.integers(9, 17)))
        if 0 in chosen:
            haemorrhages = _four(rng.integers(21, 34, 4))
        quadrants = rng.permutation(4).tolist()
        return Findings(
            int(rng.integers(12, 34)),
            haemorrhages,
            exudates,
            cotton + int(rng.integers(0, 4)),
            beading=frozenset(quadrants[: int(rng.integers(2, 5))]) if 1 in chosen else frozenset(),
            irma=frozenset(quadrants[: int(rng.integers(1, 4))]) if 2 in chosen else frozenset(),
        )
    haemorrhages, exudates, cotton = _background(rng, int(rng.integers(2, 18)))
    signs = rng.permutation(["disc", "elsewhere", "preretinal", "vitreous"], axis=0).tolist()
    signs = set(signs[: int(rng.choice([1, 2, 3], p=[0.4, 0.4, 0.2]))])
    return Findings(
        int(rng.integers(6, 30)),
        haemorrhages,
        exudates,
        cotton,
        new_vessels_disc="disc" in signs,
        new_vessels_elsewhere=int(rng.integers(1, 4)) if "elsewhere" in signs else 0,
        preretinal="preretinal" in signs,
        vitreous="vitreous" in signs,
    )


def _background(rng: np.random.Generator, most: int) -> tuple[tuple[int, int, int, int], int, int]:
    """Haemorrhages (up to ``most`` a quadrant), exudate clusters, cotton-wool spots: never none at all."""
    haemorrhages = _four(rng.integers(0, most + 1, 4))
    exudates = int(rng.integers(0, 4))
    cotton = int(rng.choice([0, 0, 1, 2]))
    if not any(haemorrhages) and not exudates and not cotton:
        exudates = 1
    return haemorrhages, exudates, cotton


def _four(values: np.ndarray) -> tuple[int, int, int, int]:
    a, b, c, d = (int(value) for value in values)
    return a, b, c, d


def draw_lesions(
    image: Floats, rng: np.random.Generator, eye: Anatomy, vessels: Vessels, shown: Findings
) -> None:
    """Draw what lies in the retina onto ``image [3, H, W]``, in place; beading is the vessels' own."""
    unit = eye.radius / 120
    size = eye.size

    if shown.cotton_wool:
        wool = blank(size)
        for _ in range(shown.cotton_wool):
            x, y = _place(rng, eye, 0.25, 0.75)
            blob(
                wool,
                rng,
                x,
                y,
                rng.uniform(4, 8) * unit,
                rough=0.4,
                stretch=0.6,
                value=int(rng.integers(140, 220)),
            )
        paint(image, soften(wool, 2.2 * unit), _COTTON)

    if shown.exudates:
        mask = blank(size)
        for _ in range(shown.exudates):
            _exudate_cluster(rng, eye, mask, unit)
        paint(image, soften(mask, 0.45 * unit) * 0.92, _EXUDATE)

    blood = blank(size)
    for quadrant, count in enumerate(shown.haemorrhages):
        for _ in range(count):
            x, y = _place(rng, eye, 0.15, 0.9, quadrant)
            # Dots, blots, and flames along the nerve fibres.
            kind = rng.random()
            radius = rng.uniform(1.4, 2.4) if kind < 0.55 else rng.uniform(2.4, 5.0)
            stretch = 0.45 if kind > 0.88 else rng.uniform(0.75, 1.0)
            blob(
                blood,
                rng,
                x,
                y,
                radius * unit,
                rough=0.35,
                stretch=stretch,
                value=int(rng.integers(170, 245)),
            )
    for _ in range(shown.microaneurysms):
        x, y = _place(rng, eye, 0.12, 0.85)
        dot(blood, x, y, rng.uniform(0.95, 1.45) * unit, int(rng.integers(170, 250)))
    stain(image, soften(blood, 0.4 * unit), _BLOOD)

    fine = blank(size)
    for quadrant in shown.irma:
        x, y = _place(rng, eye, 0.35, 0.7, quadrant)
        _tangle(rng, fine, x, y, rng.uniform(9, 14) * unit, int(rng.integers(7, 11)), 0.9 * unit)
    if shown.new_vessels_disc:
        _tangle(rng, fine, *eye.disc, 1.7 * eye.disc_radius, int(rng.integers(18, 28)), 1.0 * unit)
    for _ in range(shown.new_vessels_elsewhere):
        course = vessels.courses[int(rng.integers(len(vessels.courses)))]
        x, y = (float(value) for value in course[int(rng.integers(len(course) // 4, 3 * len(course) // 4))])
        _tangle(rng, fine, x, y, rng.uniform(15, 24) * unit, int(rng.integers(14, 22)), 0.95 * unit)
    if fine.any():
        stain(image, soften(fine, 0.35 * unit) * 0.9, (0.66, 0.3, 0.28))


def draw_haemorrhage_before(image: Floats, rng: np.random.Generator, eye: Anatomy, shown: Findings) -> None:
    """Draw blood before the retina that hides it: preretinal (a boat with a level), vitreous (a cloud)."""
    unit = eye.radius / 120
    if shown.preretinal:
        mask = blank(eye.size)
        x, y = _place(rng, eye, 0.25, 0.6)
        radius = rng.uniform(16, 30) * unit
        blob(mask, rng, x, y, radius, rough=0.12, stretch=rng.uniform(0.7, 1.0))
        # The blood settles: its upper border is a level.
        mask[: max(0, int(y - 0.25 * radius))] = 0
        paint(image, soften(mask, 0.8 * unit) * 0.93, (0.30, 0.035, 0.03))
    if shown.vitreous:
        cloud = smooth_noise(rng, eye.size, 5) + 0.5 * smooth_noise(rng, eye.size, 14)
        centre = blank(eye.size)
        x, y = _place(rng, eye, 0.2, 0.7)
        blob(centre, rng, x, y, rng.uniform(40, 70) * unit, rough=0.5)
        alpha = soften(centre, 14 * unit) * (0.35 + 0.65 * ramp(cloud, -0.9, 1.2))
        paint(image, alpha * np.float32(rng.uniform(0.75, 0.95)), (0.26, 0.06, 0.04))


def _place(
    rng: np.random.Generator, eye: Anatomy, nearest: float, farthest: float, quadrant: int | None = None
) -> tuple[float, float]:
    """A point in view and off the disc, so far from the macula (in radii), in a quadrant if named."""
    for _ in range(60):
        if quadrant is None:
            angle = rng.uniform(0, 2 * np.pi)
        else:
            angle = {3: 0.0, 2: 0.5, 0: 1.0, 1: 1.5}[quadrant] * np.pi + rng.uniform(0.04, np.pi / 2 - 0.04)
        distance = eye.radius * rng.uniform(nearest, farthest)
        x, y = eye.macula[0] + distance * np.cos(angle), eye.macula[1] + distance * np.sin(angle)
        off_disc = np.hypot(x - eye.disc[0], y - eye.disc[1]) > 1.3 * eye.disc_radius
        if off_disc and np.hypot(x - eye.centre[0], y - eye.centre[1]) < 0.93 * eye.radius:
            return float(x), float(y)
    return eye.macula[0] + 0.3 * eye.radius * (-eye.side), eye.macula[1] + 0.1 * eye.radius


def _exudate_cluster(rng: np.random.Generator, eye: Anatomy, mask: np.ndarray, unit: float) -> None:
    """Small waxy dots, in a heap or in a ring around a leak."""
    x, y = _place(rng, eye, 0.12, 0.6)
    count = int(rng.integers(5, 20))
    spread = rng.uniform(5, 13) * unit
    ring = rng.random() < 0.35
    for _ in range(count):
        angle = rng.uniform(0, 2 * np.pi)
        distance = spread * (rng.normal(1, 0.12) if ring else np.sqrt(rng.random()))
        at = (x + distance * np.cos(angle), y + distance * np.sin(angle))
        blob(mask, rng, *at, rng.uniform(0.8, 2.3) * unit, rough=0.4, value=int(rng.integers(170, 250)))


def _tangle(
    rng: np.random.Generator, mask: np.ndarray, x: float, y: float, reach: float, count: int, width: float
) -> None:
    """A net of fine, winding vessels that loop back on themselves."""
    for _ in range(count):
        angle = rng.uniform(0, 2 * np.pi)
        start = rng.uniform(0, 0.45) * reach
        line = curve(
            rng,
            x + start * np.cos(angle),
            y + start * np.sin(angle),
            angle + rng.normal(0, 0.6),
            reach * rng.uniform(0.7, 1.5),
            rng.choice((-1, 1)) * rng.uniform(1.2, 4.0),
        )
        polyline(mask, line, width)
