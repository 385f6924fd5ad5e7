"""Extractors of one backbone for both sides: exported for ours, described for anomalib's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.anomaly.environment import run, weights
from data.files import read_json
from training.task import load_task

#: The task whose settings are measured; others change only what they name.
TASK = "anomaly"


def task_settings() -> dict[str, Any]:
    """What the task is set to, as far as a memory and its scores depend on it."""
    task = load_task(TASK)
    spec = task.patchcore
    assert spec is not None
    return {
        "backbone": task.backbone,
        "input_size": task.input_size,
        "layers": spec.layers,
        "stride": spec.stride,
        "max_patches": spec.max_patches,
        "coreset_rate": spec.coreset_rate,
        "blur_sigma": spec.blur_sigma,
        "rule": {"kind": spec.score.kind, "percentile": spec.score.percentile, "top": spec.score.top},
        "augment": {"turns": spec.augment.turns, "mirror": spec.augment.mirror},
        "seed": spec.seed,
    }


def made(folder: Path, changes: Mapping[str, Any], threads: int) -> Path:
    """Export the task's extractor with these changes (dotted keys) into ``folder``; gives the folder."""
    run(None, "export", {"folder": str(folder), "changes": dict(changes)}, threads)
    return folder


def export(job: dict[str, Any]) -> dict[str, Any]:
    """The worker's side of :func:`made`."""
    from training.patchcore.export import export_extractor
    from training.patchcore.features import build_features

    task = load_task(TASK, overrides=job["changes"])
    export_extractor(build_features(task), task, Path(job["folder"]))
    return {}


def theirs(extractor: Path, layers: Sequence[int]) -> dict[str, Any]:
    """The same backbone, weights, normalisation, levels and input size for anomalib's side."""
    card = read_json(extractor / "extractor.json")
    return {
        "backbone": card["backbone"],
        "layers": [int(layer) for layer in layers],
        "input": list(card["input_size"]),
        "mean": list(card["mean"]),
        "std": list(card["std"]),
        "weights": str(weights()),
    }
