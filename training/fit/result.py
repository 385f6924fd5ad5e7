"""What a training comes to: the weights, the curves and ``fit.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.dataset import Dataset
from data.files import read_json, write_json
from data.provenance import code_digest, hardware, versions
from training.fit import checkpoint
from training.task import Task

if TYPE_CHECKING:
    from training.fit.reporting import Log
    from training.fit.trainer import Trainer

FORMAT = 1
Epoch = dict[str, Any]


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


def finish(trainer: Trainer, task: Task, dataset: Dataset, stopped: str, log: Log | None) -> None:
    """Write the chosen weights, the curves and ``fit.json``; remove what only an unfinished run needs."""
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


def hardware_of(device: Any) -> dict[str, str | int]:
    """The machine, with the GPU where one was used."""
    import torch

    found = hardware()
    if device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
    return found
