"""From validation logits to the numbers on a head's card: temperature, bias, conformal quantile, doubt.

Everything here is fitted on validation data alone; ``training.evaluate`` then shows on test data what it was
worth, beside the band that a perfectly calibrated model of that sample size would show (:func:`ece_band`,
:func:`coverage_band`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from data.errors import DataError, UsageError
from serving.core.bundle import HeadCard
from serving.core.decisions import calibrated
from training.spec.parts import HeadSpec

if TYPE_CHECKING:
    from training.evaluate.report import Predicted
    from training.task import Task

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
Bias = Literal["never", "auto", "always"]

#: Equal-width bins of the expected calibration error.
BINS = 15

_FOLDS = 5
_LOG_TEMPERATURE = (math.log(0.05), math.log(20.0))
# The logarithm of the temperature is held to 0 as if by a normal prior of this deviation. It is hardly felt,
# but where every validation answer is right: nothing else would stop the confidence on its way to certainty.
_LOG_TEMPERATURE_STD = 1.0
# A class's bias may move its odds by e^2.5 either way; the ridge holds it near 0 where images are few.
_BIAS_LIMIT = 2.5
_BIAS_RIDGE = 1.0


@dataclass(frozen=True, slots=True)
class HeadCalibration:
    """One head's calibration and how it was chosen.

    ``n`` is the number of validation images with a label. ``nll_before``/``nll_after`` are on those same
    images. ``cross_validated`` is the NLL of each candidate on held-out folds, what the choice rests on.
    """

    temperature: float
    bias: tuple[float, ...] | None
    coverage: float
    qhat: float
    uncertain_below: float
    uncertain_error: float | None
    n: int
    nll_before: float
    nll_after: float
    cross_validated: Mapping[str, float]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> HeadCalibration:
        """What ``to_dict`` wrote."""
        given = dict(value)
        given["bias"] = None if given.get("bias") is None else tuple(given["bias"])
        given["notes"] = tuple(given.get("notes", ()))
        try:
            return cls(**given)
        except TypeError as error:
            raise UsageError(
                f"This is no calibration of a head: {error}.", hint="Run the calibration step again."
            ) from error

    def card(self, head: HeadSpec) -> HeadCard:
        """The head as the bundle's card holds it."""
        return HeadCard(
            name=head.name,
            classes=head.classes,
            titles=tuple(head.title(i) for i in range(len(head.classes))),
            ordinal=head.ordinal,
            temperature=self.temperature,
            bias=self.bias,
            coverage=self.coverage,
            qhat=self.qhat,
            uncertain_below=self.uncertain_below,
            calibrated_on=self.n,
            notes=self.notes,
        )


def calibrate(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    coverage: float = 0.9,
    uncertain_error: float | None = 0.2,
    bias: Bias = "never",
    bias_strength: float = 1.0,
    seed: int = 0,
) -> HeadCalibration:
    """Calibrate one head on validation ``logits`` [n, C] and ``labels`` [n] (-1: absent, left out).

    A temperature leaves every label as it is. It is used where it lowers the cross-validated NLL by more than
    a standard error: on a hundred images the best temperature is off by a fifth either way, and one that
    isn't shown to help is as likely to harm.

    ``bias="auto"`` adds a bias a class where that lowers the cross-validated NLL by more than two standard
    errors. It makes each class's probability speak of true frequencies after a class-balanced training, and
    for that moves labels to frequent classes: a task that balanced its classes to find the rare ones would
    lose them again, so it is asked for and not the default. A ``bias_strength`` below 1 goes only that part
    of the way; the temperature is then fitted anew.

    Raises:
        DataError: no image has a label, or the shapes don't fit.
    """
    values, truth = _labelled(logits, labels)
    held_out = _cross_validate(values, truth, strength=bias_strength if bias != "never" else 0.0, seed=seed)
    notes: list[str] = []
    temperature, shift = 1.0, None
    if bias == "always" or (bias == "auto" and _better(held_out["bias"], held_out["temperature"], errors=2)):
        temperature, shift = _fit_bias(values, truth, bias_strength)
    elif _better(held_out["temperature"], held_out["none"], errors=1):
        temperature = _fit_temperature(values, truth)
    else:
        notes.append("No temperature is shown to help on held-out validation images, so there is none.")
    probabilities = calibrated(values, temperature, shift)
    qhat = conformal_quantile(1.0 - probabilities[np.arange(len(truth)), truth], coverage)
    if _rank(len(truth), coverage) > len(truth):
        notes.append(
            f"{len(truth)} validation images are too few for a coverage of {coverage:g}: "
            "every set holds every class."
        )
    below = 0.0
    if uncertain_error is not None:
        confidence = probabilities.max(axis=1)
        below = uncertain_threshold(confidence, probabilities.argmax(axis=1) == truth, uncertain_error)
        if below >= 1.0:
            notes.append(
                f"At no confidence did the errors on validation data fall to {uncertain_error:g}: "
                "every answer is marked uncertain."
            )
    missing = sorted(set(range(values.shape[1])) - set(np.unique(truth).tolist()))
    if missing:
        notes.append(f"Classes without a validation image, by index: {', '.join(map(str, missing))}.")
    return HeadCalibration(
        temperature=float(temperature),
        bias=None if shift is None else tuple(float(item) for item in shift),
        coverage=coverage,
        qhat=qhat,
        uncertain_below=below,
        uncertain_error=uncertain_error,
        n=len(truth),
        nll_before=float(-log_of_truth(calibrated(values), truth).mean()),
        nll_after=float(-log_of_truth(probabilities, truth).mean()),
        cross_validated={name: float(losses.mean()) for name, losses in held_out.items()},
        notes=tuple(notes),
    )


