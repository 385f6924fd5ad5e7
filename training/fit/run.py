"""``fit``: one folder from empty to a trained model, started as often as it takes."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from data.dataset import Dataset
from data.errors import DataError, UsageError
from data.files import read_json, write_json
from data.provenance import code_digest, hardware, versions
from training.fit import checkpoint
from training.labels import Rows, read_rows
from training.task import Task

if TYPE_CHECKING:
    from training.fit.trainer import Trainer
    from training.tracking import Tracker

FORMAT = 1
Epoch = dict[str, Any]


class Log(Protocol):
    """Where epochs are reported to; ``training.tracking.Tracker`` is one."""

    @property
    def run_id(self) -> str:
        """The MLflow run."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Take numbers under names."""


@dataclass(frozen=True, slots=True)
class FitResult:
    """What training came to; the same is in ``fit.json``."""

    out: Path
    best_epoch: int
    score: float | None
    val: Mapping[str, Mapping[str, float]]
    history: tuple[Epoch, ...]
    stopped: str
    seconds: float
    resumed: int
    run_id: str | None = None

    @property
    def summary(self) -> str:
        """One line for a log."""
        said = "; ".join(
            f"{head} " + ", ".join(f"{name} {value:.3f}" for name, value in found.items())
            for head, found in self.val.items()
        )
        return f"epoch {self.best_epoch + 1} of {len(self.history)} kept: {said or 'nothing to validate on'}"

    def to_dict(self) -> dict[str, Any]:
        """What JSON holds."""
        return {
            "best_epoch": self.best_epoch,
            "score": self.score,
            "val": {head: dict(found) for head, found in self.val.items()},
            "history": list(self.history),
            "stopped": self.stopped,
            "seconds": self.seconds,
            "resumed": self.resumed,
            "run_id": self.run_id,
        }

    @classmethod
    def read(cls, out: Path) -> FitResult:
        """The result of a finished folder."""
        about = read_json(out / "fit.json")
        return cls(
            out=out,
            best_epoch=about["best_epoch"],
            score=about["score"],
            val=about["val"],
            history=tuple(about["history"]),
            stopped=about["stopped"],
            seconds=about["seconds"],
            resumed=about["resumed"],
            run_id=about["run_id"],
        )


def fit(
    task: Task,
    dataset: Dataset,
    out: Path,
    *,
    device: str = "auto",
    seed: int | None = None,
    resume: bool = True,
    log: Log | None = None,
    tracking: bool = True,
) -> FitResult:
    """Train ``task`` on ``dataset`` into the folder ``out``.

    ``out`` then holds ``model.safetensors``, ``task.json``, ``fit.json`` and ``curves.png``. While training
    it holds a checkpoint: a run that ended in any way goes on from there when ``fit`` is called again, and
    ends at the same weights as one that was never disturbed (on one machine, with the same number of
    processes). A finished folder is returned as it is. ``resume=False`` begins anew. Under ``torchrun`` the
    processes train together.

    Epochs are reported to ``log`` where a caller has a run open; otherwise, with ``tracking``, to an MLflow
    run of its own, with parameters, files and the machine's load.

    Raises :class:`UsageError` when the folder belongs to another task, dataset or seed, or another process
    holds it; :class:`DatasetError` when the dataset doesn't suit the task.
    """
    import torch

    from training.fit.device import choose_device, choose_precision, steady
    from training.fit.distributed import join

    seed = task.train.seed if seed is None else seed
    fingerprint = {"task": task.training_digest, "dataset": dataset.digest, "seed": seed}
    where = choose_device(device)
    precision = choose_precision(task.train.precision, where)
    gpus = [where] if where.type == "cuda" else []
    with join(where) as world, contextlib.ExitStack() as stack:
        if world.leads:
            stack.enter_context(checkpoint.locked(out))
        stack.enter_context(torch.random.fork_rng(gpus))
        stack.enter_context(steady(where))
        if world.agree(_finished(out, fingerprint, resume) if world.leads else None):
            if world.leads:
                _refresh_task(out, task)
                if tracking and log is None:
                    _record_late(task, out)
            return FitResult.read(out)
        world.wait()
        state = checkpoint.load(out)
        if state is not None:
            _same(out, state["fingerprint"], fingerprint)
        trainer = _trainer(
            task, dataset, out, seed, where, precision, world, fingerprint, resumes=state is not None
        )
        if state is not None:
            trainer.restore(state)
            del state
        if world.leads:
            _refresh_task(out, task)
        own = tracking and log is None and world.leads
        with _tracked(trainer, task, dataset, own) as tracker, _signals() as asked:
            trainer.asked_to_stop = asked
            log = tracker or log
            for row in trainer.at.history:  # again after an interruption: what was lost is then there
                _report(log, row)
            stopped = _run(trainer, log)
            if world.leads:
                _finish(trainer, task, dataset, stopped, log)
                if tracker is not None:
                    _record(tracker, out)
        if world.leads:
            (out / checkpoint.TRACKING).unlink(missing_ok=True)  # the run is closed
        world.wait()
        return FitResult.read(out)


