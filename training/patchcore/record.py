"""An anomaly model's settings and figures as one MLflow run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.provenance import code_digest
from serving.core.patchcore.calibrate import Calibration
from serving.core.patchcore.detector import Scorer
from training.tracking import run

if TYPE_CHECKING:
    from data.dataset import Dataset
    from training.task import Task


def record(
    task: Task,
    scorer: Scorer,
    calibration: Calibration,
    dataset: Dataset,
    report: Mapping[str, Any],
    memory: Path,
    pictures: Path,
) -> str:
    """Log a judged memory: settings, how it was made, threshold, test figures, pictures. Gives the run's id.

    Raises:
        RegistryError: MLflow's store can't be reached.
    """
    extractor, made = scorer.extractor.card, dict(scorer.settings.memory)
    params = {
        "task": task.name,
        "profile": task.profile,
        "backbone": task.backbone,
        "input_size": "x".join(map(str, task.input_size)),
        "preprocessing": task.preprocessing.to_dict(),
        "grid": "x".join(map(str, extractor.grid)),
        "dim": extractor.dim,
        "extractor_digest": extractor.digest,
        "seed": made.get("seed"),
        "patchcore": task.to_dict()["patchcore"],
    }
    tags = {
        "kind": task.kind,
        "task_digest": task.digest,
        "dataset_digest": dataset.digest,
        "test_digest": dataset.test_digest,
        "code_digest": code_digest("data", "training"),
        "weights": extractor.weights.source,
        "synthetic": str(bool(dataset.info.get("synthetic"))).lower(),
    }
    with run(task.name, f"memory {task.name} {task.backbone}", params=params, tags=tags) as tracker:
        tracker.log_metrics(
            {
                **{f"memory.{key}": float(value) for key, value in made.items() if _number(value)},
                "threshold": calibration.threshold,
                **{f"test.{key}": value for key, value in figures(report).items()},
            }
        )
        tracker.log_artifact(memory / "built.json", "memory")
        for path in sorted(pictures.glob("*.png")):
            tracker.log_artifact(path, "report")
        return tracker.run_id


def figures(report: Mapping[str, Any]) -> dict[str, float]:
    """The test figures that have a value, by name, of an evaluation document with one head."""
    (head,) = report["heads"].values()
    return {
        name: float(told["value"])
        for name, told in head.items()
        if isinstance(told, Mapping) and _number(told.get("value"))
    }


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
