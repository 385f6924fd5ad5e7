"""Precisions beside float32: built, judged by the task's metric on validation images, written on the card.

A precision that loses more than the task allows is in the bundle, not approved, with the reason on the card.
One that can't be built here (no such runtime, an operation that the converter doesn't know) is left out, with
the reason in ``extra.precisions_left_out``: neither stops an export, since fp32 is there in any case.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from data.errors import RetidermError
from serving.core.bundle import Card, PrecisionCard
from serving.core.runtimes import Runtime
from serving.core.runtimes.onnx import OnnxRuntime
from serving.core.runtimes.openvino import OpenVinoRuntime
from serving.core.runtimes.tflite import TfliteRuntime
from training.export.images import load_pixels, sample
from training.export.judge import cam_difference, judge, latency, tolerance_of, verdict
from training.export.quantise import quantise_onnx
from training.export.tflite import export_tflite

if TYPE_CHECKING:
    from data.dataset import Dataset
    from training.model import Classifier
    from training.task import Task

#: The files of the precisions that have one of their own; bf16 is another way to run fp32's.
FILES = {
    "int8": "model.int8.onnx",
    "tflite": "model.tflite",
    "tflite_int8": "model.int8.tflite",
}

#: In probability: what rounding alone may change. The coarser ones get what they showed, see `tolerance_of`.
EXACT = 1e-3

_EXACT = ("fp32", "tflite")

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
    if not wanted:
        return Built({"fp32": PrecisionCard(fp32.name)})
    rows = sample(dataset.split("train"), task.export.calibration_images, seed, "training")
    images = load_pixels(dataset, rows, task.preprocessing)
    made = build_files(model, task.input_size, fp32, images, work, wanted, explain=explain)
    runtimes, left_out = open_files(made, card)
    try:
        found = judge(runtimes, dataset, card, task.export, seed=seed)
        cards = {}
        for name, runtime in runtimes.items():
            path = made[name]
            assert isinstance(path, Path)
            document: dict[str, Any] = {"bytes": path.stat().st_size, **latency(runtime, golden)}
            reason = None
            if name != "fp32":  # which has nothing to be held against
                document |= {"metric": task.export.metric, "allowed": task.export.loss, **found[name]}
                document |= cam_difference(runtimes["fp32"], runtime, golden, card)
                reason = verdict(found[name]["val"], task.export)
            if reason is not None:
                document["reason"] = reason
                _LOG.warning("%s is not approved: %s", name, reason)
            cards[name] = PrecisionCard(
                path.name,
                format="tflite" if path.suffix == ".tflite" else "onnx",
                approved=reason is None,
                tolerance=EXACT if name in _EXACT else tolerance_of(runtimes["fp32"], runtime, golden, card),
                metric=document,
            )
    finally:
        for runtime in runtimes.values():
            runtime.close()
    return Built(cards, {FILES[name]: work / FILES[name] for name in cards if name in FILES}, left_out)


def build_files(
    model: Classifier | None,
    size: tuple[int, int],
    fp32: Path,
    images: NDArray[np.uint8],
    work: Path,
    wanted: Sequence[str],
    *,
    explain: bool = True,
) -> dict[str, Path | RetidermError]:
    """``fp32`` and each wanted precision's file, or the error that says why there is none.

    ``images`` are preprocessed training images, for int8's ranges. TFLite needs the torch ``model``.
    """
    made: dict[str, Path | RetidermError] = {"fp32": fp32}
    if "bf16" in wanted:
        made["bf16"] = fp32
    if "int8" in wanted:
        try:
            made["int8"] = quantise_onnx(fp32, work / FILES["int8"], images)
        except RetidermError as error:
            made["int8"] = error
    lite = [name for name in ("tflite", "tflite_int8") if name in wanted]
    if lite and model is not None:
        quantised = work / FILES["tflite_int8"] if "tflite_int8" in lite else None
        try:
            export_tflite(
                model, size, work / FILES["tflite"], explain=explain, quantised=quantised, images=images
            )
            made |= {name: work / FILES[name] for name in lite}
        except RetidermError as error:
            made |= dict.fromkeys(lite, error)
    return made


def open_files(
    made: Mapping[str, Path | RetidermError], card: Card
) -> tuple[dict[str, Runtime], dict[str, str]]:
    """The runtimes of what :func:`build_files` made, and why the rest has none."""
    runtimes: dict[str, Runtime] = {}
    left_out: dict[str, str] = {}
    for name, path in made.items():
        try:
            if isinstance(path, RetidermError):
                raise path
            runtimes[name] = _open(name, path, card)
        except RetidermError as error:
            left_out[name] = error.message
            _LOG.warning("%s left out: %s", name, error.message)
    return runtimes, left_out


def _open(name: str, path: Path, card: Card) -> Runtime:
    if name == "bf16":
        return OpenVinoRuntime(path, card, name)
    if name.startswith("tflite"):
        return TfliteRuntime(path, card, name)
    return OnnxRuntime(path, card, name)
