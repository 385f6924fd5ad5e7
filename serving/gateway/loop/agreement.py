"""How well two readers agree, beyond what chance gives: Cohen's kappa.

J. Cohen, "A coefficient of agreement for nominal scales", Educational and Psychological Measurement 20, 1960.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from serving.gateway.store.tables import Label

_UNGRADED = "cannot grade"


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of one head. ``kappa`` is None where chance alone would agree always, or there are no pairs."""

    head: str
    pairs: int
    equal: int
    kappa: float | None


def kappa(first: Sequence[str], second: Sequence[str]) -> float | None:
    """Cohen's kappa of two readers' labels of the same images, -1 to 1."""
    if len(first) != len(second):
        raise ValueError("two readers have labelled the same images")
    count = len(first)
    if not count:
        return None
    seen = sum(a == b for a, b in zip(first, second, strict=True)) / count
    one, other = Counter(first), Counter(second)
    chance = sum(one[label] * other[label] for label in one) / count**2
    return None if chance == 1 else (seen - chance) / (1 - chance)


def agreements(readings: Iterable[Sequence[Label]]) -> list[Agreement]:
    """Of every image's labels: each head's agreement between its first two readers, adjudicators left out."""
    pairs: dict[str, list[tuple[str, str]]] = {}
    for standing in readings:
        said: dict[str, dict[str, str]] = {}
        for row in standing:
            if row.source != "adjudication":
                said.setdefault(row.reader, {})[row.head] = row.value or _UNGRADED
        if len(said) < 2:
            continue
        first, second = list(said.values())[:2]
        for head in first.keys() & second.keys():
            pairs.setdefault(head, []).append((first[head], second[head]))
    return [
        Agreement(head, len(found), sum(a == b for a, b in found), kappa(*zip(*found, strict=True)))
        for head, found in sorted(pairs.items())
    ]
