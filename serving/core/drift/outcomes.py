"""What labels say: whether the model is still right as often, and still as sure as it is right.

Against the card's own test figures, on images that the model learned nothing from. The labels must be of
images that were chosen by chance (the random audit), in the order in which they came: doubtful and rejected
cases are wrong more often than others, and would alarm whatever the model does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.core.bundle import HeadCard
from serving.core.drift.features import Floats
from serving.core.drift.null import Null, beta_binomial
from serving.core.drift.reference import Reference
from serving.core.drift.report import Finding
from serving.core.drift.settings import Settings
from serving.core.drift.window import Window

#: Equal-width bins of the expected calibration error, as the evaluation has them.
BINS = 15
# Of a normal distribution, within a 95 % interval.
_Z95 = 1.959964


def judge_outcomes(reference: Reference, window: Window, settings: Settings) -> list[Finding]:
    """Accuracy and calibration of every head that has labels. Looks count labelled images, not all images."""
    found: list[Finding] = []
    for head in reference.heads:
        truth, probabilities = window.truth.get(head.name), window.probabilities.get(head.name)
        if truth is None or probabilities is None:
            continue
        there = (truth >= 0) & (truth < len(head.classes)) & ~np.isnan(probabilities).any(axis=1)
        answers, right = probabilities[there], truth[there]
        metrics = _metrics(reference.metrics, head)
        share = 1.0 / (2 * len(reference.heads))
        for name, one in (("accuracy", _accuracy), ("calibration", _calibration)):
            finding = Finding(
                name, "outcomes", head.name, "waiting",
                f"Not judged yet: {len(right)} of {settings.schedule[0][0]} answers have been labelled.",
            )  # fmt: skip
            for images, level in settings.schedule:
                if images > len(right):
                    break
                finding = one(head, metrics, answers[:images], right[:images], level * share, settings)
                if finding.alarm:
                    break
            found.append(finding)
    return found


def _accuracy(
    head: HeadCard,
    metrics: Mapping[str, Any],
    probabilities: Floats,
    truth: NDArray[np.intp],
    level: float,
    settings: Settings,
) -> Finding:
    """Too few right answers, given how surely the test set knew the accuracy (its interval's width)."""
    known = _known_accuracy(metrics)
    if known is None:
        return Finding(
            "accuracy", "outcomes", head.name, "waiting",
            "Not judged: the bundle's card has no accuracy of the test images.",
        )  # fmt: skip
    before, weight = known
    n, hits = len(truth), int((probabilities.argmax(axis=1) == truth).sum())
    chances = beta_binomial(n, before * weight + 0.5, (1.0 - before) * weight + 0.5).cumsum()
    # The most right answers that alarm; -1 where so few labels could never show it.
    most = int(np.searchsorted(chances, level, side="right")) - 1
    now = hits / n
    alarm = hits <= most
    sentence = f"{now:.1%} of {n} labelled answers are right, against {before:.1%} of the test images"
    return Finding(
        "accuracy", "outcomes", head.name, "critical" if alarm else "ok",
        f"{sentence}." if alarm else f"{sentence}; not beyond chance.",
        statistic=1.0 - now, threshold=1.0 - most / n, chance=float(min(1.0, chances[hits])),
        reference=before, now=now, effect=abs(before - now), images=n, look=n,
    )  # fmt: skip


def _calibration(
    head: HeadCard,
    metrics: Mapping[str, Any],
    probabilities: Floats,
    truth: NDArray[np.intp],
    level: float,
    settings: Settings,
) -> Finding:
    """A larger calibration error than that of a model whose confidence is exactly the chance to be right.

    What the test images showed beyond that (the card's ``ece_after`` over its band) is allowed for.
    """
    confidence = probabilities.max(axis=1)
    correct = (probabilities.argmax(axis=1) == truth).astype(np.float64)
    now = float(calibration_error(confidence, correct[None])[0])
    drawn = np.random.default_rng(settings.seed).random((settings.draws, len(truth))) < confidence
    null = Null.of(calibration_error(confidence, drawn.astype(np.float64)))
    told = metrics.get("calibration") or {}
    before, band = told.get("ece_after"), told.get("ece_band")
    allowed = max(0.0, before - band[1]) if before is not None and band else 0.0
    threshold = null.threshold(level) + allowed
    alarm = now >= threshold
    gap = float(confidence.mean() - correct.mean())
    how = "surer than it is right" if gap > 0 else "less sure than it is right"
    sentence = (
        f"The model is {how}: mean confidence {confidence.mean():.2f}, right {correct.mean():.2f}, "
        f"calibration error {now:.3f} in {len(truth)} labelled answers"
    )
    sentence += f" against {before:.3f} of the test images" if before is not None else ""
    return Finding(
        "calibration", "outcomes", head.name, "critical" if alarm else "ok",
        f"{sentence}." if alarm else f"{sentence}; not beyond chance.",
        statistic=now, threshold=threshold, chance=null.chance(now - allowed),
        reference=before, now=now, effect=min(1.0, now), images=len(truth), look=len(truth),
    )  # fmt: skip


def calibration_error(confidence: Floats, correct: Floats) -> Floats:
    """The expected calibration error [B] of confidences [n], for B outcomes [B, n].

    The gap between confidence and accuracy in each of ``BINS`` equal bins, weighted by its images.
    """
    which = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    inside = np.eye(BINS)[which]
    gaps = (confidence - correct) @ inside
    return np.asarray(np.abs(gaps).sum(axis=1) / len(confidence))


def _known_accuracy(metrics: Mapping[str, Any]) -> tuple[float, float] | None:
    """The test accuracy, and how many independent images its interval is worth (groups make it fewer)."""
    found = metrics.get("accuracy")
    if not isinstance(found, Mapping) or found.get("value") is None:
        return None
    value, images = float(found["value"]), float(metrics.get("n") or 0)
    low, high = found.get("low"), found.get("high")
    if low is not None and high is not None and high > low:
        worth = value * (1.0 - value) * (2 * _Z95 / (high - low)) ** 2
        images = min(images, worth) if images and worth else images or worth
    return (value, images) if images > 0 else None


def _metrics(metrics: Mapping[str, Any], head: HeadCard) -> Mapping[str, Any]:
    found = (metrics.get("heads") or {}).get(head.name)
    return found if isinstance(found, Mapping) else {}
