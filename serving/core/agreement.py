"""How far readers agree beyond chance: Cohen's kappa (Cohen 1960; weighted: Cohen 1968). No libraries."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any


@dataclass(frozen=True, slots=True)
class Pair:
    """Two readers on the images that both gave a class: ``images`` of them, alike on ``agreed``.

    ``kappa`` is Cohen's, ``quadratic`` the same with squared distances between grades (graded heads only).
    Both are None where they aren't defined: no image in common, or both always said the one same class.
    """

    readers: tuple[str, str]
    images: int
    agreed: int
    kappa: float | None
    quadratic: float | None

    def to_dict(self) -> dict[str, Any]:
        """JSON's own types."""
        return {
            "readers": list(self.readers),
            "images": self.images,
            "agreed": self.agreed,
            "kappa": _rounded(self.kappa),
            "quadratic_kappa": _rounded(self.quadratic),
        }


def cohen_kappa(
    first: Sequence[str], second: Sequence[str], classes: Sequence[str], *, quadratic: bool = False
) -> float | None:
    """κ = 1 − (disagreement observed) / (disagreement by chance); None where chance has none.

    Chance keeps each reader's own frequencies. Disagreement counts 1, or with ``quadratic`` the squared
    distance between the two classes' places.

    >>> cohen_kappa(["a", "a", "b", "b"], ["a", "b", "b", "b"], ["a", "b"])
    0.5
    """
    if len(first) != len(second):
        raise ValueError("both readers need one label an image")
    place = {name: index for index, name in enumerate(classes)}
    cells = Counter((place[one], place[other]) for one, other in zip(first, second, strict=True))
    rows = Counter(place[one] for one in first)
    columns = Counter(place[other] for other in second)

    def apart(one: int, other: int) -> int:
        return (one - other) ** 2 if quadratic else int(one != other)

    observed = sum(n * apart(*cell) for cell, n in cells.items())
    chance = sum(n * m * apart(row, column) for row, n in rows.items() for column, m in columns.items())
    return None if chance == 0 else 1 - observed * len(first) / chance


def pairs(
    said: Iterable[tuple[str, str, str | None]], classes: Sequence[str], *, ordinal: bool = False
) -> list[Pair]:
    """Each two readers who labelled a same image, by name.

    ``said`` is (image, reader, class or None where it can't be graded); a reader's last word on an image
    counts. Images that one of two couldn't grade are left out of that pair's figures.
    """
    by_reader: dict[str, dict[str, str]] = defaultdict(dict)
    for image, reader, label in said:
        by_reader[reader].pop(image, None)
        if label is not None:
            by_reader[reader][image] = label
    found = []
    for one, other in combinations(sorted(by_reader), 2):
        both = sorted(by_reader[one].keys() & by_reader[other].keys())
        if not both:
            continue
        left, right = ([by_reader[who][image] for image in both] for who in (one, other))
        found.append(
            Pair(
                (one, other),
                len(both),
                sum(a == b for a, b in zip(left, right, strict=True)),
                cohen_kappa(left, right, classes),
                cohen_kappa(left, right, classes, quadratic=True) if ordinal else None,
            )
        )
    return found


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
