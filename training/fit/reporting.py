"""Where a training's epochs go while it runs: the MLflow run, and the terminal."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from data.dataset import Dataset
from data.files import read_json, write_json
from data.provenance import code_digest
from training.fit import checkpoint
from training.fit.result import FitResult
from training.task import Task

if TYPE_CHECKING:
    from training.fit.trainer import Trainer
    from training.tracking import Tracker


class Log(Protocol):
    """Where epochs are reported to; ``training.tracking.Tracker`` is one."""

    @property
    def run_id(self) -> str:
        """The MLflow run."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Take numbers under names."""


@contextlib.contextmanager
def tracked(trainer: Trainer, task: Task, dataset: Dataset, wanted: bool) -> Iterator[Tracker | None]:
    """The MLflow run, the one from before the interruption where there was one, with the epochs so far."""
    if not wanted:
        yield None
        return
    from training.tracking import run

    remembered = trainer.folder / checkpoint.TRACKING
    before = read_json(remembered)["run_id"] if remembered.is_file() else None
    params = {
        "task": task.name,
        "profile": task.profile,
        "seed": trainer.seed,
        "backbone": task.backbone,
        "input_size": "x".join(map(str, task.input_size)),
        "preprocessing": task.preprocessing.to_dict(),
        "precision": trainer.precision,
        "device": trainer.device.type,
        "processes": trainer.world.size,
        "train": task.to_dict()["train"],
    }
    tags = {
        "task_digest": task.digest,
        "dataset_digest": dataset.digest,
        "test_digest": dataset.test_digest,
        "code_digest": code_digest("data", "training"),
        "weights": trainer.model.weights_info.source,
        "synthetic": str(bool(dataset.info.get("synthetic"))).lower(),
    }
    name = f"train {task.name} {task.backbone}"
    with run(task.name, name, params=params, tags=tags, run_id=before) as tracker:
        write_json(remembered, {"run_id": tracker.run_id})
        yield tracker


def record(tracker: Tracker, out: Path) -> None:
    """What a finished training leaves in its MLflow run, beside the curves."""
    result = FitResult.read(out)
    if result.score is not None:
        tracker.log_metrics({"best.score": result.score, "best.epoch": float(result.best_epoch)})
    # The weights too: a later training may begin with them, on another machine or after a clean-up.
    for name in ("curves.png", "fit.json", "task.json", "model.safetensors"):
        tracker.log_artifact(out / name, "training")


def record_late(task: Task, out: Path) -> None:
    """Report a training that was killed between its last file and MLflow, into the run it had begun."""
    remembered = out / checkpoint.TRACKING
    if not remembered.is_file():
        return
    from training.tracking import run

    name = f"train {task.name} {task.backbone}"
    with run(task.name, name, run_id=read_json(remembered)["run_id"]) as tracker:
        for row in FitResult.read(out).history:
            report(tracker, row)
        record(tracker, out)
    remembered.unlink()


def flat_metrics(row: Mapping[str, Any]) -> dict[str, float]:
    """An epoch's row as flat names, as tracking takes them."""
    flat = {"train.loss": row["loss"], "lr": row["lr"], "images_per_second": row["images_per_second"]}
    for head, found in row["val"].items():
        flat.update({f"val.{head}.{name}": value for name, value in found.items()})
    if row["score"] is not None:
        flat["val.score"] = row["score"]
    return {name: float(value) for name, value in flat.items() if math.isfinite(value)}


def report(log: Log | None, row: Mapping[str, Any]) -> None:
    """Give an epoch's row to whoever listens."""
    if log is not None:
        log.log_metrics(flat_metrics(row), step=int(row["epoch"]))


def say(row: Mapping[str, Any], epochs: int) -> None:
    """Tell an epoch's row on stderr."""
    parts = [f"epoch {row['epoch'] + 1}/{epochs}", f"loss {row['loss']:.4f}"]
    for head, found in row["val"].items():
        shown = " ".join(f"{name} {value:.3f}" for name, value in found.items() if name != "accuracy")
        parts.append(f"{head}: {shown}")
    parts.append(f"{row['images_per_second']:.0f} images/s")
    print("  ".join(parts), file=sys.stderr, flush=True)
