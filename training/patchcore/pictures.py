"""What a memory's judgement looks like: ROC curve, score histogram, PRO curve, and the worst images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from data.files import atomic_path
from data.image import STORED_LIMITS
from training.evaluate import metrics
from training.patchcore.evaluate import PRO_LIMIT, Floats, Map, Mask, MaskReader, PixelTally, image_figures

if TYPE_CHECKING:
    from data.dataset import Dataset
    from training.task import Task

ROC, SCORES, PRO, WORST = "roc.png", "scores.png", "pro.png", "worst.png"

# Okabe and Ito's colours, which people with a colour deficiency can tell apart.
_OK_COLOUR, _NG_COLOUR, _LINE = "#0072B2", "#D55E00", "#000000"


@dataclass(frozen=True, slots=True)
class Shown:
    """Judged images: ``ids``, ``scores`` and ``ng`` [N], and the map of each at the input's size."""

    ids: Sequence[str]
    scores: Floats
    ng: Mask
    threshold: float
    map_of: Callable[[int], Map]


def write_pictures(
    shown: Shown, tally: PixelTally, dataset: Dataset, task: Task, out: Path, *, worst: int = 8
) -> list[Path]:
    """Write ``roc.png``, ``scores.png``, ``worst.png`` and, where there are masks, ``pro.png`` into ``out``.

    A curve that is not defined (no image of one class) is left out. ``worst`` images are shown, those that
    lie furthest on the wrong side of the threshold, or nearest to it on the right one, first.
    """
    out.mkdir(parents=True, exist_ok=True)
    made = [_save(out / SCORES, lambda figure: _histogram(figure, shown))]
    if shown.ng.any() and not shown.ng.all():
        made.append(_save(out / ROC, lambda figure: _roc(figure, shown)))
    if tally.figures().pro is not None:
        made.append(_save(out / PRO, lambda figure: _pro(figure, tally)))
    chosen = worst_images(shown, worst)
    if len(chosen):
        size = (9.0, 3.0 * len(chosen))
        made.append(_save(out / WORST, lambda figure: _worst(figure, shown, chosen, dataset, task), size))
    return made


def worst_images(shown: Shown, count: int) -> NDArray[np.intp]:
    """The places of the images that lie furthest on the wrong side of the threshold, worst first."""
    wrong = np.where(shown.ng, shown.threshold - shown.scores, shown.scores - shown.threshold)
    return np.argsort(-wrong, kind="stable")[:count]


def _save(path: Path, draw: Callable[[Any], None], size: tuple[float, float] = (6.4, 5.0)) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=110, layout="constrained")
    draw(figure)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})
    return path


def _roc(figure: Any, shown: Shown) -> None:
    axes = figure.subplots()
    order = np.argsort(-shown.scores, kind="stable")
    ranked, ng = shown.scores[order], shown.ng[order]
    ends = np.r_[ranked[1:] != ranked[:-1], True]
    false = np.r_[0, np.cumsum(~ng)[ends]] / max((~ng).sum(), 1)
    true = np.r_[0, np.cumsum(ng)[ends]] / max(ng.sum(), 1)
    area = metrics.auc(np.ones((1, len(ng))), shown.scores, shown.ng)[0]
    axes.plot(false, true, color=_NG_COLOUR, label=f"AUROC {area:.3f}")
    axes.plot([0, 1], [0, 1], color=_LINE, linestyle=":", linewidth=1)
    called = shown.scores >= shown.threshold
    axes.plot(
        (called & ~shown.ng).sum() / max((~shown.ng).sum(), 1),
        (called & shown.ng).sum() / max(shown.ng.sum(), 1),
        "o",
        color=_LINE,
        label=f"threshold {shown.threshold:.3f}",
    )
    axes.set(xlabel="OK images called NG", ylabel="NG images called NG", title="Images")
    axes.legend(loc="lower right")


def _histogram(figure: Any, shown: Shown) -> None:
    axes = figure.subplots()
    low, high = float(shown.scores.min(initial=0)), float(shown.scores.max(initial=1e-6))
    edges = np.linspace(low, max(high, low + 1e-6), 31)
    for name, chosen, colour in (("OK", ~shown.ng, _OK_COLOUR), ("NG", shown.ng, _NG_COLOUR)):
        if chosen.any():
            label = f"{name} ({int(chosen.sum())})"
            axes.hist(shown.scores[chosen], edges, alpha=0.6, color=colour, label=label)
    axes.axvline(shown.threshold, color=_LINE, linestyle="--", label=f"threshold {shown.threshold:.3f}")
    found = image_figures(shown.scores, shown.ng)
    if found.best_f1 is not None:
        title = f"best F1 {found.best_f1:.3f} at {found.best_f1_threshold:.3f}"
        axes.set_title(title)
    axes.set(xlabel="score (squared distance, 0 to 4)", ylabel="images")
    axes.legend()


def _pro(figure: Any, tally: PixelTally) -> None:
    axes = figure.subplots()
    false, true, overlap = tally.curve()
    found = tally.figures()
    near = false <= PRO_LIMIT
    axes.plot(false[near], overlap[near], color=_NG_COLOUR, label=f"region overlap, PRO {found.pro:.3f}")
    axes.plot(
        false[near],
        true[near],
        color=_OK_COLOUR,
        label=f"pixels, AUROC {found.pixel_auroc:.3f} (whole curve)",
    )
    axes.set(xlim=(0, PRO_LIMIT), ylim=(0, 1.02), xlabel="OK pixels called NG", ylabel="defect found")
    axes.set_title(f"Pixels: {found.regions} regions in {found.masks} masks")
    axes.legend(loc="lower right")


def _worst(figure: Any, shown: Shown, chosen: NDArray[np.intp], dataset: Dataset, task: Task) -> None:
    """A row an image: the image, what the mask marks of it, its map with the threshold's outline."""
    masks = MaskReader(dataset, task)
    frame = dataset.frame().set_index("id")
    grid = figure.subplots(len(chosen), 3, squeeze=False)
    for row, i in zip(grid, chosen, strict=True):
        name, heat = shown.ids[i], shown.map_of(int(i))
        data = dataset.image_path(frame.loc[name, "path"]).read_bytes()
        picture = task.preprocessing(task.preprocessing.decode(data, STORED_LIMITS))
        mask = masks(name)
        for axes in row:
            axes.set_axis_off()
        row[0].imshow(picture)
        row[0].set_title(f"{name}\n{'NG' if shown.ng[i] else 'OK'}", fontsize=7)
        row[1].imshow(picture if mask is None else np.where(mask[..., None], picture, picture // 4))
        row[1].set_title("no mask" if mask is None else "what the mask marks", fontsize=7)
        # One scale for all rows, so that a hot place is as hot in each.
        image = row[2].imshow(heat, cmap="inferno", vmin=0, vmax=max(2 * shown.threshold, 1e-6))
        if heat.min() < shown.threshold < heat.max():
            row[2].contour(heat, levels=[shown.threshold], colors="white", linewidths=0.7)
        row[2].set_title(f"score {shown.scores[i]:.3f}, threshold {shown.threshold:.3f}", fontsize=7)
        figure.colorbar(image, ax=row[2], shrink=0.7)
