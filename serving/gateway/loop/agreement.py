"""How well two readers of the queue agree, beyond what chance gives."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from serving.core.agreement import cohen_kappa
from serving.gateway.store.tables import Label

_UNGRADED = "cannot grade"


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of one head. ``kappa`` is None where chance alone would agree always, or there are no pairs."""

    head: str
    pairs: int
    equal: int
    kappa: float | None


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
    return [_agreement(head, found) for head, found in sorted(pairs.items())]


def _agreement(head: str, found: Sequence[tuple[str, str]]) -> Agreement:
    first, second = [one for one, _ in found], [other for _, other in found]
    value = cohen_kappa(first, second, sorted({*first, *second}))
    return Agreement(head, len(found), sum(a == b for a, b in found), value)
