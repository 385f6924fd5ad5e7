"""The few metrics by which an epoch is judged, on validation data, without intervals.

What a model is reported with comes from ``training.evaluate``; this stays small because it runs every epoch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from training.spec.parts import HeadSpec

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]


def log_softmax(logits: Floats) -> Floats:
    """Log probabilities along the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    result: Floats = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def auc(scores: Floats, positive: NDArray[np.bool_]) -> float | None:
    """Area under the ROC of one class against the rest, ties counted half; None when one side is empty."""
    from scipy.stats import rankdata

    ones = int(positive.sum())
    zeros = len(positive) - ones
    if ones == 0 or zeros == 0:
        return None
    ranks = rankdata(scores)
    return float((ranks[positive].sum() - ones * (ones + 1) / 2) / (ones * zeros))


def macro_auc(probabilities: Floats, labels: Ints) -> float | None:
    """The mean of one-vs-rest AUCs over the classes that are there."""
    parts = [auc(probabilities[:, c], labels == c) for c in range(probabilities.shape[1])]
    known = [part for part in parts if part is not None]
    return float(np.mean(known)) if known else None


def quadratic_kappa(predicted: Ints, labels: Ints, classes: int) -> float:
    """Cohen's kappa with quadratic weights; 0 when everything is one class."""
    table = np.zeros((classes, classes))
    np.add.at(table, (labels, predicted), 1)
    distance = np.subtract.outer(np.arange(classes), np.arange(classes)) ** 2
    by_chance = np.outer(table.sum(1), table.sum(0)) / max(table.sum(), 1)
    expected = float((distance * by_chance).sum())
    return 1 - float((distance * table).sum()) / expected if expected > 0 else 0.0


def head_metrics(logits: Floats, labels: Ints, head: HeadSpec) -> dict[str, float]:
    """The metrics of one head; rows with label -1 have none and are left out. Empty without labels."""
    present = labels >= 0
    if not present.any():
        return {}
    log_probabilities, labels = log_softmax(logits[present].astype(np.float64)), labels[present]
    predicted = log_probabilities.argmax(1)
    recalls = [float((predicted[labels == c] == c).mean()) for c in np.unique(labels)]
    found = {
        "accuracy": float((predicted == labels).mean()),
        "balanced_accuracy": float(np.mean(recalls)),
        "nll": float(-log_probabilities[np.arange(len(labels)), labels].mean()),
    }
    area = macro_auc(np.exp(log_probabilities), labels)
    if area is not None:
        found["auc"] = area
    if head.ordinal:
        found["kappa"] = quadratic_kappa(predicted, labels, len(head.classes))
    return found


def score(
    metrics: Mapping[str, Mapping[str, float]], heads: Sequence[HeadSpec], chosen: str | Mapping[str, float]
) -> float | None:
    """One number to choose an epoch by, higher is better; None when nothing of it could be measured.

    ``auto``: AUC; on graded heads the mean of AUC and kappa; heads by their weights. Otherwise a metric or a
    weighted mix; a metric without a head's name is the mean over the heads that have it.
    """
    total = weight_sum = 0.0
    if chosen == "auto":
        parts = [
            (head.weight, head, name)
            for head in heads
            for name in (("auc", "kappa") if head.ordinal else ("auc",))
        ]
        for weight, head, name in parts:
            if weight > 0 and name in metrics.get(head.name, {}):
                share = weight / (2 if head.ordinal else 1)
                total += share * metrics[head.name][name]
                weight_sum += share
        return total / weight_sum if weight_sum else None
    mix = {chosen: 1.0} if isinstance(chosen, str) else chosen
    for name, weight in mix.items():
        head_name, _, metric = name.rpartition(".")
        values = [
            metrics[head.name][metric]
            for head in heads
            if (not head_name or head.name == head_name) and metric in metrics.get(head.name, {})
        ]
        if values:
            total += weight * float(np.mean(values)) * (-1 if metric == "nll" else 1)
            weight_sum += abs(weight)
    return total / weight_sum if weight_sum else None
