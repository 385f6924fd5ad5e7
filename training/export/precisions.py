"""Precisions beside float32: built, judged by the task's metric on validation images, written on the card.

A precision that loses more than the task allows is in the bundle, not approved, with the reason on the card.
One that can't be built here (no such runtime, an operation that the converter doesn't know) is left out, with
the reason in ``extra.precisions_left_out``: neither stops an export, since fp32 is there in any case.
"""

from __future__ import annotations

import logging
import math
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from data.errors import RetidermError
from data.progress import track
from data.provenance import cpu_quota, hardware
from serving.core.bundle import Card, HeadCard, PrecisionCard
from serving.core.decisions import calibrated, decide
from serving.core.runtimes.base import Runtime
from serving.core.runtimes.onnx import OnnxRuntime
from serving.core.runtimes.openvino import OpenVinoRuntime
from serving.core.runtimes.tflite import TfliteRuntime
from training.evaluate import metrics as figures
from training.export.images import load_pixels, sample
from training.export.quantise import quantise_onnx
from training.export.tflite import export_tflite
from training.labels import label_numbers
from training.spec.export import ExportSpec

if TYPE_CHECKING:
    import pandas as pd

    from data.dataset import Dataset
    from training.model import Classifier
    from training.task import Task

FILES = {
    "int8": "model.int8.onnx",
    "tflite": "model.tflite",
    "tflite_int8": "model.int8.tflite",
}

#: What rounding alone may change. The coarser precisions get twice what they showed at export, within limits.
EXACT = 1e-3
_LEAST_TOLERANCE, _MOST_TOLERANCE = 0.02, 0.5

_CHUNK = 64
_TIMED = 20

_LOG = logging.getLogger("retiderm.export")


@dataclass(frozen=True, slots=True)
class Built:
    """What was built: the card's entries, the bundle's files, and why the rest was left out."""

    cards: dict[str, PrecisionCard]
    files: dict[str, Path] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def build_precisions(
    model: Classifier,
    task: Task,
    dataset: Dataset,
    card: Card,
    fp32: Path,
    golden: NDArray[np.uint8],
    work: Path,
    *,
    explain: bool = True,
    seed: int = 0,
) -> Built:
    """Build and judge what ``task.export`` asks for beside ``fp32``, the ONNX file that ``card`` describes.

    ``golden`` are the bundle's golden images; files are written into ``work``.
    """
    wanted = [name for name in task.export.precisions if name != "fp32"]
    plain = PrecisionCard(fp32.name)
    if not wanted:
        return Built({"fp32": plain})
    runtimes: dict[str, Runtime] = {"fp32": OnnxRuntime(fp32, card, "fp32")}
    files: dict[str, Path] = {}
    left_out: dict[str, str] = {}
    images = load_pixels(
        dataset,
        sample(dataset.split("train"), task.export.calibration_images, seed, "training"),
        task.preprocessing,
    )
    built = _build(model, task, fp32, images, work, wanted, explain)
    try:
        for name in wanted:
            try:
                result = built[name]
                if isinstance(result, RetidermError):
                    raise result
                runtimes[name] = _open(name, result, card)
            except RetidermError as error:
                left_out[name] = error.message
                _LOG.warning("%s left out: %s", name, error.message)
                continue
            if name in FILES:
                files[FILES[name]] = result
        return Built(_judge(runtimes, task, dataset, card, files, fp32, golden, seed), files, left_out)
    finally:
        for runtime in runtimes.values():
            runtime.close()


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
    if found["loss"] is None:
        return f"No head has validation images of two classes, so that its {spec.metric} can't be told."
    if found["loss"] > spec.loss:
        return (
            f"It loses {found['loss']:.4f} of {spec.metric} on {found['images']} validation images; "
            f"{spec.loss:g} is allowed."
        )
    return None


def _build(
    model: Classifier,
    task: Task,
    fp32: Path,
    images: NDArray[np.uint8],
    work: Path,
    wanted: Sequence[str],
    explain: bool,
) -> dict[str, Path | RetidermError]:
    """Each wanted precision's file, or why there is none."""
    made: dict[str, Path | RetidermError] = {}
    if "bf16" in wanted:
        made["bf16"] = fp32  # a way to run the same file
    if "int8" in wanted:
        try:
            made["int8"] = quantise_onnx(fp32, work / FILES["int8"], images)
        except RetidermError as error:
            made["int8"] = error
    lite = [name for name in ("tflite", "tflite_int8") if name in wanted]
    if lite:
        quantised = work / FILES["tflite_int8"] if "tflite_int8" in lite else None
        try:
            export_tflite(
                model,
                task.input_size,
                work / FILES["tflite"],
                explain=explain,
                quantised=quantised,
                images=images,
            )
            made |= {name: work / FILES[name] for name in lite}
        except RetidermError as error:
            made |= dict.fromkeys(lite, error)
    return made


