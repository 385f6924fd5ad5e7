"""What the commands print: tables for people. JSON comes from the same objects' ``to_dict``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from .compare import Comparison
    from .gate import GateDecision
    from .state import Served
    from .verify import Finding
    from .version import Version

_SHOWN = ("auc", "accuracy", "balanced_accuracy", "kappa", "nll", "ece")


def versions_table(versions: Sequence[Version]) -> Table:
    """One row a version, newest first; fits 80 columns."""
    table = Table(box=box.SIMPLE)
    for name in ("task", "", "alias", "made", "gate", "test metrics", "bundle"):
        table.add_column(name, no_wrap=name not in ("test metrics", "gate"))
    for version in versions:
        gate = "waits for approval" if version.pending_approval else version.decision or "–"
        table.add_row(
            version.task,
            version.version,
            Text(", ".join(version.aliases), style="bold green" if "champion" in version.aliases else ""),
            version.created_at[5:16].replace("T", " "),
            Text(gate, style={"accept": "green", "refuse": "red"}.get(gate, "yellow")),
            brief(version) + (" (imported)" if version.origin == "imported" else ""),
            version.digest.removeprefix("sha256:")[:8],
        )
    return table


def brief(version: Version) -> str:
    """The two metrics that say most, for each head."""
    parts = []
    for head, metrics in version.metrics.items():
        names = [name for name in ("kappa", "auc", "balanced_accuracy", "accuracy") if name in metrics][:2]
        figures = " ".join(f"{name} {metrics[name]['value']:.3f}" for name in names)
        parts.append(f"{head}: {figures}" if len(version.metrics) > 1 else figures)
    return "; ".join(parts)


def compare_table(one: Version, other: Version) -> Table:
    """Two versions' test metrics side by side."""
    table = Table("head", "metric", _name(one), _name(other), box=box.SIMPLE)
    for head in dict.fromkeys([*one.metrics, *other.metrics]):
        mine, theirs = one.metrics.get(head, {}), other.metrics.get(head, {})
        for metric in _SHOWN:
            if metric in mine or metric in theirs:
                table.add_row(head, metric, _figure(mine.get(metric)), _figure(theirs.get(metric)))
    return table


def history_table(rows: Sequence[Served]) -> Table:
    """What served when, newest first."""
    table = Table(box=box.SIMPLE)
    for name in ("task", "", "from (UTC)", "until", "how", "who", "why"):
        table.add_column(name, no_wrap=name not in ("why", "who"))
    for row in reversed(rows):
        table.add_row(
            row.task,
            row.version,
            _time(row.since),
            _time(row.until) if row.until else Text("now", style="bold green"),
            row.action,
            row.who,
            row.why,
        )
    return table


def print_decision(console: Console, decision: GateDecision) -> None:
    """A gate's decision, with its reasons."""
    style = "green" if decision.accepted else "yellow" if decision.pending_approval else "red"
    console.print(
        Text(f"{decision.task} version {decision.version}: {decision.headline}", style=f"bold {style}"),
        Text(f"({decision.line})"),
    )
    for reason in decision.reasons:
        console.print(f"  - {reason}", markup=False, highlight=False)


def print_comparisons(console: Console, comparisons: Sequence[Comparison]) -> None:
    """One sentence each."""
    for item in comparisons:
        console.print(Text(f"  - {item.sentence}", style="green" if item.passed else "red"))


def print_findings(console: Console, findings: Sequence[Finding]) -> None:
    """One line a finding, and what to do about each kind once."""
    for item in findings:
        task = f"{item.task}: " if item.task else ""
        console.print(Text(f"{item.kind}: {task}{item.message}", style="red"), soft_wrap=True)
    for kind, hint in dict.fromkeys((item.kind, item.hint) for item in findings):
        console.print(f"hint ({kind}): {hint}", markup=False, highlight=False, soft_wrap=True)


def print_page(console: Console, version: Version, page: str) -> None:
    """A version's page as MLflow shows it."""
    from rich.markdown import Markdown

    console.print(Markdown(page))
    console.print(versions_table([version]))


def _name(version: Version) -> str:
    return f"version {version.version}" + (f" ({', '.join(version.aliases)})" if version.aliases else "")


def _figure(value: dict[str, float] | None) -> str:
    if not value:
        return "–"
    interval = f" [{value['low']:.3f}, {value['high']:.3f}]" if {"low", "high"} <= value.keys() else ""
    return f"{value['value']:.4f}{interval}"


def _time(text: str) -> str:
    return text[5:16].replace("T", " ")
