"""The end of a run, as a person reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

_FIGURES = (
    ("auc", "AUC"),
    ("kappa", "kappa"),
    ("accuracy", "accuracy"),
    ("balanced_accuracy", "balanced acc."),
    ("ece", "ECE"),
)


def show(outcome: Mapping[str, Any], console: Console | None = None) -> None:
    """Print the test figures, the gate's decision and what to do next, on standard output."""
    out = console or Console(highlight=False, soft_wrap=True)
    if outcome["metrics"]:
        out.print(figures(outcome["metrics"]))
    if outcome["synthetic"]:
        out.print("[yellow]synthetic images: these figures say nothing about patients[/yellow]")
    gate = outcome["gate"] or {"decision": "refuse", "reasons": []}
    task, version = outcome["task"], outcome["version"]
    for reason in gate["reasons"]:
        out.print(f"  {escape(str(reason))}")
    if gate["decision"] == "refuse":
        out.print(f"[yellow]refused[/yellow]: {task} version {version} is registered and does not serve")
        out.print(f"  see: retiderm models show {task} {version}")
    elif outcome["promoted"]:
        out.print(f"[green]promoted[/green]: {task} version {version} is champion")
        out.print(f"  next: retiderm serve, then retiderm predict IMAGE --task {task}")
    else:
        out.print(f"[green]accepted[/green]: {task} version {version} is registered, not promoted")
        out.print(f"  next: retiderm models promote {task} {version}")
    out.print(f"  result: {outcome['artifacts']['run']}/result.json ({outcome['seconds']:.0f} s)")


def figures(metrics: Mapping[str, Any]) -> Table:
    """Test figures with their intervals, a row a head."""
    shown = [(key, title) for key, title in _FIGURES if any(key in head for head in metrics.values())]
    table = Table(
        "head", "images", *(title for _, title in shown), title="test, 95 % intervals", title_justify="left"
    )
    for name, head in metrics.items():
        table.add_row(name, str(head["n"]), *(_estimate(head.get(key)) for key, _ in shown))
    return table


def _estimate(value: Mapping[str, float | None] | None) -> str:
    if not value or value["value"] is None:
        return "–"
    low, high = value.get("low"), value.get("high")
    around = f" ({low:.3f}–{high:.3f})" if low is not None and high is not None else ""
    return f"{value['value']:.3f}{around}"
