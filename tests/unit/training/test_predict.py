from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from data.dataset import Dataset
from data.errors import DatasetError, IntegrityError, UsageError
from data.paths import Home
from tests.trainings import tiny_task
from training.labels import label_numbers, read_rows
from training.model import build_model
from training.predict import Predictions, predict


def test_answers_are_the_models_in_full_precision_whatever_the_batches(tiny: Dataset, home: Home) -> None:
    torch.manual_seed(0)
    task = tiny_task()
    model = build_model(task)
    found = predict(model, tiny, "train", task=task, batch_size=7)
    again = predict(model, tiny, "train", task=task, batch_size=64)
    np.testing.assert_allclose(found.logits, again.logits, atol=1e-5)
    assert found.logits.shape == (len(found), 5)
    assert found.embedding.shape == (len(found), model.embedding_width)
    assert found.logits.dtype == found.embedding.dtype == np.float32
    head = (model.head.weight.detach().numpy(), model.head.bias.detach().numpy())
    np.testing.assert_allclose(found.embedding @ head[0].T + head[1], found.logits, atol=1e-4)


def test_labels_and_ids_belong_together(tiny: Dataset, home: Home) -> None:
    task = tiny_task()
    found = predict(build_model(task), tiny, "val", task=task)
    frame = tiny.split("val").set_index("id")
    for index, name in enumerate(found.ids):
        row = frame.loc[str(name)]
        assert task.heads[0].classes[found.labels["grade"][index]] == row["label.grade"]
        side = found.labels["side"][index]
        assert (side == -1) == (row["label.side"] is None or row["label.side"] != row["label.side"])
    assert (found.labels["side"] == -1).any()
    assert read_rows(tiny, "val", task.heads).ids == tuple(found.ids)


def test_kept_answers_come_back_equal_and_damage_is_named(tiny: Dataset, tmp_path: Path, home: Home) -> None:
    task = tiny_task()
    found = predict(build_model(task), tiny, "val", task=task)
    path = tmp_path / "val.npz"
    found.save(path)
    back = Predictions.load(path)
    for one, two in ((back.ids, found.ids), (back.logits, found.logits), (back.embedding, found.embedding)):
        np.testing.assert_array_equal(one, two)
    assert back.labels.keys() == found.labels.keys()
    with pytest.raises(IntegrityError, match="no predictions"):
        Predictions.load(tmp_path / "none.npz")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(IntegrityError, match="can't be read"):
        Predictions.load(path)
    np.savez(path, ids=found.ids[:1], logits=found.logits, embedding=found.embedding)
    with pytest.raises(IntegrityError, match="unlike lengths"):
        Predictions.load(path)
    np.savez(path, ids=np.array([object()]), logits=found.logits, embedding=found.embedding)
    with pytest.raises(IntegrityError, match="can't be read"):
        Predictions.load(path)


class _Fixed:
    """Stands for a serving runtime: answers from the pixels alone."""

    def run(
        self, images: NDArray[np.uint8], outputs: Sequence[str] = ("logits",)
    ) -> dict[str, NDArray[np.float32]]:
        mean = images.mean((1, 2, 3), dtype=np.float32)[:, None]
        return {"logits": np.repeat(mean, 5, axis=1), "embedding": mean}


def test_a_runtime_is_asked_with_its_bundles_card(tiny: Dataset, home: Home) -> None:
    from types import SimpleNamespace

    task = tiny_task()
    card = SimpleNamespace(heads=task.heads, preprocessing=task.preprocessing.to_dict())
    found = predict(_Fixed(), tiny, "val", card=card)  # type: ignore[arg-type]
    assert found.logits.shape == (len(found), 5)
    assert found.logits.std() > 1
    with pytest.raises(UsageError, match="card"):
        predict(_Fixed(), tiny, "val")


def test_an_unknown_label_is_named(tiny: Dataset) -> None:
    frame = tiny.split("val")
    frame.loc[0, "label.grade"] = "huge"
    with pytest.raises(DatasetError, match="'huge'"):
        label_numbers(frame, tiny_task().heads[0])
