"""Strategies by name: ``margin``, ``class_balanced(badge)``, ``slice_balanced(class_balanced(margin))``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from types import MappingProxyType
from typing import Any

from data.errors import UsageError
from serving.core.selection.badge import Badge
from serving.core.selection.balance import ClassBalanced, SliceBalanced
from serving.core.selection.base import Strategy
from serving.core.selection.cluster_margin import ClusterMargin
from serving.core.selection.k_center import KCenter
from serving.core.selection.uncertainty import Entropy, LeastConfidence, Margin, Random

#: Strategies that stand alone; their fields are their options.
STRATEGIES: Mapping[str, Callable[..., Strategy]] = MappingProxyType(
    {
        "random": Random,
        "entropy": Entropy,
        "margin": Margin,
        "least_confidence": LeastConfidence,
        "k_center": KCenter,
        "badge": Badge,
        "cluster_margin": ClusterMargin,
    }
)

#: Strategies around another one, written ``name(inner)``.
MIXES: Mapping[str, Callable[..., Strategy]] = MappingProxyType(
    {"class_balanced": ClassBalanced, "slice_balanced": SliceBalanced}
)

_MIX = re.compile(r"(\w+)\((.*)\)")


def strategy(name: str, **options: Any) -> Strategy:
    """The strategy of a name; each option goes to whichever part has a field of that name.

    Raises:
        UsageError: the name isn't known, or no part has such an option.

    >>> strategy("class_balanced(cluster_margin)", factor=5.0)
    ClassBalanced(inner=ClusterMargin(factor=5.0), lean=1.0)
    """
    left = dict(options)
    made = _make("".join(name.split()), left, name)
    if left:
        raise UsageError(
            f"The strategy {name} has no option {', '.join(sorted(left))}.",
            hint="docs/selection.md lists each one's options.",
        )
    return made


def _make(name: str, options: dict[str, Any], whole: str) -> Strategy:
    if match := _MIX.fullmatch(name):
        inner: tuple[Strategy, ...] = (_make(match[2], options, whole),)
        kind = MIXES.get(match[1])
    else:
        inner, kind = (), STRATEGIES.get(name)
    if kind is None:
        raise UsageError(
            f"There is no selection strategy {whole!r}.",
            hint=f"Use {', '.join(STRATEGIES)}, or one of these inside {' or '.join(MIXES)}(…).",
        )
    taken = {
        field.name: options.pop(field.name)
        for field in fields(kind)  # type: ignore[arg-type]
        if field.name in options and field.name != "inner"
    }
    return kind(*inner, **taken)
