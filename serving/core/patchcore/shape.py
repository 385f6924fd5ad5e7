"""Which pixels of a canonical ROI count: S4's ``shape``. It masks; geometry is never changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.errors import RequestError

_NUMBERS = {
    "rect": ("x", "y", "w", "h"),
    "circle": ("cx", "cy", "r"),
    "annulus": ("cx", "cy", "r", "r_inner"),
}
# Far beyond any image, and still safe to square.
_LIMIT = 1e6


@dataclass(frozen=True, slots=True)
class ShapeMask:
    """A shape on a ROI of ``width`` × ``height`` pixels; ``numbers`` in ROI pixels, in the order of its kind.

    A pixel counts when its centre lies in the shape (pixel (0, 0) has its centre at (0.5, 0.5)): in
    ``[x, x + w) × [y, y + h)`` of a rectangle, within ``r`` of a circle's centre, and from ``r_inner`` on for
    an annulus.
    """

    kind: str
    numbers: tuple[float, ...]
    width: int
    height: int

    @classmethod
    def from_json(cls, value: Any, width: int, height: int) -> ShapeMask:
        """Read S4's object; None is the whole ROI. Missing numbers default to the whole ROI: the
        rectangle's from corner to corner, the circle's centre in the middle and its radius half the shorter
        side, no hole.

        Raises:
            RequestError: another kind, an unknown key, or a number that is not finite or out of range.
        """
        if value is None:
            return cls("rect", (0.0, 0.0, float(width), float(height)), width, height)
        if not isinstance(value, Mapping):
            raise _wrong("it is not an object")
        kind = value.get("kind")
        if not isinstance(kind, str) or kind not in _NUMBERS:
            raise _wrong(f"its kind is {kind!r}")
        unknown = sorted(map(str, set(value) - {"kind", *_NUMBERS[kind]}))
        if unknown:
            raise _wrong(f"a {kind} has no {', '.join(unknown)}")
        given = {name: _number(value, name) for name in _NUMBERS[kind]}
        if kind == "rect":
            x, y = given["x"] or 0.0, given["y"] or 0.0
            default = {"x": 0.0, "y": 0.0, "w": width - x, "h": height - y}
        else:
            default = {"cx": width / 2, "cy": height / 2, "r": min(width, height) / 2, "r_inner": 0.0}
        numbers = tuple(default[name] if given[name] is None else given[name] for name in _NUMBERS[kind])
        made = cls(kind, tuple(float(n) for n in numbers if n is not None), width, height)
        if any(size < 0 for size in made.numbers[2:]):
            raise _wrong("a size is negative")
        return made

    def mask(self) -> NDArray[np.bool_]:
        """bool [height, width].

        Raises:
            RequestError: no pixel of the ROI counts.
        """
        y = np.arange(self.height)[:, None] + 0.5
        x = np.arange(self.width)[None, :] + 0.5
        if self.kind == "rect":
            left, top, width, height = self.numbers
            inside = (x >= left) & (x < left + width) & (y >= top) & (y < top + height)
        else:
            cx, cy, r = self.numbers[:3]
            distance = (x - cx) ** 2 + (y - cy) ** 2
            inside = distance <= r * r
            if self.kind == "annulus":
                inside &= distance >= self.numbers[3] ** 2
        if not inside.any():
            raise RequestError(
                f"The shape leaves no pixel of the ROI of {self.width}×{self.height}.",
                hint="Give it in pixels of the ROI that is sent, not of the whole photograph.",
            )
        return inside


def _number(value: Mapping[str, Any], name: str) -> float | None:
    found = value.get(name)
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise _wrong(f"{name} is not a number")
    # Compared as it is, since JSON's integers may be larger than any float; NaN is not within the limit.
    if not abs(found) <= _LIMIT:
        raise _wrong(f"{name} is beyond ±{_LIMIT:g}")
    return float(found)


def _wrong(what: str) -> RequestError:
    return RequestError(
        f"The shape can't be used: {what}.",
        hint='Send {"kind": "rect", x, y, w, h}, {"kind": "circle", cx, cy, r} or {"kind": "annulus", cx, '
        "cy, r, r_inner}, in pixels.",
    )
