"""From curves to a verdict: labels needed, bands, savings, and what may be said of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: The part of the full-data score that has to be reached.
SHARE = 0.95
RESAMPLES = 10_000
_LEVEL = 0.95

Values = NDArray[np.float64]


def needed(labels: Sequence[int], curve: Values, target: float) -> float:
    """How many labels until a curve first reaches the target, along the line between points; NaN if never."""
    reached = np.flatnonzero(curve >= target)
    if not len(reached):
        return math.nan
    place = int(reached[0])
    if place == 0:
        return float(labels[0])
    low, high = curve[place - 1], curve[place]
    step = labels[place] - labels[place - 1]
    return float(labels[place - 1] + step * (target - low) / (high - low))


def band(curves: Values) -> tuple[Values, Values, Values]:
    """Mean of [seeds, points], and the edges of its 95 % interval by Student's t over seeds."""
    from scipy.stats import t

    count = len(curves)
    mean = curves.mean(axis=0)
    if count < 2:
        return mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan)
    half = float(t.ppf(0.5 + _LEVEL / 2, count - 1)) * curves.std(axis=0, ddof=1) / math.sqrt(count)
    return mean, mean - half, mean + half


def compare(
    labels: Sequence[int], curves: Values, baseline: Values, full: Values, *, seed: int = 0
) -> dict[str, Any]:
    """Labels needed by the mean of ``curves`` [seeds, points], of ``baseline``, and the saving.

    The target is 95 % of the mean of ``full`` [seeds]. The interval comes from drawing the seeds again, the
    curve, baseline and full-data score of a seed together; a draw in which one never reaches the target
    counts as the largest number of labels tried.
    """
    target = SHARE * float(full.mean())
    mine, other = needed(labels, curves.mean(axis=0), target), needed(labels, baseline.mean(axis=0), target)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(full), size=(RESAMPLES, len(full)))
    resampled = []
    for rows in drawn:
        goal = SHARE * float(full[rows].mean())
        pair = [needed(labels, values[rows].mean(axis=0), goal) for values in (curves, baseline)]
        resampled.append([labels[-1] if math.isnan(value) else value for value in pair])
    both = np.array(resampled)
    edges = ((1 - _LEVEL) / 2, (1 + _LEVEL) / 2)
    return {
        "target": target,
        "labels": _number(mine),
        "labels_interval": [float(edge) for edge in np.quantile(both[:, 0], edges)],
        "baseline_labels": _number(other),
        "baseline_interval": [float(edge) for edge in np.quantile(both[:, 1], edges)],
        "saving": _number(1 - mine / other),
        "saving_interval": [float(edge) for edge in np.quantile(1 - both[:, 0] / both[:, 1], edges)],
        "labels_by_seed": [
            _number(needed(labels, values, SHARE * score)) for values, score in zip(curves, full, strict=True)
        ],
        "baseline_by_seed": [
            _number(needed(labels, values, SHARE * score))
            for values, score in zip(baseline, full, strict=True)
        ],
    }


def _number(value: float) -> float | None:
    """NaN is no JSON."""
    return None if math.isnan(value) else value
