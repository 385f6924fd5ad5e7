"""Tiny data sets and tasks that train in seconds, for tests."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from data.dataset import Dataset, Head
from data.ingest import ingest
from training.task import Task, task_from_dict

#: Two heads, the second of which labels only half of the images.
HEADS = {
    "grade": {"classes": ["low", "middle", "high"], "ordinal": True},
    "side": {"classes": ["left", "right"], "weight": 0.5},
}


def tiny_task(**train: Any) -> Task:
    """A task that a small network learns on 32 px images; ``train`` changes the recipe."""
    recipe = {
        "epochs": 3,
        "batch_size": 8,
        "lr": 0.01,
        "backbone_lr": 0.003,
        "warmup_epochs": 0.5,
        "ema_decay": 0.9,
        "precision": "fp32",
        "augment": {"rotate_degrees": 20, "vflip": True},
        **train,
    }
    return task_from_dict(
        {
            "name": "tiny",
            "title": "Tiny",
            "heads": HEADS,
            "backbone": "test_efficientnet",
            "weights": "none",
            "input_size": 32,
            "train": recipe,
        }
    )


def write_images(folder: Path, count: int, seed: int = 0) -> None:
    """``labels.csv`` and noisy images: brightness tells the grade, the brighter half the side."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    rows = []
    for index in range(count):
        grade, side = int(rng.integers(3)), int(rng.integers(2))
        image = rng.normal(60 + 60 * grade, 12, (40, 40, 3))
        half = slice(0, 20) if side == 0 else slice(20, 40)
        image[:, half] += 40
        name = f"{index:04d}.png"
        cv2.imwrite(str(folder / "images" / name), image.clip(0, 255).astype(np.uint8))
        shown = ["left", "right"][side] if index % 2 else ""
        rows.append({"image_name": name, "grade": ["low", "middle", "high"][grade], "side": shown})
    with (folder / "labels.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["image_name", "grade", "side"])
        writer.writeheader()
        writer.writerows(rows)


def tiny_dataset(folder: Path, count: int = 64) -> Dataset:
    """A canonical dataset of such images under ``folder``."""
    write_images(folder / "source", count)
    heads = [Head(name, tuple(entry["classes"])) for name, entry in HEADS.items()]  # type: ignore[arg-type]
    return ingest(
        f"labels:{folder / 'source'}?label=grade",
        heads,
        folder / "dataset",
        task="tiny",
        store=folder / "store",
    )
