"""The confusion matrix, ROC curves and reliability diagram, a row a head, as PNG files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data.files import atomic_path
from serving.core.decisions import calibrated
from training.calibrate import BINS, bin_of
from training.evaluate import metrics
from training.evaluate.heads import Judged

NAMES = ("confusion.png", "roc.png", "reliability.png")

# Okabe and Ito's colours, which people with a colour deficiency can tell apart.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")


def write_pictures(heads: Sequence[Judged], out: Path) -> list[Path]:
    """Write ``confusion.png``, ``roc.png`` and ``reliability.png`` into ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    drawers = (_confusion, _roc, _reliability)
    return [_save(draw, heads, out / name) for draw, name in zip(drawers, NAMES, strict=True)]


def _save(draw: Any, heads: Sequence[Judged], path: Path) -> Path:
    from matplotlib.figure import Figure

    columns = 2 if draw is _reliability else 1
    figure = Figure(figsize=(6.4 * columns, 5.4 * len(heads)), dpi=110, layout="constrained")
    grid = figure.subplots(len(heads), columns, squeeze=False)
    for row, judged in zip(grid, heads, strict=True):
        draw(figure, row, judged)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})
    return path


def _confusion(figure: Any, row: Any, judged: Judged) -> None:
    (axes,) = row
    classes = judged.head.classes
    ones = np.ones((1, len(judged)))
    matrix = metrics.confusion(ones, judged.truth, judged.label, len(classes))[0]
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    for i, j in np.ndindex(matrix.shape):
        colour = "white" if share[i, j] > 0.55 else "black"
        axes.text(
            j,
            i,
            f"{int(matrix[i, j])}\n{share[i, j]:.0%}",
            ha="center",
            va="center",
            color=colour,
            fontsize=8,
        )
    axes.set_xticks(range(len(classes)), classes, rotation=30, ha="right")
    axes.set_yticks(range(len(classes)), classes)
    axes.set(xlabel="predicted", ylabel="true", title=f"{judged.head.name}: {len(judged)} test images")


def _roc(figure: Any, row: Any, judged: Judged) -> None:
    (axes,) = row
    ones = np.ones((1, len(judged)))
    areas = metrics.class_auc(ones, judged.probabilities, judged.truth)[0]
    mean = float(metrics.macro_auc(areas[None])[0])
    for c, name in enumerate(judged.head.classes):
        positive = judged.truth == c
        if not positive.any() or positive.all():
            axes.plot([], [], color="none", label=f"{name}: no images to judge by")
            continue
        order = np.argsort(-judged.probabilities[:, c], kind="stable")
        scores, hits = judged.probabilities[order, c], positive[order]
        # A step only where the score changes: tied images can't be told apart by any threshold.
        ends = np.r_[np.flatnonzero(np.diff(scores)), len(scores) - 1]
        right = np.r_[0, np.cumsum(hits)[ends]] / hits.sum()
        wrong = np.r_[0, np.cumsum(~hits)[ends]] / (~hits).sum()
        style = "-" if c < len(_COLOURS) else "--"
        axes.plot(
            wrong,
            right,
            style,
            color=_COLOURS[c % len(_COLOURS)],
            label=f"{name} (n = {int(positive.sum())}): {areas[c]:.3f}",
        )
    axes.plot([0, 1], [0, 1], ":", color="grey", linewidth=1)
    axes.set(
        xlabel="1 − specificity",
        ylabel="sensitivity",
        title=f"{judged.head.name}: one against the rest, mean AUC {mean:.3f}",
        xlim=(-0.01, 1.01),
        ylim=(-0.01, 1.01),
    )
    axes.legend(loc="lower right", fontsize=8)


def _reliability(figure: Any, row: Any, judged: Judged) -> None:
    raw = calibrated(judged.logits)
    ones = np.ones((1, len(judged)))
    for axes, title, probabilities in zip(
        row, ("before calibration", "after calibration"), (raw, judged.probabilities), strict=True
    ):
        confidence = probabilities.max(axis=1)
        correct = probabilities.argmax(axis=1) == judged.truth
        which = bin_of(confidence)
        counts = np.bincount(which, minlength=BINS)
        used = np.flatnonzero(counts)
        mean = np.bincount(which, confidence, BINS)[used] / counts[used]
        right = np.bincount(which, correct, BINS)[used] / counts[used]
        # Two standard errors of a calibrated bin of that size: how far chance alone takes a bar.
        spread = 2 * np.sqrt(mean * (1 - mean) / counts[used])
        reach = np.array([np.minimum(spread, mean), np.minimum(spread, 1 - mean)])
        axes.plot([0, 1], [0, 1], ":", color="grey", linewidth=1)
        axes.errorbar(
            mean,
            mean,
            yerr=reach,
            fmt="none",
            ecolor="#bbbbbb",
            capsize=3,
            label="expected by chance (2 s.e.)",
        )
        axes.scatter(
            mean,
            right,
            s=12 + 160 * counts[used] / counts.max(),
            color=_COLOURS[0],
            label="a bin; area: images",
        )
        error = float(metrics.ece(ones, confidence, correct)[0])
        axes.set(
            xlabel="confidence",
            ylabel="share that is right",
            title=f"{judged.head.name}, {title}: ECE {error:.3f}",
            xlim=(0, 1.02),
            ylim=(-0.02, 1.02),
        )
        axes.legend(loc="upper left", fontsize=8)
