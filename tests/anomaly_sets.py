"""A drawn set of OK and NG parts in MVTec's layout, and the small task that goes with it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from data.dataset import Dataset, Head
from data.ingest import ingest
from serving.core.patchcore.calibrate import Calibration
from serving.core.patchcore.detector import Scorer
from tests.anomaly_bundles import file, surface, with_blot
from training.patchcore.scoring import Scored
from training.task import Task, load_task

#: Of the drawn photographs, and of the small task's input.
SIDE, INPUT = 96, 64


@dataclass(frozen=True)
class Made:
    """What the steps before the bundle leave behind."""

    task: Task
    dataset: Dataset
    extractor: Path
    memory: Path
    scorer: Scorer
    calibration: Calibration
    predictions: Path
    pictures: Path
    report: dict[str, Any]

    @property
    def scored(self) -> Scored:
        return Scored.load(self.predictions / "scores.npz")

    def but(self, **changes: Any) -> Made:
        return dataclasses.replace(self, **changes)


def write_parts(folder: Path, *, train: int = 12, ok: int = 6, ng: int = 6, side: int = SIDE) -> Path:
    """``train/good``, ``test/good``, ``test/blot`` and the blots' masks; each image is another one."""
    for index in range(train):
        _write(folder / "train" / "good" / f"{index:03d}.png", file(surface(side, index)))
    for index in range(ok):
        _write(folder / "test" / "good" / f"{index:03d}.png", file(surface(side, 1000 + index)))
    for index in range(ng):
        x, y = 0.2 + 0.6 * (index % 3) / 2, 0.25 + 0.5 * (index % 2)
        _write(
            folder / "test" / "blot" / f"{index:03d}.png", file(with_blot(surface(side, 2000 + index), x, y))
        )
        blank = np.zeros((side, side, 3), np.uint8)
        marked = (with_blot(blank, x, y).max(axis=2, keepdims=True) > 0) * np.uint8(255)
        _write(
            folder / "ground_truth" / "blot" / f"{index:03d}_mask.png",
            bytes(cv2.imencode(".png", marked)[1]),
        )
    return folder


def parts_dataset(root: Path, **counts: Any) -> Dataset:
    """The drawn parts as a canonical dataset."""
    source = f"mvtec:{write_parts(root / 'parts', **counts)}?licence=CC0-1.0"
    return ingest(source, [Head("status", ("ok", "ng"))], root / "dataset", task="anomaly")


def small_task(**changes: Any) -> Task:
    """The packaged task on a tiny network with random weights, which it draws from its seed."""
    small = {
        "backbone": "test_resnet",
        "weights": "none",
        "input_size": INPUT,
        "patchcore.layers": [1, 2],
        "patchcore.stride": 4,
        "patchcore.coreset_rate": 0.1,
        "patchcore.blur_sigma": 1,
        "patchcore.score": {"kind": "top_mean", "top": 3},
    }
    return load_task("anomaly", overrides={**small, **changes})


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
