"""How strictly a window is judged."""

from __future__ import annotations

import math
from dataclasses import dataclass

from data.errors import UsageError


@dataclass(frozen=True, slots=True)
class Settings:
    """The chance of a false alarm, and when a window is looked at.

    - ``level``: the largest chance that a window without a shift alarms at all, over all measures and looks.
      What labels say (``outcomes``) has the same level once more, of its own.
    - ``size``: images in a full window. Windows follow each other and share no image.
    - ``looks``: at which shares of ``size`` a window that is still filling is judged, ascending, the last 1.
      Each look spends a part of ``level`` in proportion to its share.
    - ``draws``: how many windows without a shift are drawn from the reference to find a threshold.
    - ``least``: images that a measure needs, of the reference and of the window.
    - ``seed``: of the draws.
    """

    level: float = 0.01
    size: int = 200
    looks: tuple[float, ...] = (0.25, 0.5, 1.0)
    draws: int = 4000
    least: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        _require(0 < self.level <= 0.5, f"level {self.level!r} is not above 0 and at most 0.5.")
        _require(self.least >= 2, f"least {self.least!r} is not at least 2.")
        _require(self.size >= self.least, f"size {self.size!r} is not at least {self.least} images.")
        _require(1000 <= self.draws <= 1_000_000, f"draws {self.draws!r} is not 1,000 to 1,000,000.")
        ascending = all(a < b for a, b in zip((0.0, *self.looks), self.looks, strict=False))
        _require(
            bool(self.looks) and ascending and self.looks[-1] == 1.0,
            f"looks {self.looks!r} are not ascending shares that end with 1.",
        )

    @property
    def schedule(self) -> tuple[tuple[int, float], ...]:
        """Each look: after how many images, and the part of ``level`` that it spends."""
        total = math.fsum(self.looks)
        return tuple((math.ceil(self.size * look), self.level * look / total) for look in self.looks)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise UsageError(f"Drift settings: {message}", hint="docs/drift.md says what each one means.")
