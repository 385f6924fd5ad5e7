"""Whether a coarser precision still answers as float32 does: by the task's metric, on labelled images."""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from data.preprocess import Preprocessing
from data.progress import track
from data.provenance import cpu_quota, hardware
from serving.core.bundle import Card, HeadCard
from serving.core.decisions import calibrated, decide
from serving.core.runtimes import Runtime
from training.evaluate import metrics as figures
from training.export.images import load_pixels, sample
from training.labels import label_numbers
from training.spec.export import ExportSpec
from training.spec.parts import HeadSpec

if TYPE_CHECKING:
    from data.dataset import Dataset

_LEAST_TOLERANCE, _MOST_TOLERANCE = 0.02, 0.5
_CHUNK = 64
_TIMED = 20


def judge(
    runtimes: Mapping[str, Runtime],
    dataset: Dataset,
    card: Card,
    spec: ExportSpec,
    *,
    seed: int = 0,
    splits: Sequence[str] = ("val", "test"),
) -> dict[str, dict[str, Any]]:
    """For each runtime, by its precision, and each split what :func:`judge_logits` says; one is ``fp32``.

    At most ``spec.judged_images`` images of a split are taken, chosen by ``seed``.

    Raises:
        DataError: a split is empty.
    """
    preprocessing = Preprocessing.from_dict(dict(card.preprocessing))
    heads = [HeadSpec(head.name, head.classes) for head in card.heads]
    found: dict[str, dict[str, Any]] = {name: {} for name in runtimes}
    for split in splits:
        rows = sample(dataset.split(split), spec.judged_images, seed, split)
        parts: dict[str, list[NDArray[np.float32]]] = {name: [] for name in runtimes}
        starts = range(0, len(rows), _CHUNK)
        for start in track(starts, f"Judging precisions, {split}", total=len(starts)):
            pixels = load_pixels(dataset, rows.iloc[start : start + _CHUNK], preprocessing)
            for name, runtime in runtimes.items():
                # One by one, as they are served: some runtimes round a batch in another order.
                parts[name] += [runtime.run(pixels[i : i + 1])["logits"] for i in range(len(pixels))]
        labels = {head.name: label_numbers(rows, head) for head in heads}
        logits = {name: np.concatenate(values) for name, values in parts.items()}
        for name, values in logits.items():
            found[name][split] = judge_logits(logits["fp32"], values, labels, card.heads, spec.metric)
    return found


def judge_logits(
    reference: NDArray[np.float32],
    given: NDArray[np.float32],
    labels: Mapping[str, NDArray[np.int64]],
    heads: Sequence[HeadCard],
    metric: str,
) -> dict[str, Any]:
    """A precision's logits [N, ΣC] against float32's on the same images.

    Gives ``images``, by head ``fp32`` and ``value`` of the metric and the ``loss`` between them (None where
    no image is labelled for it, or all are of one class), the largest ``loss`` over the heads, the largest
    difference in calibrated probability, and the share of images whose label changed in any head.
    """
    by_head: dict[str, Any] = {}
    worst: float | None = None
    changed = np.zeros(len(reference), bool)
    difference, start = 0.0, 0
    for head in heads:
        part = slice(start, start + len(head.classes))
        start = part.stop
        if not np.isfinite(given[:, part]).all():
            return {"images": len(reference), "heads": {}, "loss": None, "finite": False}
        one, other = decide(reference[:, part], head), decide(given[:, part], head)
        changed |= one.label != other.label
        difference = max(difference, float(np.abs(one.probabilities - other.probabilities).max()))
        known = labels[head.name] >= 0
        truth = labels[head.name][known]
        before = _figure(metric, one.probabilities[known], one.label[known], truth)
        after = _figure(metric, other.probabilities[known], other.label[known], truth)
        loss = None if before is None or after is None else before - after
        by_head[head.name] = {"fp32": before, "value": after, "loss": loss, "labelled": int(known.sum())}
        if loss is not None:
            worst = loss if worst is None else max(worst, loss)
    return {
        "images": len(reference),
        "heads": by_head,
        "loss": worst,
        "max_difference": difference,
        "labels_changed": float(changed.mean()),
        "finite": True,
    }


def verdict(found: Mapping[str, Any], spec: ExportSpec) -> str | None:
    """Why a precision is not approved, by :func:`judge_logits` on validation images; None where it is."""
    if not found["finite"]:
        return "It gives what is no finite number."
    untold = [name for name, item in found["heads"].items() if item["loss"] is None]
    if untold:
        return (
            f"The {spec.metric} of {', '.join(untold)} can't be told: there are no validation images of two "
            "classes for it."
        )
    if found["loss"] > spec.loss:
        return (
            f"It loses {found['loss']:.4f} of {spec.metric} on {found['images']} validation images; "
            f"{spec.loss:g} is allowed."
        )
    return None


def tolerance_of(reference: Runtime, runtime: Runtime, golden: NDArray[np.uint8], card: Card) -> float:
    """Twice what this precision differs by on the golden images, within limits; in probability."""
    one, other = reference.run(golden)["logits"], runtime.run(golden)["logits"]
    worst = max(
        float(np.abs(calibrated(one[:, part]) - calibrated(other[:, part])).max())
        for part in card.slices.values()
    )
    return round(min(_MOST_TOLERANCE, max(_LEAST_TOLERANCE, 2 * worst)), 3)


def cam_difference(
    reference: Runtime, runtime: Runtime, golden: NDArray[np.uint8], card: Card
) -> dict[str, Any]:
    """The largest difference from float32's Grad-CAM on the golden images, as a part of its largest value."""
    if "cam" not in card.outputs:
        return {}
    one, other = reference.run(golden, ("cam",))["cam"], runtime.run(golden, ("cam",))["cam"]
    return {"cam_difference": float(np.abs(one - other).max() / max(float(one.max()), 1e-12))}


def latency(runtime: Runtime, golden: NDArray[np.uint8]) -> dict[str, Any]:
    """Median and 95th percentile of one image's time here; nothing where builds must repeat to the byte."""
    if os.environ.get("SOURCE_DATE_EPOCH"):
        return {}
    image, times = golden[:1], []
    for number in range(_TIMED + 2):
        started = time.perf_counter()
        runtime.run(image)
        if number >= 2:
            times.append((time.perf_counter() - started) * 1e3)
    return {
        "latency_ms": {
            "median": round(statistics.median(times), 3),
            "p95": round(float(np.quantile(times, 0.95)), 3),
            "runtime": runtime.name,
            "threads": cpu_quota(),
            "cpu": hardware()["cpu"],
        }
    }


def _figure(
    metric: str, probabilities: NDArray[np.float32], predicted: NDArray[np.int64], truth: NDArray[np.int64]
) -> float | None:
    if not len(truth):
        return None
    weights = np.ones((1, len(truth)))
    if metric == "auc":
        values = figures.macro_auc(figures.class_auc(weights, probabilities.astype(np.float64), truth))
    else:
        matrices = figures.confusion(weights, truth, predicted, probabilities.shape[1])
        kinds = {
            "accuracy": figures.accuracy,
            "balanced_accuracy": figures.balanced_accuracy,
            "kappa": figures.quadratic_kappa,
        }
        values = kinds[metric](matrices)
    value = float(values[0])
    return value if math.isfinite(value) else None
