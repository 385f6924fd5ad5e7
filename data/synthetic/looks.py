"""What a drawn person looks like: skin tone, skin condition, skin type, hair. The truth behind a drawing.

The skin tone is an individual typology angle drawn evenly over the six classes, so that a model's figures can
be read for each of them; everything else is drawn independently of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from data.synthetic.canvas import Colour
from data.tone import TONES

CONDITIONS = (
    "healthy",
    "mild_acne",
    "severe_acne",
    "rosacea",
    "eczema",
    "psoriasis",
    "pigmentation",
)
SKIN_TYPES = ("normal", "dry", "oily", "combination", "sensitive")
HAIR_TYPES = ("straight", "wavy", "curly", "coily")
#: How a person is photographed: head and hair; the face alone; a patch of skin that shows neither.
VIEWS = ("portrait", "close", "patch")

_LIGHTEST, _DARKEST = 72.0, -62.0
_HAIR_COLOURS: tuple[Colour, ...] = (
    (0.09, 0.07, 0.06),
    (0.17, 0.11, 0.08),
    (0.30, 0.19, 0.12),
    (0.46, 0.32, 0.18),
    (0.68, 0.53, 0.33),
    (0.50, 0.22, 0.12),
    (0.58, 0.57, 0.56),
)


@dataclass(frozen=True, slots=True)
class Look:
    """One person: ``ita`` is the tone's angle, ``colour`` the skin's RGB (0 to 1) in even light."""

    ita: float
    colour: Colour
    condition: str
    skin_type: str
    hair_type: str
    hair_colour: Colour
    hair_length: float  # 0 ends at the ears, 1 falls on the shoulders

    @property
    def dark(self) -> float:
        """0 for the lightest skin to 1 for the darkest."""
        return float(np.clip((_LIGHTEST - self.ita) / (_LIGHTEST - _DARKEST), 0, 1))


def look_of(person: int, condition: str) -> Look:
    """The person with this number (any whole number from 0), always the same."""
    rng = np.random.default_rng([person, 77])
    edges = [_LIGHTEST, *(least for _, least in TONES[:-1]), _DARKEST]
    tone = int(rng.integers(len(TONES)))
    ita = float(rng.uniform(edges[tone + 1], edges[tone]))
    hair_colours = _HAIR_COLOURS if ita > 28 else _HAIR_COLOURS[:3]
    return Look(
        ita=ita,
        colour=skin_colour(ita, rng),
        condition=condition,
        skin_type=str(rng.choice(SKIN_TYPES)),
        hair_type=str(rng.choice(HAIR_TYPES)),
        hair_colour=hair_colours[int(rng.integers(len(hair_colours)))],
        hair_length=float(rng.uniform(0, 1)),
    )


def skin_colour(ita: float, rng: np.random.Generator) -> Colour:
    """A skin's RGB with this individual typology angle: b* is chosen, L* follows from the angle."""
    angle = np.radians(ita)
    # The lightest and the darkest skins have least yellow; with more, L* would leave what skins have.
    yellow = float(np.clip(rng.normal(16.5, 1.5), 13, 20)) * (
        0.72 if ita > 55 else 0.85 if ita < -10 else 1.0
    )
    lightness = float(np.clip(50 + yellow * np.tan(angle), 22, 88))
    red = float(rng.normal(11.0, 1.0))
    lab = np.asarray([[[lightness, red, yellow]]], np.float32)
    rgb = np.clip(cv2.cvtColor(lab, cv2.COLOR_Lab2RGB)[0, 0], 0.02, 0.98)
    return float(rgb[0]), float(rgb[1]), float(rgb[2])
