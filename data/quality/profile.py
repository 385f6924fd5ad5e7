"""What is good enough, for each kind of photograph: the size to measure at and the thresholds."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

import yaml

from data.errors import UsageError
from data.preprocess import MEASURE_SIDE

FieldRule = Literal["none", "optional", "required"]


@dataclass(frozen=True, slots=True)
class QualityProfile:
    """One profile. Grey levels are 0 to 255, fractions 0 to 1.

    - ``measure_size``: the image, or with ``field: required`` the field of view, is brought down to this many
      pixels before measuring; never up.
    - ``field``: whether the field of view is looked for and its surround left out of the measures
      (``optional``), and whether it must be there (``required``, else ``no_field_of_view``).
    - ``min_side``: the shorter side; below it ``too_small``.
    - ``blank_contrast``: below it nothing is in the picture: ``blank``.
    - ``min_redness``: mean red over mean blue; below it ``unexpected_colour``.
    - ``min_sharpness``: below it ``blurred``.
    - ``min_exposure``, ``max_exposure``: the mean grey level; outside ``too_dark``, ``too_bright``.
    - ``max_dark``, ``max_bright``: clipped shares; above ``dark_clipped``, ``bright_clipped``.
    - ``min_contrast``: the standard deviation of the grey levels; below ``low_contrast``.
    """

    name: str
    measure_size: int = 224
    field: FieldRule = "none"
    min_side: int = 64
    blank_contrast: float = 1.5
    min_redness: float = 0.0
    min_sharpness: float = 0.42
    min_exposure: float = 25.0
    max_exposure: float = 230.0
    max_dark: float = 0.65
    max_bright: float = 0.6
    min_contrast: float = 4.0

    def __post_init__(self) -> None:
        if self.field not in get_args(FieldRule):
            raise UsageError(
                f"Quality profile field {self.field!r} is not one of {', '.join(get_args(FieldRule))}."
            )
        for name, value in asdict(self).items():
            number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            if name not in ("name", "field") and not number:
                raise UsageError(f"Quality profile {name} {value!r} is not a number.")
        if not 8 <= self.measure_size <= MEASURE_SIDE:
            raise UsageError(
                f"Quality profile measure_size {self.measure_size} is not from 8 to {MEASURE_SIDE}."
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a card or a file."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> QualityProfile:
        """The inverse of ``to_dict``; an unknown key raises ``UsageError``."""
        names = [field.name for field in fields(cls)]
        unknown = sorted(set(values) - set(names))
        if unknown:
            raise UsageError(
                f"A quality profile has no setting {', '.join(map(repr, unknown))}.",
                hint=f"It has {', '.join(names)}.",
            )
        if "name" not in values:
            raise UsageError("A quality profile needs a name.")
        return cls(**values)


# The thresholds lie outside what the real sets hold and, for sharpness, midway to their blurred copies;
# docs/quality.md has the figures and the commands that print them.
PROFILES: Mapping[str, QualityProfile] = MappingProxyType(
    {
        profile.name: profile
        for profile in (
            QualityProfile(
                "fundus",
                field="required",
                min_side=128,
                min_redness=1.3,
                min_sharpness=0.4,
                max_exposure=200.0,
                max_dark=0.3,
                max_bright=0.25,
            ),
            QualityProfile(
                "dermoscopy",
                measure_size=150,
                field="optional",
                min_sharpness=0.44,
                min_exposure=40.0,
                max_dark=0.4,
                max_bright=0.4,
            ),
            # 28 px sets: only a gross blur shows there, and half of a picture may be surround.
            QualityProfile(
                "thumbnail",
                measure_size=28,
                min_side=16,
                min_sharpness=0.49,
                min_exposure=12.0,
                max_dark=0.75,
                max_bright=0.75,
            ),
            QualityProfile("photo"),
        )
    }
)


def load_profile(name_or_path: str) -> QualityProfile:
    """A profile by name, or from a YAML or JSON file as ``retiderm data calibrate-quality`` writes it."""
    if name_or_path in PROFILES:
        return PROFILES[name_or_path]
    path = Path(name_or_path)
    if not path.is_file():
        raise UsageError(
            f"There is no quality profile {name_or_path!r}.",
            hint=f"Name one of {', '.join(PROFILES)}, or a YAML or JSON file that holds one.",
        )
    text = path.read_text(encoding="utf-8")
    try:
        values = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        raise UsageError(f"The quality profile {path} can't be read: {error}.") from None
    if not isinstance(values, Mapping):
        raise UsageError(f"The quality profile {path} is not a mapping.")
    return QualityProfile.from_dict(values)