@contextlib.contextmanager
def _tracked(trainer: Trainer, task: Task, dataset: Dataset, wanted: bool) -> Iterator[Tracker | None]:
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


def _refresh_task(out: Path, task: Task) -> None:
    """Keep the task's other parts (gate, calibration, words) as they are now."""
    path, body = out / "task.json", task.to_dict()
    if not path.is_file() or read_json(path) != body:
        write_json(path, body)


def _run(trainer: Trainer, log: Log | None) -> str:
    from training.fit.trainer import Stopped

    try:
        if (reason := trainer.reason_to_stop()) is not None:
            return str(reason)
        for row in trainer.run():
            if trainer.world.leads:
                _say(row, trainer.recipe.epochs)
                _report(log, row)
            if (reason := trainer.reason_to_stop()) is not None:
                return str(reason)
    except Stopped:
        # What asked for the stop now gets its way; the checkpoint is written.
        raise SystemExit(143) from None
    return "epochs"


def _trainer(
    task: Task,
    dataset: Dataset,
    out: Path,
    seed: int,
    device: Any,
    precision: str,
    world: Any,
    fingerprint: dict[str, Any],
    *,
    resumes: bool,
) -> Trainer:
    import torch

    from training.fit.cache import load_pixels
    from training.fit.trainer import Trainer
    from training.model import build_model

    train, val = read_rows(dataset, "train", task.heads), read_rows(dataset, "val", task.heads)
    _check_labels(task, train, val)
    if world.leads:
        load_pixels(dataset, task.preprocessing)
    world.wait()
    pixels = load_pixels(dataset, task.preprocessing)
    torch.manual_seed(seed)
    # A checkpoint holds the weights and where the first ones came from: nothing is fetched again.
    model = build_model(task, pretrained=not resumes)
    return Trainer(
        task,
        model,
        pixels,
        train,
        val,
        out,
        seed=seed,
        device=device,
        precision=precision,
        world=world,
        fingerprint=fingerprint,
    )


def _check_labels(task: Task, train: Rows, val: Rows) -> None:
    for head in task.heads:
        present = int((train.labels[head.name] >= 0).sum())
        if present < 2:
            raise DataError(
                f"The training split has {present} images with a label for {head.name}.",
                hint="See `retiderm data show` for the counts.",
            )
    if task.train.early_stop_patience and not len(val):
        raise UsageError("`train.early_stop_patience` needs a validation split, and the dataset has none.")


def _finished(out: Path, fingerprint: Mapping[str, Any], resume: bool) -> bool:
    """Whether the folder holds this very run, done; clears it first where a new beginning is asked for."""
    done = out / "fit.json"
    if not resume:
        done.unlink(missing_ok=True)
        checkpoint.remove(out)
        (out / checkpoint.TRACKING).unlink(missing_ok=True)
        (out / "model.safetensors").unlink(missing_ok=True)
        return False
    if not done.is_file():
        return False
    _same(out, read_json(done)["fingerprint"], fingerprint)
    checkpoint.remove(out)  # left behind when the process ended right after fit.json
    return True


