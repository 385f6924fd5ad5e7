"""What is measured on a face, each number with its unit, range and source, and S3's fields made of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from serving.core.measures.balance import WhiteBalance

UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Kind:
    """What a measure is. ``low`` and ``high`` are the ends of what it can be."""

    unit: str
    low: float
    high: float
    source: str


KINDS: dict[str, Kind] = {
    "ita": Kind("degrees", -90, 90, "individual typology angle of cheeks and forehead (Chardon et al. 1991)"),
    "ita_balanced": Kind(
        "degrees", -90, 90, "the same after the estimated white balance (Finlayson and Trezzi 2004)"
    ),
    "texture_entropy": Kind("bits", 0, 4, "mean entropy of L* in 9 x 9 pixels, forehead and cheeks"),
    "texture_homogeneity": Kind(
        "1", 0, 1, "co-occurrence matrix's inverse difference moment (Haralick et al. 1973)"
    ),
    "wrinkle_density": Kind(
        "lines' length by area, in eye distances", 0, 10, "ridges of L* (after Frangi et al. 1998)"
    ),
    "dark_circles": Kind("ΔE*ab", 0, 100, "CIELAB distance of under-eye from cheek, where darker (CIE 1976)"),
    "redness": Kind("a*", -128, 127, "CIELAB a* of cheeks and nose (CIE 1976)"),
    "shine": Kind(
        "share of skin", 0, 1, "specular pixels of forehead, nose and cheeks (dichromatic model, Shafer 1985)"
    ),
    "shine_t_zone": Kind("share of skin", 0, 1, "the same of forehead and nose alone"),
    "shine_cheeks": Kind("share of skin", 0, 1, "the same of the cheeks alone"),
}

# From where a measure counts as found. docs/measures.md says how they were chosen; none is a diagnosis.
WRINKLED = 2.0
DARK = 10.0
# The ΔE*ab that S3's severity calls 1.
DARKEST = 25.0
OILY = 0.08
RED = 25.0


@dataclass(frozen=True, slots=True)
class Measures:
    """Every measure; None where it can't be taken, and ``missing`` says why, by the measure's name.

    ``tone`` and ``skin_type`` are classes, or ``unknown``. See ``KINDS`` for the numbers' units.
    """

    ita: float | None
    ita_balanced: float | None
    tone: str
    texture_entropy: float | None
    texture_homogeneity: float | None
    wrinkle_density: float | None
    dark_circles: float | None
    redness: float | None
    shine: float | None
    shine_t_zone: float | None
    shine_cheeks: float | None
    white_balance: WhiteBalance
    missing: dict[str, str]

    @property
    def skin_type(self) -> str:
        """S3's skin type, from shine and redness alone: oily, combination, sensitive, normal or unknown.

        Never dry: neither measure shows it.
        """
        if self.shine_t_zone is None or self.shine_cheeks is None or self.redness is None:
            return UNKNOWN
        if self.shine_t_zone > OILY:
            return "oily" if self.shine_cheeks > OILY else "combination"
        return "sensitive" if self.redness > RED else "normal"

    def to_dict(self) -> dict[str, Any]:
        """S3's ``cv_analysis``. What couldn't be measured is null, a class ``unknown``."""
        wrinkles, circles = self.wrinkle_density, self.dark_circles
        return {
            "skin_tone": self.tone,
            "skin_type": self.skin_type,
            "texture_quality": _rounded(self.texture_homogeneity),
            "wrinkles": {
                "detected": None if wrinkles is None else wrinkles > WRINKLED,
                "density": _rounded(wrinkles),
            },
            "dark_circles": {
                "detected": None if circles is None else circles > DARK,
                "severity": None if circles is None else _rounded(min(1.0, circles / DARKEST)),
            },
        }

    def details(self) -> dict[str, Any]:
        """All the numbers with unit, range and source; the reason where there is none; the white balance."""
        numbers = {
            name: {"value": _rounded(getattr(self, name)), **asdict(kind)}
            | ({"reason": self.missing[name]} if name in self.missing else {})
            for name, kind in KINDS.items()
        }
        return {
            "measures": numbers,
            "skin_tone": self.tone,
            "skin_type": self.skin_type,
            "white_balance": asdict(self.white_balance),
        }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
