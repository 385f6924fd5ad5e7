"""The curves as a picture: one row a set, the choice on the left, its confirmation on the right."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.loop.judge import SHARE, band
from benchmarks.loop.phase import Phase
from benchmarks.loop.study import BASELINE
from data.files import atomic_path

if TYPE_CHECKING:
    from benchmarks.loop.__main__ import Result

# Okabe and Ito's colours, which people with a colour deficiency can tell apart.
_COLOURS = ("#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#882255", "#117733", "#999933", "#AA4499", "#88CCEE")
_RANDOM, _CHOSEN = "#000000", "#D55E00"
_METRICS = {"auc": "macro AUC", "kappa": "quadratic kappa", "balanced_accuracy": "balanced accuracy"}


def draw(results: Sequence[Result], out: Path) -> None:
    """Write the picture of some sets' results, in the format that its name says."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.5, 4.3 * len(results)), dpi=100, layout="constrained")
    grid = figure.subplots(len(results), 2, squeeze=False)
    for row, result in zip(grid, results, strict=True):
        for axes, phase in zip(row, (result.choose, result.confirm), strict=True):
            _panel(axes, result, phase)
    with atomic_path(out) as temporary:
        figure.savefig(temporary, format=out.suffix.removeprefix("."), pil_kwargs={"quality": 88})


def _panel(axes: Any, result: Result, phase: Phase) -> None:
    metric = result.metric
    full = float(phase.full[metric].mean())
    others = iter(_COLOURS)
    lowest = full
    for strategy, values in phase.values.items():
        mean, low, high = band(values[metric])
        lowest = min(lowest, float(mean.min()))
        told = {BASELINE: _RANDOM, result.chosen: _CHOSEN}.get(strategy)
        style = {"lw": 2.2, "zorder": 3} if told else {"lw": 0.9, "zorder": 2}
        colour = told or next(others, "#777777")
        axes.plot(phase.labels, mean, color=colour, label=strategy, **style)
        if told:
            axes.fill_between(phase.labels, low, high, color=colour, alpha=0.15, lw=0)
    for share, words in ((1.0, "all labels"), (SHARE, f"{SHARE:.0%} of it")):
        axes.axhline(share * full, color="#666666", lw=0.8, ls="-" if share == 1 else "--")
        axes.annotate(words, (1, share * full), (-3, 2), xycoords=("axes fraction", "data"), **_NOTE)
    seeds = f"seeds {phase.seeds[0]} to {phase.seeds[-1]}"
    axes.set_title(f"{result.document['set']}: {phase.judged_on} images, {seeds}", fontsize=10)
    axes.set(xlabel="labels", ylabel=_METRICS[metric], xlim=(0, None))
    axes.set_ylim(max(lowest, 0.75 * full) - 0.01, full * 1.03)
    axes.grid(color="#dddddd", lw=0.5)
    axes.legend(fontsize=7, loc="lower right")


_NOTE = {"textcoords": "offset points", "fontsize": 7, "ha": "right", "color": "#666666"}
