"""The figures a classifier is judged by, each computed for many weightings of the same images at once.

``weights`` is [B, n]: how often each image counts in each of B resamples; a row of ones is the plain figure.
Every function gives [B] (or [B, …]) float64, NaN where the figure is not defined. That makes a bootstrap of a
thousand resamples a few matrix products instead of a thousand loops.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training.calibrate import BINS, Floats, Ints, bin_of, log_of_truth


def confusion(weights: Floats, truth: Ints, predicted: Ints, classes: int) -> Floats:
    """Weighted confusion matrices [B, C, C]: rows are the truth, columns the prediction."""
    cells = np.zeros((len(truth), classes * classes))
    cells[np.arange(len(truth)), truth * classes + predicted] = 1.0
    return np.asarray(weights @ cells).reshape(-1, classes, classes)


def accuracy(matrices: Floats) -> Floats:
    """The share of images whose label is right."""
    return _ratio(np.trace(matrices, axis1=1, axis2=2), matrices.sum(axis=(1, 2)))


def sensitivity(matrices: Floats) -> Floats:
    """Per class [B, C]: of its images, the share that is labelled so (recall)."""
    return _ratio(np.diagonal(matrices, axis1=1, axis2=2), matrices.sum(axis=2))


def specificity(matrices: Floats) -> Floats:
    """Per class [B, C]: of all other images, the share that is not labelled so."""
    total = matrices.sum(axis=(1, 2))[:, None]
    positive, called = matrices.sum(axis=2), matrices.sum(axis=1)
    hit = np.diagonal(matrices, axis1=1, axis2=2)
    return _ratio(total - positive - called + hit, total - positive)


def balanced_accuracy(matrices: Floats) -> Floats:
    """The mean sensitivity over the classes that have images."""
    return _mean_defined(sensitivity(matrices))


def quadratic_kappa(matrices: Floats) -> Floats:
    """Cohen's kappa with squared distance between grades as the weight; 1 is perfect, 0 is chance."""
    classes = matrices.shape[1]
    grades = np.arange(classes)
    distance = (grades[:, None] - grades[None, :]) ** 2
    total = matrices.sum(axis=(1, 2))
    observed = (matrices * distance).sum(axis=(1, 2))
    expected = np.einsum("bi,bj,ij->b", matrices.sum(axis=2), matrices.sum(axis=1), distance.astype(float))
    return 1.0 - _ratio(observed * total, expected)


def auc(weights: Floats, scores: Floats, positive: NDArray[np.bool_]) -> Floats:
    """Area under the ROC curve: how often a positive scores above a negative, ties counting half."""
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    sorted_weights = weights[:, order]
    flags = positive[order].astype(float)
    hits = np.add.reduceat(sorted_weights * flags, starts, axis=1)
    misses = np.add.reduceat(sorted_weights * (1.0 - flags), starts, axis=1)
    below = np.cumsum(misses, axis=1) - misses
    return _ratio((hits * (below + 0.5 * misses)).sum(axis=1), hits.sum(axis=1) * misses.sum(axis=1))


def class_auc(weights: Floats, probabilities: Floats, truth: Ints) -> Floats:
    """One-vs-rest AUC per class [B, C]."""
    columns = [auc(weights, probabilities[:, c], truth == c) for c in range(probabilities.shape[1])]
    return np.stack(columns, axis=1)


def macro_auc(per_class: Floats) -> Floats:
    """The mean of the one-vs-rest AUCs over the classes that have both positives and negatives."""
    return _mean_defined(per_class)


def nll(weights: Floats, probabilities: Floats, truth: Ints) -> Floats:
    """Negative log-likelihood, in nats an image."""
    return _ratio(weights @ -log_of_truth(probabilities, truth), weights.sum(axis=1))


def ece(weights: Floats, confidence: Floats, correct: NDArray[np.bool_], bins: int = BINS) -> Floats:
    """Expected calibration error: mean gap between confidence and accuracy over equal-width bins."""
    which = bin_of(confidence, bins)
    gaps = np.zeros((len(confidence), bins))
    gaps[np.arange(len(confidence)), which] = confidence - correct
    return _ratio(np.abs(weights @ gaps).sum(axis=1), weights.sum(axis=1))


def _ratio(above: Floats, below: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(below > 0, above / np.where(below > 0, below, 1.0), np.nan)


def _mean_defined(values: Floats) -> Floats:
    defined = ~np.isnan(values)
    return _ratio(np.where(defined, values, 0.0).sum(axis=1), defined.sum(axis=1).astype(float))
