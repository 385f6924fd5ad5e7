"""What a bundle keeps for drift: images that the model did not learn, as a server would see them."""

from __future__ import annotations

import dataclasses
import io
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from data.dataset import Dataset
from serving.core.bundle import HeadCard
from serving.core.drift import NEIGHBOURS, Reference
from serving.core.drift.features import neighbour_distance
from training.export.images import load_pixels, sample
from training.export.reference import channels, nearest_others, reference
from training.task import Task


@dataclasses.dataclass
class Means:
    """A runtime whose answers are easily worked out again: 48 means of the picture."""

    classes: int

    def run(self, images: NDArray[np.uint8], names: tuple[str, ...] | None = None) -> dict[str, Any]:
        cells = images.reshape(len(images), 4, images.shape[1] // 4, 4, images.shape[2] // 4, 3)
        embedding = cells.mean(axis=(2, 4)).reshape(len(images), -1).astype(np.float32) / 255
        found = {"embedding": embedding, "logits": 20 * embedding[:, : self.classes]}
        return {name: found[name] for name in names or found}


@pytest.fixture
def head(task: Task) -> HeadCard:
    return HeadCard("grade", task.heads[0].classes, uncertain_below=0.4)


def made(dataset: Dataset, task: Task, head: HeadCard) -> dict[str, NDArray[Any]]:
    raw = reference(Means(len(head.classes)), dataset, task.preprocessing, [head])  # type: ignore[arg-type]
    with np.load(io.BytesIO(raw), allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def test_rows_are_the_validation_images_in_one_order(dataset: Dataset, task: Task, head: HeadCard) -> None:
    found = made(dataset, task, head)
    rows = sample(dataset.split("val"), 512, 0, "validation")
    pixels = load_pixels(dataset, rows, task.preprocessing)
    embedding = Means(5).run(pixels)["embedding"].astype(np.float64)
    names = [name for name in found if name.startswith("drift.")] + ["grade.probabilities"]
    assert {len(found[name]) for name in names} == {len(rows)}
    assert found["drift.colour"] == pytest.approx(channels(pixels), rel=1e-5)
    assert found["drift.sharpness"] == pytest.approx(rows["sharpness"].to_numpy(), rel=1e-5)
    assert found["drift.distance"] == pytest.approx(
        neighbour_distance(embedding, found["embedding_sample"].astype(np.float64), NEIGHBOURS), abs=1e-6
    )
    centred = embedding - found["embedding_mean"]
    assert found["drift.scores"] == pytest.approx(centred @ found["embedding_components"].T, abs=1e-4)
    assert found["grade.probabilities"].mean(axis=0) == pytest.approx(
        found["grade.mean_probability"], abs=1e-5
    )
    assert {measure.name for measure in Reference.of_arrays(found, (head,)).measures} == {
        "refused", "sharpness", "exposure", "colour", "embedding", "unusual",
        "class_mix", "confidence", "uncertain",
    }  # fmt: skip


def test_images_that_serving_would_refuse_keep_only_their_quality(
    dataset: Dataset, task: Task, head: HeadCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = dataset.frame()
    refused = frame.index[frame["split"] == "val"][:3]
    frame.loc[refused, "verdict"] = "retake"
    frame.loc[frame["split"] == "val", "group"] = None
    monkeypatch.setattr(Dataset, "frame", lambda self: frame.copy())
    found = made(dataset, task, head)
    missing = ~found["drift.gradable"]
    assert missing.sum() == 3
    for name in ("drift.colour", "drift.scores", "drift.distance", "grade.probabilities"):
        values = found[name].reshape(len(missing), -1)
        assert (np.isnan(values).all(axis=1) == missing).all(), name
    assert not np.isnan(found["drift.sharpness"]).any()
    # Images that belong to nobody are each a group of their own.
    assert len(np.unique(found["drift.group"])) == len(missing)


def test_nearest_others_leave_out_the_image_itself() -> None:
    vectors = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float16)
    found = nearest_others(vectors)
    for i in range(20):
        others = np.delete(vectors, i, axis=0).astype(np.float64)
        alone = neighbour_distance(vectors[i : i + 1].astype(np.float64), others, NEIGHBOURS)
        assert found[i] == pytest.approx(alone[0], abs=1e-6)


def test_groups_are_numbers_without_names(dataset: Dataset, task: Task, head: HeadCard) -> None:
    group = made(dataset, task, head)["drift.group"]
    assert group.dtype == np.int32
    assert isinstance(dataset.frame(), pd.DataFrame)
    assert set(group.tolist()) <= set(range(len(group)))
