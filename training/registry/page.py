"""The page that a person reads about a version in MLflow: plain Markdown, at most 5,000 characters.

The limit is that of MLflow's column on PostgreSQL and MySQL.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from serving.core.bundle import Card

    from .gate import GateDecision

LIMIT = 5000
_NAMES = {
    "auc": "AUC (macro, one-vs-rest)",
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "kappa": "Quadratic kappa",
    "nll": "Negative log-likelihood",
    "ece": "Expected calibration error",
    "coverage": "Coverage of the sets",
    "f1": "F1 of what is not OK",
    "best_f1": "Best F1 of any threshold",
    "pixel_auroc": "AUROC of pixels",
    "pro": "PRO (regions found, FPR up to 0.3)",
}


def scalar_metrics(metrics: Mapping[str, Any]) -> dict[str, dict[str, dict[str, float]]]:
    """The numbers of a card's ``metrics`` that have a value (and mostly an interval), by head and name."""
    heads = metrics.get("heads", metrics)
    found: dict[str, dict[str, dict[str, float]]] = {}
    for head, values in heads.items() if isinstance(heads, Mapping) else ():
        if not isinstance(values, Mapping):
            continue
        for name, value in values.items():
            number = _number(value)
            if number:
                found.setdefault(str(head), {})[str(name)] = number
    return found


def version_page(card: Card, digest: str, decision: GateDecision | None = None) -> str:
    """The page of a version."""
    parts = [f"# {card.title}", _origin(card)]
    if decision is not None:
        parts.append(_gate(decision))
    parts.append(_metrics(card))
    for head in card.heads:
        titles = "; ".join(
            name if name == title else f"`{name}` {title}"
            for name, title in zip(head.classes, head.titles, strict=True)
        )
        kind = "grades" if head.ordinal else "classes"
        parts.append(f"**{head.name}** answers one of {len(head.classes)} {kind}: {titles}.")
    parts.append(_data(card))
    if card.intended_use:
        parts.append(f"## Intended use\n{card.intended_use.strip()}")
    if card.limits:
        parts.append("## Limits\n" + "\n".join(f"- {limit.strip()}" for limit in card.limits))
    parts.append(f"Bundle `{digest}`; code `{card.code_digest}`.")
    text = "\n\n".join(part for part in parts if part) + "\n"
    more = "\n\n… the rest is in the bundle's card.json.\n"
    return text if len(text) <= LIMIT else text[: LIMIT - len(more)].rstrip() + more


def task_page(card: Card) -> str:
    """The page of a task: the same for all its versions."""
    return (
        f"# {card.title}\n\n`{card.task}`: the version with the alias **champion** serves; "
        "**previous** is what `retiderm models rollback` goes back to; **challenger** is the newest that "
        "waits.\n\nSet aliases by `retiderm models promote`, not here: `retiderm models reconcile` puts back "
        "an alias that was set by hand. To approve a version here, tag it `approved_by` with your name.\n"
    )


def _number(value: Any) -> dict[str, float] | None:
    """``{"value", "low", "high"}`` as evaluations write a figure, or None for anything else."""
    if not isinstance(value, Mapping) or not isinstance(value.get("value"), int | float):
        return None
    return {
        key: float(value[key]) for key in ("value", "low", "high") if isinstance(value.get(key), int | float)
    }


def _origin(card: Card) -> str:
    weights = card.weights.source + (f" ({card.weights.licence})" if card.weights.licence else "")
    note = "\n\n**Made of synthetic images: for demonstration only.**" if card.dataset.synthetic else ""
    height, width = card.input.size
    return f"{card.backbone} at {height}×{width}, started from weights: {weights}.{note}"


def _metrics(card: Card) -> str:
    rows = []
    for head, values in scalar_metrics(card.metrics).items():
        for name, number in values.items():
            interval = (
                f"{number['low']:.3f} to {number['high']:.3f}" if {"low", "high"} <= number.keys() else "–"
            )
            rows.append(f"| {head} | {_NAMES.get(name, name)} | {number['value']:.3f} | {interval} |")
    if not rows:
        return ""
    table = [
        "## On the test images",
        "| head | metric | value | 95 % interval |",
        "|---|---|---|---|",
        *rows[:24],
    ]
    return "\n".join(table)


def _data(card: Card) -> str:
    data = card.dataset
    forbids = ", ".join(card.forbids) or "nothing"
    return (
        f"## Data\n{data.source}; licence {card.licence or ', '.join(data.licences) or 'not stated'}; "
        f"data and weights forbid: {forbids}.\n\n"
        f"Learned from `{data.digest}`, judged on `{data.test_digest}`."
    )


def _gate(decision: GateDecision) -> str:
    rows = [f"## Gate: {decision.headline}", *(f"- {reason}" for reason in decision.reasons)]
    for item in decision.comparisons:
        rows.append(f"- {item.sentence}")
    return "\n".join(rows)