def _same(out: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    other = [name for name in wanted if found.get(name) != wanted[name]]
    if other:
        raise UsageError(
            f"{out} holds a run of another {' and another '.join(other)}.",
            hint="Use another folder, or begin anew with --fresh.",
        )


def _finish(trainer: Trainer, task: Task, dataset: Dataset, stopped: str, log: Log | None) -> None:
    from training.fit.curves import draw_curves
    from training.model import save_model

    at, out = trainer.at, trainer.folder
    keep_best = task.train.select == "best" and at.best_epoch >= 0
    chosen = at.best_epoch if keep_best else len(at.history) - 1
    row = at.history[chosen] if at.history else {"val": {}, "score": None}
    save_model(trainer.model, trainer.chosen_state(), out / "model.safetensors")
    draw_curves(at.history, chosen, out / "curves.png", title=task.title)
    write_json(
        out / "fit.json",
        {
            "format": FORMAT,
            "fingerprint": trainer.fingerprint,
            "task": task.name,
            "task_digest": task.digest,
            "dataset_digest": dataset.digest,
            "preprocessing_digest": task.preprocessing.digest,
            "code_digest": code_digest("data", "training"),
            "seed": trainer.seed,
            "weights": trainer.model.weights_info.to_dict(),
            "best_epoch": chosen,
            "score": row["score"],
            "val": row["val"],
            "stopped": stopped,
            "seconds": round(at.seconds, 3),
            "resumed": at.resumed,
            "images": {"train": len(trainer.train_rows), "val": len(trainer.val_rows)},
            "precision": trainer.precision,
            "processes": trainer.world.size,
            "hardware": hardware_of(trainer.device),
            "versions": versions("torch", "timm", "numpy"),
            "run_id": log.run_id if log else None,
            "history": at.history,
        },
    )
    checkpoint.remove(out)


def _record(tracker: Tracker, out: Path) -> None:
    """What a finished training leaves in its MLflow run, beside the curves."""
    result = FitResult.read(out)
    if result.score is not None:
        tracker.log_metrics({"best.score": result.score, "best.epoch": float(result.best_epoch)})
    # The weights too: a later training may begin with them, on another machine or after a clean-up.
    for name in ("curves.png", "fit.json", "task.json", "model.safetensors"):
        tracker.log_artifact(out / name, "training")


def _record_late(task: Task, out: Path) -> None:
    """Report a training that was killed between its last file and MLflow, into the run it had begun."""
    remembered = out / checkpoint.TRACKING
    if not remembered.is_file():
        return
    from training.tracking import run

    name = f"train {task.name} {task.backbone}"
    with run(task.name, name, run_id=read_json(remembered)["run_id"]) as tracker:
        for row in FitResult.read(out).history:
            _report(tracker, row)
        _record(tracker, out)
    remembered.unlink()


def hardware_of(device: Any) -> dict[str, str | int]:
    """The machine, with the GPU where one was used."""
    import torch

    found = hardware()
    if device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
    return found


def flat_metrics(row: Mapping[str, Any]) -> dict[str, float]:
    """An epoch's row as flat names, as tracking takes them."""
    flat = {"train.loss": row["loss"], "lr": row["lr"], "images_per_second": row["images_per_second"]}
    for head, found in row["val"].items():
        flat.update({f"val.{head}.{name}": value for name, value in found.items()})
    if row["score"] is not None:
        flat["val.score"] = row["score"]
    return {name: float(value) for name, value in flat.items() if math.isfinite(value)}


def _report(log: Log | None, row: Mapping[str, Any]) -> None:
    if log is not None:
        log.log_metrics(flat_metrics(row), step=int(row["epoch"]))


def _say(row: Mapping[str, Any], epochs: int) -> None:
    parts = [f"epoch {row['epoch'] + 1}/{epochs}", f"loss {row['loss']:.4f}"]
    for head, found in row["val"].items():
        shown = " ".join(f"{name} {value:.3f}" for name, value in found.items() if name != "accuracy")
        parts.append(f"{head}: {shown}")
    parts.append(f"{row['images_per_second']:.0f} images/s")
    print("  ".join(parts), file=sys.stderr, flush=True)


@contextlib.contextmanager
def _signals() -> Iterator[Callable[[], bool]]:
    """Turn SIGTERM and Ctrl-C into a request to write a checkpoint and end."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return

    def ask(number: int, frame: object) -> None:
        if asked.is_set():  # a second time means now
            os._exit(128 + number)
        asked.set()
        print("Stopping after this step; start it again to go on.", file=sys.stderr, flush=True)

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
