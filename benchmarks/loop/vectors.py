"""A set's frozen embeddings: ingested, embedded once by the ImageNet weights, kept in a file."""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.dataset import Dataset, Head
from data.files import atomic_path, digest_json
from data.ingest import ingest
from data.paths import home
from training.task import Task


@dataclass(frozen=True, slots=True)
class Vectors:
    """n images in the order of their splits and contents; every array is [n]."""

    ids: NDArray[np.str_]
    x: NDArray[np.float32]  # [n, D], as the backbone's pooling gives them
    y: NDArray[np.int64]
    group: NDArray[np.str_]
    gradable: NDArray[np.bool_]
    test: NDArray[np.bool_]

    def save(self, path: Path) -> None:
        """Write an ``.npz``, whole or not at all."""
        with atomic_path(path) as temporary, temporary.open("wb") as stream:
            np.savez(stream, allow_pickle=False, **{f.name: getattr(self, f.name) for f in fields(self)})

    @classmethod
    def load(cls, path: Path) -> Vectors:
        """Read what :meth:`save` wrote."""
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            return cls(**{field.name: stored[field.name] for field in fields(cls)})


def embedded(name: str, source: str, task: Task) -> tuple[Path, Dataset]:
    """The file of a source's vectors, made if it isn't there, and the dataset that they are of.

    Its name covers the dataset, the preprocessing and the weights, so that it can't be stale.
    """
    from training.model import Classifier

    root = home().root / "bench" / "loop" / name
    heads = [Head(head.name, head.classes) for head in task.heads]
    dataset = ingest(source, heads, root / "dataset", task=task.name)
    model = Classifier(task.backbone, task.heads, weights=task.weights)
    if model.weights_info.source == "none":
        sys.exit(f"{task.backbone} has no pretrained weights here, and random ones show nothing.")
    key = digest_json(
        [dataset.digest, task.preprocessing.digest, model.weights_info.to_dict(), task.backbone]
    )
    path = root / f"{key.removeprefix('sha256:')[:24]}.npz"
    if not path.is_file():
        _embed(model, dataset, task).save(path)
    return path, dataset


def _embed(model: object, dataset: Dataset, task: Task) -> Vectors:
    from training.predict import predict

    parts = []
    for split in ("train", "val", "test"):
        found = predict(model, dataset, split, task=task, device="cpu")  # type: ignore[arg-type]
        rows = dataset.split(split).set_index("id").loc[found.ids.tolist()]
        labels = next(iter(found.labels.values()))
        parts.append(
            Vectors(
                ids=found.ids,
                x=found.embedding,
                y=labels,
                group=rows["group"].to_numpy(dtype=np.str_),
                gradable=(rows["verdict"] == "gradable").to_numpy(dtype=bool),
                test=np.full(len(found), split == "test"),
            )
        )
    return Vectors(
        **{
            field.name: np.concatenate([getattr(part, field.name) for part in parts])
            for field in fields(Vectors)
        }
    )
