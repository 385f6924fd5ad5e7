"""The curves as a picture: one row a set, the choice on the left, its confirmation on the right."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.loop.study import BASELINE
from data.files import atomic_path

# Okabe and Ito's colours, which people with a colour deficiency can tell apart, and some between them.
_COLOURS = ("#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#882255", "#117733", "#999933", "#AA4499")
_DASHES = ("-", (0, (4, 2)))
_RANDOM, _CHOSEN = "#000000", "#D55E00"
_METRICS = {"auc": "macro AUC", "kappa": "quadratic kappa", "balanced_accuracy": "balanced accuracy"}
_NOTE = {"textcoords": "offset points", "fontsize": 7, "ha": "left", "color": "#666666"}

Row = Mapping[str, str]


def draw(results: Path, out: Path) -> None:
    """Draw what ``loop.json`` and the CSV beside it hold, in the format that the picture's name says."""
    from matplotlib.figure import Figure

    document = json.loads(results.read_text())
    with results.with_suffix(".csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    sets = document["sets"]
    figure = Figure(figsize=(13, 4.3 * len(sets)), dpi=100, layout="constrained")
    grid = figure.subplots(len(sets), 2, squeeze=False)
    for line, one in zip(grid, sets, strict=True):
        for axes, phase in zip(line, ("choose", "confirm"), strict=True):
            mine = [row for row in rows if (row["set"], row["phase"]) == (one["set"], phase)]
            _panel(axes, one, mine, phase, document["rule"]["share_of_full_score"])
        # One legend is enough: the chosen ones are among those that stood for election.
        handles, names = line[0].get_legend_handles_labels()
        line[1].legend(handles, names, fontsize=7, loc="center left", bbox_to_anchor=(1.02, 0.5))
    with atomic_path(out) as temporary:
        figure.savefig(temporary, format=out.suffix.removeprefix("."), pil_kwargs={"quality": 88})


def _panel(axes: Any, one: Mapping[str, Any], rows: Sequence[Row], phase: str, share: float) -> None:
    metric = one["metric"]
    full = one[phase]["all_labels"][metric]
    others = iter([(colour, dash) for dash in _DASHES for colour in _COLOURS])
    lowest = full
    for strategy in dict.fromkeys(row["strategy"] for row in rows):
        mine = [row for row in rows if row["strategy"] == strategy]
        labels = [int(row["labels"]) for row in mine]
        mean, low, high = ([float(row[f"{metric}{end}"]) for row in mine] for end in ("", "_low", "_high"))
        lowest = min(lowest, *mean)
        told = {BASELINE: _RANDOM, one["chosen"]: _CHOSEN}.get(strategy)
        colour, dash = (told, "-") if told else next(others)
        style = {"lw": 2.2, "zorder": 3} if told else {"lw": 0.9, "zorder": 2}
        axes.plot(labels, mean, color=colour, ls=dash, label=strategy, **style)
        if told:
            axes.fill_between(labels, low, high, color=colour, alpha=0.15, lw=0)
    for part, words in ((1.0, "all labels"), (share, f"{share:.0%} of it")):
        axes.axhline(part * full, color="#666666", lw=0.8, ls="-" if part == 1 else "--")
        axes.annotate(words, (0, part * full), (3, 2), xycoords=("axes fraction", "data"), **_NOTE)
    seeds = one[phase]["seeds"]
    axes.set_title(
        f"{one['set']}: {one[phase]['judged_on']} images, seeds {seeds[0]} to {seeds[-1]}", fontsize=10
    )
    axes.set(xlabel="labels", ylabel=_METRICS[metric], xlim=(0, None))
    axes.set_ylim(max(lowest, 0.75 * full) - 0.01, full * 1.03)
    axes.grid(color="#dddddd", lw=0.5)
