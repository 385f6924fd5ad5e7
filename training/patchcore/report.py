"""The evaluation document of an anomaly model: a classifier's figures of images, and those of pixels.

It is what registry and gate read, so the figures lie where a classifier's do, under ``heads.<head>``. What
needs probabilities (NLL, calibration error, coverage) isn't there: a score is no probability.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from data.files import atomic_dir
from serving.core.patchcore.calibrate import Calibration
from serving.core.patchcore.detector import Scorer
from training.evaluate import evaluate
from training.evaluate.bootstrap import interval, resamples
from training.patchcore.build import NG
from training.patchcore.evaluate import PixelFigures, image_figures, tally_pixels
from training.patchcore.pictures import Shown, write_pictures
from training.patchcore.scoring import Scored, score_split
from training.patchcore.scoring import predictions as as_predictions

if TYPE_CHECKING:
    from data.dataset import Dataset
    from training.task import Task

RESAMPLES = 1000
_OF_PROBABILITIES = ("nll", "ece", "calibration")
_QUANTILES = {"min": 0, "p5": 5, "median": 50, "p95": 95, "max": 100}


def judge(
    scorer: Scorer,
    calibration: Calibration,
    dataset: Dataset,
    task: Task,
    *,
    predictions: Path,
    pictures: Path,
    seed: int = 0,
) -> dict[str, Any]:
    """Score the test images and judge them; gives the evaluation document.

    ``predictions`` becomes a folder: ``test.npz`` as the gate compares it, and ``scores.npz`` with all that
    was scored; ``pictures`` a folder of PNG files.

    Raises:
        DataError: no test image has a label.
    """
    scored = score_split(scorer, dataset, task.heads, "test")
    head = task.heads[0].name
    said = as_predictions(scored, calibration.threshold, head)
    with atomic_dir(predictions) as folder:
        scored.save(folder / "scores.npz")
        said.save(folder / "test.npz")
    report = evaluate(said, task.heads, dataset.split("test"), bootstrap=RESAMPLES, seed=seed)
    for part in (report["heads"][head], *report["slices"]):
        for name in _OF_PROBABILITIES:
            part.pop(name, None)
    report["kind"] = task.kind
    report["threshold"] = calibration.to_dict()
    known = scored.take(np.flatnonzero(scored.label >= 0))
    shown = Shown(
        [str(name) for name in known.ids],
        known.score.astype(np.float64),
        known.label == NG,
        calibration.threshold,
        lambda i: scorer.map(known.distances[i]),
    )
    tally = tally_pixels(dataset, task, shown.ids, shown.ng, shown.map_of)
    report["heads"][head] |= figures(known, calibration.threshold, tally.figures(), seed=seed)
    write_pictures(shown, tally, dataset, task, pictures)
    return report


def figures(scored: Scored, threshold: float, pixels: PixelFigures, *, seed: int = 0) -> dict[str, Any]:
    """What an anomaly model's head has beside a classifier's figures."""
    found = image_figures(scored.score, scored.label == NG)
    return {
        "f1": _f1(scored, threshold, seed),
        "best_f1": _alone(found.best_f1),
        "pixel_auroc": _alone(pixels.pixel_auroc),
        "pro": _alone(pixels.pro),
        "best_f1_threshold": found.best_f1_threshold,
        "pixels": {"images": pixels.images, "masks": pixels.masks, "regions": pixels.regions},
        "scores": {name: _spread(scored.of(which)) for which, name in enumerate(("ok", "ng"))},
    }


def _f1(scored: Scored, threshold: float, seed: int) -> dict[str, float | None]:
    """F1 of what is not OK, at the threshold, with its bootstrap interval."""
    called, ng = scored.score.astype(np.float64) >= threshold, scored.label == NG
    parts = np.stack([called & ng, called & ~ng, ~called & ng], axis=1).astype(np.float64)

    def value(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        hit, alarm, missed = (weights @ parts).T
        below = 2 * hit + alarm + missed
        return np.where(hit + missed > 0, 2 * hit / np.maximum(below, 1e-12), np.nan)

    strata = scored.label.astype(np.intp)
    blocks = [value(weights) for weights in resamples(strata, RESAMPLES, seed)]
    plain = float(value(np.ones((1, len(scored))))[0])
    return interval(plain, np.concatenate([np.zeros(0), *blocks])).to_dict()


def _alone(value: float | None) -> Mapping[str, float | None]:
    """A figure without an interval."""
    return {"value": value, "low": None, "high": None}


def _spread(scores: NDArray[np.float32]) -> dict[str, float] | None:
    if not len(scores):
        return None
    return {name: float(np.percentile(scores, at)) for name, at in _QUANTILES.items()}