def _open(name: str, path: Path, card: Card) -> Runtime:
    if name == "bf16":
        return OpenVinoRuntime(path, card, name)
    if name.startswith("tflite"):
        return TfliteRuntime(path, card, name)
    return OnnxRuntime(path, card, name)


def _judge(
    runtimes: Mapping[str, Runtime],
    task: Task,
    dataset: Dataset,
    card: Card,
    files: Mapping[str, Path],
    fp32: Path,
    golden: NDArray[np.uint8],
    seed: int,
) -> dict[str, PrecisionCard]:
    spec = task.export
    answers = {
        split: _answers(
            runtimes, task, sample(dataset.split(split), spec.judged_images, seed, split), dataset
        )
        for split in ("val", "test")
    }
    cards = {}
    for name, runtime in runtimes.items():
        found = {
            split: judge_logits(logits["fp32"], logits[name], labels, card.heads, spec.metric)
            for split, (logits, labels) in answers.items()
        }
        path = files.get(FILES.get(name, ""), fp32)
        reason = verdict(found["val"], spec)
        document: dict[str, Any] = {"metric": spec.metric, "allowed": spec.loss, "bytes": path.stat().st_size}
        document |= found | _latency(runtime, golden) | _cam(runtimes["fp32"], runtime, golden, card)
        exact = name in ("fp32", "tflite")
        if name == "fp32":
            # Against itself there is nothing to approve.
            document, reason = {"bytes": path.stat().st_size, **_latency(runtime, golden)}, None
        if reason is not None:
            document["reason"] = reason
            _LOG.warning("%s is not approved: %s", name, reason)
        cards[name] = PrecisionCard(
            path.name,
            format="tflite" if path.suffix == ".tflite" else "onnx",
            approved=reason is None,
            tolerance=EXACT if exact else _tolerance(runtimes["fp32"], runtime, golden, card),
            metric=document,
        )
    return cards


def _answers(
    runtimes: Mapping[str, Runtime], task: Task, rows: pd.DataFrame, dataset: Dataset
) -> tuple[dict[str, NDArray[np.float32]], dict[str, NDArray[np.int64]]]:
    """Each precision's logits for the rows, a chunk of images at a time, and the labels by head."""
    parts: dict[str, list[NDArray[np.float32]]] = {name: [] for name in runtimes}
    starts = range(0, len(rows), _CHUNK)
    for start in track(starts, "Judging precisions", total=len(starts)):
        pixels = load_pixels(dataset, rows.iloc[start : start + _CHUNK], task.preprocessing)
        for name, runtime in runtimes.items():
            # One by one, as they are served: some runtimes round a batch in another order.
            parts[name] += [runtime.run(pixels[i : i + 1])["logits"] for i in range(len(pixels))]
    labels = {head.name: label_numbers(rows, head) for head in task.heads}
    return {name: np.concatenate(found) for name, found in parts.items()}, labels


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


def _tolerance(reference: Runtime, runtime: Runtime, golden: NDArray[np.uint8], card: Card) -> float:
    """Twice what this precision differs by on the golden images, within limits; in probability."""
    one, other = reference.run(golden)["logits"], runtime.run(golden)["logits"]
    worst = max(
        float(np.abs(calibrated(one[:, part]) - calibrated(other[:, part])).max())
        for part in card.slices.values()
    )
    return round(min(_MOST_TOLERANCE, max(_LEAST_TOLERANCE, 2 * worst)), 3)


def _cam(reference: Runtime, runtime: Runtime, golden: NDArray[np.uint8], card: Card) -> dict[str, Any]:
    """The largest difference from float32's Grad-CAM on the golden images, as a part of its largest value."""
    if "cam" not in card.outputs:
        return {}
    one, other = reference.run(golden, ("cam",))["cam"], runtime.run(golden, ("cam",))["cam"]
    return {"cam_difference": float(np.abs(one - other).max() / max(float(one.max()), 1e-12))}


def _latency(runtime: Runtime, golden: NDArray[np.uint8]) -> dict[str, Any]:
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
