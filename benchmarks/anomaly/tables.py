"""A stored result as Markdown tables, for the documentation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

#: The steps of both sides that do the same work. Ours prepares while it extracts, and draws while it scores.
STEPS = {
    "receive, find the memory": ("receive", "load"),
    "decode": ("decode",),
    "prepare, extract": ("prepare", "extract"),
    "search": ("search",),
    "score, map": ("score", "map", "post-process"),
    "picture, answer": ("encode", "heatmap"),
    "everything else": ("everything else",),
}


def tables(document: Mapping[str, Any]) -> str:
    """All of it: what must hold, then the figures of each part, with the machine of each."""
    parts = document["parts"]
    lines = ["| | measured | must be | |", "|---|---|---|---|"]
    for part in parts.values():
        for point in part["points"]:
            verdict = "pass" if point["passed"] else "**fail**"
            bound = f"{'≥' if point['relation'] == '>=' else '≤'} {point['bound']:g}"
            lines.append(f"| {point['name']} | {_shown(point['value'])} | {bound} | {verdict} |")
    for name, part in parts.items():
        machine = part["machine"]
        lines += [
            "",
            f"{name}: {machine['cpu']}, {machine['threads']} threads a contender, anomalib "
            f"{part['versions']['anomalib'].get('anomalib', '?')}, {part['measured_at'][:10]}",
            "",
            *(_latency(part["measures"]) if name == "latency" else _wide(part["measures"])),
        ]
    return "\n".join(lines)


def _latency(measures: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    """A row a step, a column a contender and study."""
    found = {(m["data"], m["contender"], m["what"]): m["value"] for m in measures}
    columns = list(dict.fromkeys((m["data"], m["contender"]) for m in measures))
    yield "| ms | " + " | ".join(f"{contender}, {data}" for data, contender in columns) + " |"
    yield "|---|" + "---|" * len(columns)
    rows: dict[str, Sequence[str]] = {
        label: [f"step: {name}" for name in names] for label, names in STEPS.items()
    }
    for label in ("whole, median", "whole, 95th percentile"):
        rows[label] = [label]
    for label, names in rows.items():
        values = [
            [found[(*column, name)] for name in names if (*column, name) in found] for column in columns
        ]
        yield f"| {label} | " + " | ".join(_shown(sum(given)) if given else "" for given in values) + " |"


def _wide(measures: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    """A row a set of data and a contender, a column a quantity."""
    columns = list(dict.fromkeys((m["what"], m["unit"]) for m in measures))
    rows = list(dict.fromkeys((m["data"], m["contender"]) for m in measures))
    yield "| | | " + " | ".join(f"{what}, {unit}" if unit else what for what, unit in columns) + " |"
    yield "|---|---|" + "---|" * len(columns)
    for data, contender in rows:
        cells = []
        for what, _ in columns:
            given = [m for m in measures if (m["data"], m["contender"], m["what"]) == (data, contender, what)]
            cells.append(
                "; ".join(
                    _shown(m["value"]) + (f" ({m['note']})" if m["note"] and len(given) > 1 else "")
                    for m in given
                )
            )
        yield f"| {data} | {contender} | " + " | ".join(cells) + " |"


def _shown(value: float) -> str:
    """Three significant digits, four from a thousand on and for shares near 1."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4f}".rstrip("0").rstrip(".") if 0.5 <= abs(value) <= 1 else f"{value:.3g}"
