"""Candidate against champion on the same test images: a paired bootstrap of the difference in one metric.

Both are judged on the same resampled images, so what makes an image hard for both cancels out. The candidate
passes when the lower end of the one-sided interval of its difference is above minus the margin: it is then
shown, at that confidence, not to be worse by more than the margin (non-inferiority).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from data.errors import RegistryError
from serving.core.bundle import Card
from serving.core.decisions import calibrated

if TYPE_CHECKING:
    from training.predict import Predictions

LOWER_IS_BETTER = frozenset({"nll", "ece"})
ORDINAL_ONLY = frozenset({"kappa"})


@dataclass(frozen=True, slots=True)
class Answers:
    """What a model said about one head's labelled test images: calibrated, in the order of ``ids``."""

    ids: tuple[str, ...]
    truth: NDArray[np.intp]  # [n]
    probabilities: NDArray[np.float64]  # [n, C]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One head's candidate and champion. ``difference`` and ``low`` are turned so that more is better."""

    head: str
    metric: str
    candidate: float
    champion: float
    difference: float
    low: float  # the lower end of its one-sided interval
    margin: float
    confidence: float
    images: int
    resamples: int
    passed: bool
    note: str = ""

    @property
    def sentence(self) -> str:
        """For people."""
        verdict = "not worse" if self.passed else "may be worse"
        return (
            f"{self.head}: {self.metric} {self.candidate:.4f} against the champion's {self.champion:.4f} on "
            f"{self.images} test images; difference {self.difference:+.4f}, at least {self.low:+.4f} at "
            f"{self.confidence:.0%} confidence: {verdict} by more than {self.margin:g}."
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON's own types."""
        return {**asdict(self), "sentence": self.sentence}


def answers(predictions: Predictions, card: Card, head: str) -> Answers:
    """A head's calibrated answers to the images that have a label, sorted by id.

    Raises:
        RegistryError: the predictions are not this card's.
    """
    part = card.slices[head]
    logits = np.asarray(predictions.logits)
    if logits.ndim != 2 or logits.shape[1] < part.stop or head not in predictions.labels:
        raise RegistryError(f"The stored predictions are not those of a model with the head {head!r}.")
    truth = np.asarray(predictions.labels[head], dtype=np.intp)
    ids = np.asarray(predictions.ids).astype(str)
    chosen = np.flatnonzero(truth >= 0)
    chosen = chosen[np.argsort(ids[chosen], kind="stable")]
    settings = card.head(head)
    probabilities = calibrated(logits[chosen, part], settings.temperature, settings.bias)
    return Answers(tuple(ids[chosen].tolist()), truth[chosen], probabilities)


def compare(
    head: str,
    candidate: Answers,
    champion: Answers,
    *,
    metric: str,
    margin: float,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Compare two models' answers to the same images.

    Raises:
        RegistryError: the images or their labels differ, or the metric says nothing on them.
    """
    from training.evaluate.bootstrap import resamples as draw

    if candidate.ids != champion.ids or not np.array_equal(candidate.truth, champion.truth):
        raise RegistryError("Candidate and champion were not asked about the same labelled images.")
    if len(candidate.ids) < 2:
        raise RegistryError(f"{len(candidate.ids)} test images are too few for a comparison.")
    sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
    once = np.ones((1, len(candidate.ids)))
    values = [float(_values(metric, once, one)[0]) for one in (candidate, champion)]
    if not np.isfinite(values).all():
        raise RegistryError(f"{metric} is not defined on the test images of {head}.")
    differences = np.concatenate(
        [
            sign * (_values(metric, weights, candidate) - _values(metric, weights, champion))
            for weights in draw(candidate.truth, resamples, seed)
        ]
    )
    low = float(np.quantile(differences[np.isfinite(differences)], 1 - confidence))
    return Comparison(
        head=head,
        metric=metric,
        candidate=values[0],
        champion=values[1],
        difference=sign * (values[0] - values[1]),
        low=low,
        margin=margin,
        confidence=confidence,
        images=len(candidate.ids),
        resamples=len(differences),
        passed=bool(low >= -margin),
    )


def measured(metric: str, one: Answers) -> float:
    """A metric on one model's answers, NaN where it is not defined."""
    return float(_values(metric, np.ones((1, len(one.ids))), one)[0])


def metric_of(metrics: Mapping[str, Any], head: str, name: str) -> float | None:
    """A head's metric on its card, or None."""
    heads = metrics.get("heads", metrics)
    entry = heads.get(head, {}).get(name) if isinstance(heads, Mapping) else None
    value = entry.get("value") if isinstance(entry, Mapping) else entry
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _values(metric: str, weights: NDArray[np.float64], one: Answers) -> NDArray[np.float64]:
    """The metric for each row of weights [B, n]."""
    from training.evaluate import metrics as m

    if metric == "auc":
        return m.macro_auc(m.class_auc(weights, one.probabilities, one.truth))
    if metric == "nll":
        return m.nll(weights, one.probabilities, one.truth)
    label = one.probabilities.argmax(axis=1)
    if metric == "ece":
        return m.ece(weights, one.probabilities.max(axis=1), label == one.truth)
    matrices = m.confusion(weights, one.truth, label, one.probabilities.shape[1])
    known = {
        "accuracy": m.accuracy,
        "balanced_accuracy": m.balanced_accuracy,
        "kappa": m.quadratic_kappa,
    }
    if metric not in known:
        raise RegistryError(
            f"{metric!r} is no metric of the gate.", hint=f"Known: auc, nll, ece, {', '.join(known)}."
        )
    return known[metric](matrices)
