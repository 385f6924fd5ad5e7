"""The end of a run, as a person reads it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape

_FIGURES = (
    ("auc", "AUC"),
    ("kappa", "kappa"),
    ("accuracy", "accuracy"),
    ("balanced_accuracy", "balanced accuracy"),
    ("f1", "F1 of NG"),
    ("best_f1", "best F1"),
    ("pixel_auroc", "pixel AUROC"),
    ("pro", "PRO"),
)


def show(outcome: Mapping[str, Any], console: Console | None = None) -> None:
    """Print the test figures, the gate's decision and what to do next, on standard output."""
    out = console or Console(highlight=False, soft_wrap=True)
    if outcome["metrics"]:
        for line in figures(outcome["metrics"], outcome["calibration"]):
            out.print(line)
    if outcome.get("anomaly"):
        out.print(_memory(outcome["anomaly"]))
    if outcome["synthetic"]:
        out.print("[yellow]synthetic images: these figures say nothing about patients[/yellow]")
    gate = outcome["gate"] or {"decision": "refuse", "reasons": []}
    task, version = outcome["task"], outcome["version"]
    for reason in gate["reasons"]:
        out.print(f"  {escape(str(reason))}")
    if gate.get("pending_approval"):
        out.print(f"[yellow]waits for approval[/yellow]: {task} version {version} passed all else")
        out.print(
            f"  next: retiderm models approve {task} {version}, then retiderm models promote {task} {version}"
        )
    elif gate["decision"] == "refuse":
        out.print(f"[yellow]refused[/yellow]: {task} version {version} is registered and does not serve")
        out.print(f"  see: retiderm models show {task} {version}")
    elif outcome["promoted"]:
        out.print(f"[green]promoted[/green]: {task} version {version} is champion")
        out.print(f"  next: retiderm serve, then retiderm predict IMAGE --task {task}")
    else:
        out.print(f"[green]accepted[/green]: {task} version {version} is registered, not promoted")
        out.print(f"  next: retiderm models promote {task} {version}")
    out.print(f"  result: {outcome['artifacts']['run']}/result.json ({outcome['seconds']:.0f} s)")


def figures(metrics: Mapping[str, Any], calibration: Mapping[str, Any] | None = None) -> Iterator[str]:
    """The test figures with their intervals, then the calibration beside its bands, a line each."""
    for name, head in metrics.items():
        yield f"{name}, {head['n']} test images"
        for key, title in _FIGURES:
            if key in head and head[key]["value"] is not None:
                told = head[key]
                around = _span(told["low"], told["high"])
                yield _line(title, _number(told["value"]), f"95 %: {around}" if around else "")
        if calibration is not None and name in calibration:
            told = calibration[name]
            nll, ece, coverage = told["nll"], told["ece"], told["coverage"]
            yield _line("NLL", f"{nll['before']:.3f} → {nll['after']:.3f}", "by calibration")
            yield _line("ECE", f"{ece['before']:.3f} → {ece['after']:.3f}", _band(ece))
            if coverage["observed"] is not None:
                title = f"coverage, {coverage['stated']:.0%} stated"
                yield _line(title, _number(coverage["conformal"]), _band(coverage))


def _memory(told: Mapping[str, Any]) -> str:
    """The threshold and what the memory is made of."""
    made = told["memory"] or {}
    size = f"{made['coreset']:,} of {made['patches']:,} patches" if made else ""
    return _line("threshold", _number(told["threshold"]), f"memory: {size}" if size else "")


def _line(title: str, value: str, more: str) -> str:
    return f"  {title:<22} {value:<15} {more}".rstrip()


def _band(told: Mapping[str, Any]) -> str:
    if told["band"] is None:
        return ""
    return f"{'inside' if told['inside'] else 'OUTSIDE'} the 99 % band {_span(*told['band'])}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _span(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{low:.3f}–{high:.3f}"
