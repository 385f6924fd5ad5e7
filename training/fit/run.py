"""``fit``: one folder from empty to a trained model, started as often as it takes."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.dataset import Dataset
from data.errors import DataError, UsageError
from data.files import read_json, write_json
from training.fit import checkpoint
from training.fit.reporting import Log, record, record_late, report, say, tracked
from training.fit.result import FitResult, finish
from training.fit.signals import asked_to_stop
from training.labels import Rows, read_rows
from training.task import Task

if TYPE_CHECKING:
    from training.fit.trainer import Trainer


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
                    record_late(task, out)
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
        with tracked(trainer, task, dataset, own) as tracker, asked_to_stop() as asked:
            trainer.asked_to_stop = asked
            log = tracker or log
            for row in trainer.at.history:  # again after an interruption: what was lost is then there
                report(log, row)
            stopped = _run(trainer, log)
            if world.leads:
                finish(trainer, task, dataset, stopped, log)
                if tracker is not None:
                    record(tracker, out)
        if world.leads:
            (out / checkpoint.TRACKING).unlink(missing_ok=True)  # the run is closed
        world.wait()
        return FitResult.read(out)


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
                say(row, trainer.recipe.epochs)
                report(log, row)
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
