"""A picture of how training went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data.files import atomic_path


def draw_curves(history: Sequence[Mapping[str, Any]], chosen: int, path: Path, *, title: str) -> None:
    """Loss on the left, validation metrics on the right, the kept epoch marked; a PNG."""
    # The figure's own canvas: no display, and no state shared with a caller's matplotlib.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    epochs = [row["epoch"] + 1 for row in history]
    left.plot(epochs, [row["loss"] for row in history], marker=".", label="training loss")
    for head in history[-1]["val"] if history else ():
        for name in history[-1]["val"][head]:
            values = [row["val"].get(head, {}).get(name, float("nan")) for row in history]
            axis = left if name == "nll" else right
            axis.plot(epochs, values, marker=".", label=f"{head} {name}")
    for axis in (left, right):
        if history:
            axis.axvline(chosen + 1, color="grey", linestyle=":", label="kept")
            axis.legend(fontsize="small")
        axis.set_xlabel("epoch")
        axis.grid(alpha=0.3)
    left.set_title("loss")
    right.set_title("validation")
    figure.suptitle(title)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)
