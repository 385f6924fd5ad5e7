"""One head's figures with their intervals, and what its calibration was worth."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.core.bundle import HeadCard
from serving.core.decisions import calibrated, decide
from training.calibrate import Floats, Ints, coverage_band, ece_band
from training.evaluate import metrics
from training.evaluate.bootstrap import LEVEL, Interval, interval, resamples


@dataclass(frozen=True, slots=True)
class Judged:
    """A head's labelled test images, as served: logits [n, C], truth [n], calibrated probabilities, label.

    Images with equal ``group`` [n] belong together (one patient's, one lesion's) and are resampled so.
    """

    head: HeadCard
    logits: Floats
    truth: Ints
    probabilities: Floats
    label: Ints
    covered: NDArray[np.bool_]
    set_size: Ints
    uncertain: NDArray[np.bool_]
    group: Ints

    @classmethod
    def of(cls, head: HeadCard, logits: Floats, truth: Ints, group: Ints | None = None) -> Judged:
        """Decide as serving does; images without a label for this head must be left out already.

        Without ``group`` each image stands for itself.
        """
        decision = decide(logits, head)
        rows = np.arange(len(truth))
        return cls(
            head=head,
            logits=logits,
            truth=truth,
            probabilities=calibrated(logits, head.temperature, head.bias),
            label=decision.label,
            covered=decision.set[rows, truth],
            set_size=decision.set.sum(axis=1),
            uncertain=decision.uncertain,
            group=rows if group is None else group,
        )

    def __len__(self) -> int:
        return len(self.truth)

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether the label is right [n]."""
        return np.asarray(self.label == self.truth)

    def take(self, mask: NDArray[np.bool_]) -> Judged:
        """The images that ``mask`` [n] keeps."""
        kept = {
            field.name: getattr(self, field.name)[mask]
            for field in dataclasses.fields(self)
            if field.name != "head"
        }
        return dataclasses.replace(self, **kept)


Figures = dict[str, Floats]


def figures(judged: Judged, weights: Floats) -> Figures:
    """Every figure for each row of ``weights`` [B, n]: [B], and per class [B, C]."""
    classes = len(judged.head.classes)
    matrices = metrics.confusion(weights, judged.truth, judged.label, classes)
    per_class = metrics.class_auc(weights, judged.probabilities, judged.truth)
    found = {
        "auc": metrics.macro_auc(per_class),
        "accuracy": metrics.accuracy(matrices),
        "balanced_accuracy": metrics.balanced_accuracy(matrices),
        "nll": metrics.nll(weights, judged.probabilities, judged.truth),
        "ece": metrics.ece(weights, judged.probabilities.max(axis=1), judged.correct),
        "class.auc": per_class,
        "class.sensitivity": metrics.sensitivity(matrices),
        "class.specificity": metrics.specificity(matrices),
    }
    if judged.head.ordinal:
        found["kappa"] = metrics.quadratic_kappa(matrices)
    return found


def with_intervals(
    judged: Judged,
    count: int,
    seed: int,
    of: Callable[[Judged, Floats], Figures] = figures,
    level: float = LEVEL,
) -> dict[str, Interval | list[Interval]]:
    """Every figure with its bootstrap interval, by class and group; per-class ones as a list."""
    plain = of(judged, np.ones((1, len(judged))))
    blocks = [of(judged, weights) for weights in resamples(judged.truth, count, seed, judged.group)]
    found: dict[str, Interval | list[Interval]] = {}
    for name, value in plain.items():
        again = (
            np.concatenate([block[name] for block in blocks]) if blocks else np.empty((0, *value.shape[1:]))
        )
        if value.ndim == 2:
            found[name] = [interval(float(value[0, c]), again[:, c], level) for c in range(value.shape[1])]
        else:
            found[name] = interval(float(value[0]), again, level, centred=name == "ece")
    return found


def head_report(judged: Judged, absent: int, *, count: int, seed: int) -> dict[str, Any]:
    """The head's part of the evaluation document; ``docs/evaluation.md`` describes it."""
    found = with_intervals(judged, count, seed)
    report: dict[str, Any] = {"n": len(judged), "groups": len(np.unique(judged.group)), "absent": absent}
    for name, item in found.items():
        if isinstance(item, Interval):
            report[name] = item.to_dict()
    counts = np.bincount(judged.truth, minlength=len(judged.head.classes))
    report["classes"] = {
        label: {
            "n": int(counts[c]),
            **{name: _at(found, f"class.{name}", c) for name in ("auc", "sensitivity", "specificity")},
        }
        for c, label in enumerate(judged.head.classes)
    }
    ones = np.ones((1, len(judged)))
    matrix = metrics.confusion(ones, judged.truth, judged.label, len(counts))
    report["confusion"] = matrix[0].astype(int).tolist()
    report["without_images"] = [judged.head.classes[c] for c in np.flatnonzero(counts == 0)]
    report["calibration"] = calibration_report(judged, seed=seed)
    return report


def calibration_report(judged: Judged, *, seed: int) -> dict[str, Any]:
    """NLL and ECE before and after, coverage and doubt, beside the bands of perfect calibration."""
    head, ones, n = judged.head, np.ones((1, len(judged))), len(judged)
    raw = calibrated(judged.logits)
    before_right = raw.argmax(axis=1) == judged.truth
    ece = float(metrics.ece(ones, judged.probabilities.max(axis=1), judged.correct)[0])
    ece_low, ece_high = ece_band(judged.probabilities, seed=seed)
    nll_before = float(metrics.nll(ones, raw, judged.truth)[0])
    nll_after = float(metrics.nll(ones, judged.probabilities, judged.truth)[0])
    report: dict[str, Any] = {
        "calibrated": head.calibrated_on > 0,
        "temperature": head.temperature,
        "bias": None if head.bias is None else list(head.bias),
        "nll_before": nll_before,
        "nll_after": nll_after,
        "nll_improved": nll_after < nll_before,
        "ece_before": float(metrics.ece(ones, raw.max(axis=1), before_right)[0]),
        "ece_after": ece,
        "ece_band": [ece_low, ece_high],
        "ece_inside": ece_low <= ece <= ece_high,
        "uncertain_share": float(judged.uncertain.mean()),
        "error_when_certain": _share(~judged.correct, ~judged.uncertain),
        "error_when_uncertain": _share(~judged.correct, judged.uncertain),
    }
    if head.coverage is not None and head.calibrated_on:
        # The band describes the conformal set; the top class, which every set holds, can only add to it.
        bare = float((1.0 - judged.probabilities[np.arange(n), judged.truth] <= head.qhat).mean())
        low, high = coverage_band(head.calibrated_on, n, head.coverage)
        report["coverage"] = {
            "target": head.coverage,
            "value": float(judged.covered.mean()),
            "conformal": bare,
            "band": [low, high],
            "inside": low <= bare <= high,
            "set_size": float(judged.set_size.mean()),
            "single": float((judged.set_size == 1).mean()),
        }
    return report


def _share(event: NDArray[np.bool_], among: NDArray[np.bool_]) -> float | None:
    return float(event[among].mean()) if among.any() else None


def _at(found: dict[str, Interval | list[Interval]], name: str, c: int) -> dict[str, float | None]:
    items = found[name]
    assert isinstance(items, list)
    return items[c].to_dict()
