"""The model of the simulation: multinomial logistic regression on embeddings, and how it is judged."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.core.selection import comparable
from training.evaluate import metrics

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

#: Principal components of the embeddings that the head sees.
COMPONENTS = 256
#: The features' root mean square length. With :data:`PENALTY` it sets how much the head is held back.
LENGTH = 50.0**0.5
#: scikit-learn's C. With all labels, it and the components gave the best macro AUC on HAM10000's validation
#: images.
PENALTY = 0.1


def features(x: Floats, pool: Ints) -> Floats:
    """[n, D] embeddings as [n, d] features: unit length, less the pool's mean, on its principal components.

    Nothing but the pool's images, without their labels, sets the mean, the components and the scale.
    """
    moved = comparable(x, x[pool])
    _, vectors = np.linalg.eigh(np.cov(moved[pool].T.astype(np.float64)))
    found = moved @ vectors[:, ::-1][:, :COMPONENTS].astype(np.float32)
    scale = LENGTH / np.sqrt(np.square(found[pool]).sum(axis=1).mean())
    return np.asarray(found * scale, np.float32)


@dataclass(frozen=True, slots=True)
class HeadModel:
    """A fitted head. ``share`` float64 [C] is each class's among its labels, as if every class had half an
    image more."""

    model: Any
    share: NDArray[np.float64]

    @classmethod
    def fit(cls, x: Floats, y: Ints, classes: int) -> HeadModel:
        """Fit on labelled features [m, d] of two classes at least."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model = LogisticRegression(C=PENALTY, max_iter=150, tol=1e-3).fit(x, y)
        counts = np.bincount(y, minlength=classes) + 0.5
        return cls(model, counts / counts.sum())

    def __call__(self, x: Floats) -> NDArray[np.float64]:
        """Probabilities [n, C]; next to nothing for a class that no label has."""
        found = np.full((len(x), len(self.share)), 1e-9)
        found[:, self.model.classes_] = np.maximum(self.model.predict_proba(x), 1e-9)
        return np.asarray(found / found.sum(axis=1, keepdims=True))


def scores(
    probabilities: NDArray[np.float64], truth: Ints, share: NDArray[np.float64]
) -> Mapping[str, float]:
    """The figures of one model on n images.

    ``auc``: macro one-vs-rest; ``kappa``: quadratic, of the likeliest class; ``balanced_accuracy``: of the
    class likeliest had all the same share of the labels, which is how a model that learned rare classes from
    few images finds them.
    """
    ones, classes = np.ones((1, len(truth))), probabilities.shape[1]
    plain = metrics.confusion(ones, truth, probabilities.argmax(axis=1), classes)
    even = metrics.confusion(ones, truth, (probabilities / share).argmax(axis=1), classes)
    return {
        "auc": float(metrics.macro_auc(metrics.class_auc(ones, probabilities, truth))[0]),
        "kappa": float(metrics.quadratic_kappa(plain)[0]),
        "balanced_accuracy": float(metrics.balanced_accuracy(even)[0]),
    }
