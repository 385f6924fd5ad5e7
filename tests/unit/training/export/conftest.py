"""A small dataset of pictures drawn here, and a small model: enough for every step of an export."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from data.dataset import Dataset, Head
from data.ingest import ingest
from training.calibrate import HeadCalibration, calibrate_heads
from training.export.images import load_pixels
from training.export.parity import torch_logits
from training.model import Classifier, build_model
from training.predict import Predictions
from training.task import Task, load_task


@pytest.fixture(scope="session")
def task() -> Task:
    """Grading with a test backbone of timm's, at 64 px."""
    changes = {
        "backbone": "test_resnet",
        "weights": "none",
        "input_size": 64,
        "preprocessing": {"crop": "none", "clahe": None},
        "quality": "thumbnail",
        "export.precisions": ["fp32"],
    }
    return load_task("dr_grading", overrides=changes)


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory, task: Task) -> Dataset:
    """Sharp pictures, a folder a class."""
    root = tmp_path_factory.mktemp("source")
    rng = np.random.default_rng(0)
    for c, name in enumerate(task.heads[0].classes):
        (root / name).mkdir()
        for i in range(16):
            small = rng.integers(40 + 10 * c, 180, (24, 24, 3), dtype=np.uint8)
            picture = cv2.resize(small, (96, 96), interpolation=cv2.INTER_NEAREST)
            cv2.imwrite(str(root / name / f"{i}.png"), picture)
    heads = [Head(head.name, head.classes) for head in task.heads]
    return ingest(
        f"folders:{root}",
        heads,
        root.parent / "dataset",
        task=task.name,
        store=root.parent / "store",
        quality_profile="thumbnail",
    )


@pytest.fixture(scope="session")
def model(task: Task) -> Classifier:
    """Random weights that answer differently for different pictures."""
    torch.manual_seed(0)
    made = build_model(task).eval()
    nn.init.normal_(made.head.weight, std=0.5)
    return made


@pytest.fixture(scope="session")
def calibration(task: Task, dataset: Dataset, model: Classifier) -> dict[str, HeadCalibration]:
    """Fitted on the validation pictures."""
    rows = dataset.split("val")
    logits = torch_logits(model, load_pixels(dataset, rows, task.preprocessing))
    classes = {name: i for i, name in enumerate(task.heads[0].classes)}
    labels = {"grade": rows["label.grade"].map(classes).to_numpy()}
    ids = rows["id"].to_numpy(dtype=str)
    return calibrate_heads(Predictions(ids, logits, labels, np.zeros((len(ids), 1), np.float32)), task)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where a bundle goes."""
    return tmp_path / "bundles" / "bundle"