def calibrate_heads(predictions: Predicted, task: Task) -> dict[str, HeadCalibration]:
    """Calibrate every head of a task on its validation predictions, as the task's ``calibration`` asks."""
    logits = np.asarray(predictions.logits, dtype=np.float64)
    found, start = {}, 0
    for head in task.heads:
        part = logits[:, start : start + len(head.classes)]
        start += len(head.classes)
        found[head.name] = calibrate(
            part,
            predictions.labels[head.name],
            coverage=task.calibration.coverage,
            uncertain_error=task.calibration.uncertain_error,
            bias=task.calibration.bias,
            bias_strength=task.calibration.bias_strength,
        )
    return found


def conformal_quantile(scores: ArrayLike, coverage: float) -> float:
    """Split conformal's ``qhat``: the ⌈(n+1)·coverage⌉-th smallest score, 1 when n is too small for that.

    ``scores`` [n] are ``1 - p(true class)`` (LAC; Sadinle, Lei and Wasserman 2019). A new image's set
    ``{c: 1 - p_c <= qhat}`` then holds the truth with probability at least ``coverage``.
    """
    ordered = np.sort(np.asarray(scores, dtype=np.float64))
    rank = _rank(len(ordered), coverage)
    return float(np.clip(ordered[rank - 1], 0.0, 1.0)) if rank <= len(ordered) else 1.0


def uncertain_threshold(confidence: ArrayLike, correct: ArrayLike, error: float) -> float:
    """The lowest confidence from which on errors stay within ``error``.

    The rule: sort validation images by falling confidence and keep the longest beginning whose corrected
    error ``(errors + 1) / (kept + 1)`` is at most ``error``; the threshold is the confidence of its last
    image. The +1 asks for evidence: a target of 0.2 takes at least four right answers and no wrong one.
    Answers with equal confidence are kept or left together. 1.0 when nothing can be kept, 0.0 when all can.
    """
    values = np.asarray(confidence, dtype=np.float64)
    order = np.argsort(-values, kind="stable")
    wrong = np.cumsum(~np.asarray(correct, dtype=bool)[order])
    kept = np.arange(1, len(values) + 1)
    ordered = values[order]
    last_of_tie = np.r_[ordered[1:] != ordered[:-1], True]
    within = ((wrong + 1) / (kept + 1) <= error) & last_of_tie
    if not within.any():
        return 1.0
    end = int(np.flatnonzero(within)[-1])
    return 0.0 if end == len(values) - 1 else float(ordered[end])


