"""From logits to an answer: calibrated probabilities, label, conformal set, doubt. Pure numpy, the one
implementation that evaluation and serving share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from data.errors import ServingError
from serving.core.bundle.card import HeadCard


@dataclass(frozen=True, slots=True)
class HeadDecision:
    """The answers of one head for N images and C classes.

    ``probabilities`` float32 [N, C], rows sum to 1; ``label`` intp [N], the most probable class;
    ``uncertain`` bool [N]; ``set`` bool [N, C], which always holds the label.
    """

    probabilities: NDArray[np.float32]
    label: NDArray[np.intp]
    uncertain: NDArray[np.bool_]
    set: NDArray[np.bool_]

    @property
    def confidence(self) -> NDArray[np.float32]:
        """The label's probability, float32 [N]."""
        return np.asarray(self.probabilities.max(axis=1))


def decide(logits: ArrayLike, head: HeadCard) -> HeadDecision:
    """Apply a head's calibration to its own logits [N, C].

    Raises:
        ServingError: the logits aren't [N, C], or one isn't a finite number: no answer is made up from it.
    """
    values = np.asarray(logits, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] != len(head.classes):
        raise ServingError(
            f"Head {head.name!r} takes logits [N, {len(head.classes)}], not {list(values.shape)}.",
            hint="The model and its card disagree: export the bundle again.",
        )
    probabilities = calibrated(values, head.temperature, head.bias)
    label = probabilities.argmax(axis=1)
    rows = np.arange(len(label))
    top = probabilities[rows, label]
    # 1 - p <= qhat, as it was fitted; in this form qhat = 1 gives every class whatever the rounding.
    members = 1.0 - probabilities <= head.qhat
    members[rows, label] = True
    return HeadDecision(
        probabilities=probabilities.astype(np.float32),
        label=label,
        # At 1 nothing is certain, a probability that rounds to 1 included.
        uncertain=(top < head.uncertain_below) | (head.uncertain_below >= 1.0),
        set=members,
    )


def calibrated(
    logits: ArrayLike, temperature: float = 1.0, bias: ArrayLike | None = None
) -> NDArray[np.float64]:
    """``softmax((logits + bias) / temperature)`` along the last axis, in float64, without overflow.

    Raises:
        ServingError: a logit isn't a finite number.
    """
    values = np.asarray(logits, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ServingError(
            "The model gave a value that is not a finite number, so there is no answer.",
            hint="Check the image's preprocessing and the bundle's golden answers (retiderm models verify).",
        )
    if bias is not None:
        values = values + np.asarray(bias, dtype=np.float64)
    values = values - values.max(axis=-1, keepdims=True)
    with np.errstate(over="ignore", under="ignore"):
        exponents = np.exp(values / temperature)
    return np.asarray(exponents / exponents.sum(axis=-1, keepdims=True))
