"""The recipe's settings in words, from the fields themselves, so that they can't go stale."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from training.spec.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Knob:
    """One setting: its dotted name in a task file and what to know of it."""

    name: str
    default: str
    limits: str
    doc: str


def explain(cls: type[Any] = Recipe, prefix: str = "train.") -> Iterator[Knob]:
    """Every setting under ``train:``, those of its parts included."""
    made = cls()
    for field in dataclasses.fields(cls):
        value = getattr(made, field.name)
        if dataclasses.is_dataclass(value):
            yield from explain(type(value), f"{prefix}{field.name}.")
            continue
        low, high = field.metadata.get("low"), field.metadata.get("high")
        limits = f"{'' if low is None else f'{low:g}'} – {'' if high is None else f'{high:g}'}".strip()
        yield Knob(prefix + field.name, _shown(value), "" if limits == "–" else limits, field.metadata["doc"])


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "[" + ", ".join(f"{item:g}" for item in value) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)