def ece_band(
    probabilities: ArrayLike, *, level: float = 0.99, bins: int = BINS, simulations: int = 4000, seed: int = 0
) -> tuple[float, float]:
    """The central band of ECE that a perfectly calibrated model with these very answers [n, C] would show.

    Each simulation draws, for every image, whether its label is right with exactly the stated confidence.
    """
    confidence = np.asarray(probabilities, dtype=np.float64).max(axis=1)
    rng = np.random.default_rng(seed)
    sums = np.zeros((len(confidence), bins))
    sums[np.arange(len(confidence)), bin_of(confidence, bins)] = 1.0
    expected = confidence @ sums
    block = max(1, 4_000_000 // max(1, len(confidence)))
    found = []
    for start in range(0, simulations, block):
        rows = min(block, simulations - start)
        right = (rng.random((rows, len(confidence))) < confidence).astype(np.float64)
        found.append(np.abs(right @ sums - expected).sum(axis=1) / len(confidence))
    low, high = np.quantile(np.concatenate(found), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def coverage_band(n_cal: int, n_test: int, coverage: float, level: float = 0.99) -> tuple[float, float]:
    """The central band of coverage on ``n_test`` images that split conformal shows when all is as assumed.

    Over calibration sets of ``n_cal`` the true coverage is Beta(k, n_cal + 1 - k) with
    k = ⌈(n_cal+1)·coverage⌉, so the number covered is beta-binomial (Vovk 2012). (1, 1) where ``n_cal`` is
    too small and sets hold all.
    """
    from scipy import stats

    rank = _rank(n_cal, coverage)
    if rank > n_cal:
        return 1.0, 1.0
    law = stats.betabinom(n_test, rank, n_cal + 1 - rank)
    return float(law.ppf((1 - level) / 2)) / n_test, float(law.ppf((1 + level) / 2)) / n_test


def log_of_truth(probabilities: Floats, truth: Ints) -> Floats:
    """The logarithm of the true class's probability [n], bounded below so that one zero can't be infinite."""
    chosen = probabilities[np.arange(len(truth)), truth]
    return np.asarray(np.log(np.maximum(chosen, 1e-12)))


def bin_of(confidence: Floats, bins: int = BINS) -> Ints:
    """The equal-width bin of each confidence: (0, 1/bins], …, (1 - 1/bins, 1]."""
    return np.clip(np.ceil(confidence * bins).astype(np.intp) - 1, 0, bins - 1)


def _rank(n: int, coverage: float) -> int:
    # Less a hair, so that 10 · 0.9 in floating point can't round up to the next rank.
    return math.ceil((n + 1) * coverage - 1e-9)


def _labelled(logits: ArrayLike, labels: ArrayLike) -> tuple[Floats, Ints]:
    values, truth = np.asarray(logits, dtype=np.float64), np.asarray(labels, dtype=np.intp)
    if values.ndim != 2 or truth.shape != values.shape[:1]:
        raise DataError(f"Logits {list(values.shape)} and labels {list(truth.shape)} don't fit together.")
    if (truth >= values.shape[1]).any():
        raise DataError(f"A label is {truth.max()}, but there are {values.shape[1]} classes.")
    known = truth >= 0
    if not known.any():
        raise DataError(
            "No validation image has a label for this head, so it can't be calibrated.",
            hint="Give the dataset a validation split with labels.",
        )
    return values[known], truth[known]


def _fit_temperature(logits: Floats, truth: Ints) -> float:
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        fit = float(-log_of_truth(calibrated(logits, math.exp(log_temperature)), truth).mean())
        return fit + _held(log_temperature) / len(truth)

    found = minimize_scalar(loss, bounds=_LOG_TEMPERATURE, method="bounded", options={"xatol": 1e-4})
    best = float(found.x)
    # The bounded search never tries exactly 1, and mustn't end worse than where it began.
    return math.exp(best) if loss(best) <= loss(0.0) else 1.0


def _held(log_temperature: float) -> float:
    return 0.5 * (log_temperature / _LOG_TEMPERATURE_STD) ** 2


def _fit_bias(logits: Floats, truth: Ints, strength: float) -> tuple[float, Floats]:
    from scipy.optimize import minimize

    n, classes = logits.shape
    onehot = np.eye(classes)[truth]

    def loss(parameters: Floats) -> tuple[float, Floats]:
        log_temperature, shift = parameters[0], parameters[1:]
        temperature = math.exp(log_temperature)
        probabilities = calibrated(logits, temperature, shift)
        residual = (probabilities - onehot) / temperature
        value = -log_of_truth(probabilities, truth).sum() + 0.5 * _BIAS_RIDGE * (shift**2).sum()
        value += _held(log_temperature)
        to_temperature = log_temperature / _LOG_TEMPERATURE_STD**2 - (residual * (logits + shift)).sum()
        to_shift = residual.sum(axis=0) + _BIAS_RIDGE * shift
        return float(value) / n, np.r_[to_temperature, to_shift] / n

    bounds = [_LOG_TEMPERATURE] + [(-_BIAS_LIMIT, _BIAS_LIMIT)] * classes
    start = np.r_[math.log(_fit_temperature(logits, truth)), np.zeros(classes)]
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds)
    temperature, shift = math.exp(float(found.x[0])), np.asarray(found.x[1:] - found.x[1:].mean())
    if strength == 1:
        return temperature, shift
    return _fit_temperature(logits + strength * shift, truth), strength * shift


def _cross_validate(logits: Floats, truth: Ints, *, strength: float, seed: int) -> dict[str, Floats]:
    """Each candidate's NLL for every image [n], from a fit that did not see it; no bias at strength 0."""
    with_bias = strength > 0
    folds = _folds(truth, seed)
    losses = {
        name: np.zeros(len(truth)) for name in ("none", "temperature", *(("bias",) if with_bias else ()))
    }
    losses["none"] = -log_of_truth(calibrated(logits), truth)
    for fold in range(_FOLDS):
        out = folds == fold
        if not out.any() or out.all():
            continue
        temperature = _fit_temperature(logits[~out], truth[~out])
        losses["temperature"][out] = -log_of_truth(calibrated(logits[out], temperature), truth[out])
        if with_bias:
            answer = calibrated(logits[out], *_fit_bias(logits[~out], truth[~out], strength))
            losses["bias"][out] = -log_of_truth(answer, truth[out])
    return losses


def _folds(truth: Ints, seed: int) -> Ints:
    """A fold for each image, dealt class by class so that every fold has its share of each."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(truth))
    order = order[np.argsort(truth[order], kind="stable")]
    folds = np.empty(len(truth), dtype=np.intp)
    folds[order] = np.arange(len(truth)) % _FOLDS
    return folds


def _better(candidate: Floats, baseline: Floats, *, errors: float) -> bool:
    """Whether the mean gain [n] is above so many standard errors."""
    gain = baseline - candidate
    if len(gain) < 2 * _FOLDS:
        return False
    return bool(gain.mean() > errors * gain.std(ddof=1) / math.sqrt(len(gain)))
