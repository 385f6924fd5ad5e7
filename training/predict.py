"""A model's answers on a split of a dataset: from torch, or from the runtime that serves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from data.errors import IntegrityError, UsageError
from data.files import atomic_path
from data.preprocess import Preprocessing
from data.progress import track
from training.labels import read_rows
from training.spec.parts import HeadSpec

if TYPE_CHECKING:
    from data.dataset import Dataset
    from serving.core.bundle import Card
    from training.model import Classifier
    from training.task import Task

_LABELS, _SLICES = "label.", "slice."


class _Runs(Protocol):
    def run(
        self, images: NDArray[np.uint8], outputs: Sequence[str] = ("logits",)
    ) -> dict[str, NDArray[np.float32]]: ...


@dataclass(frozen=True, slots=True)
class Predictions:
    """Answers for N images: what evaluation, calibration and the gate work on."""

    ids: NDArray[np.str_]  # [N], as in the manifest
    logits: NDArray[np.float32]  # [N, sum of classes], heads in the task's order
    labels: dict[str, NDArray[np.int64]]  # by head, [N], -1 where absent
    embedding: NDArray[np.float32]  # [N, D]
    #: By column [N], "" where an image has none: the groups that the gate compares (``slice_names``).
    slices: dict[str, NDArray[np.str_]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def slices_by_id(self) -> list[tuple[str, dict[str, str]]]:
        """For each column the slice of each image, by its id."""
        ids = self.ids.astype(str).tolist()
        return [(name, dict(zip(ids, values.tolist(), strict=True))) for name, values in self.slices.items()]

    def save(self, path: Path) -> None:
        """Write an ``.npz``, whole or not at all."""
        arrays: dict[str, NDArray[Any]] = {
            "ids": self.ids,
            "logits": self.logits,
            "embedding": self.embedding,
            **{_LABELS + name: values for name, values in self.labels.items()},
            **{_SLICES + name: values for name, values in self.slices.items()},
        }
        with atomic_path(path) as temporary, temporary.open("wb") as stream:
            np.savez_compressed(stream, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, path: Path) -> Predictions:
        """Read what :meth:`save` wrote; no code in it is run. :class:`IntegrityError` when it is not that."""
        try:
            # Opened here: numpy leaves a damaged archive's file open.
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
                found = cls(
                    ids=stored["ids"],
                    logits=stored["logits"],
                    labels={
                        name.removeprefix(_LABELS): stored[name]
                        for name in stored.files
                        if name.startswith(_LABELS)
                    },
                    embedding=stored["embedding"],
                    slices={
                        name.removeprefix(_SLICES): stored[name]
                        for name in stored.files
                        if name.startswith(_SLICES)
                    },
                )
        except FileNotFoundError:
            raise IntegrityError(f"There are no predictions {path}.", hint="Predict again.") from None
        except Exception as error:  # a damaged archive fails in many ways
            raise IntegrityError(f"{path} can't be read: {error}", hint="Predict again.") from error
        lengths = {len(found.ids), len(found.logits), len(found.embedding)}
        lengths |= {len(values) for part in (found.labels, found.slices) for values in part.values()}
        if len(lengths) != 1:
            raise IntegrityError(f"{path} holds arrays of unlike lengths.", hint="Predict again.")
        return found


def predict(
    model: Classifier | _Runs,
    dataset: Dataset,
    split: str,
    *,
    task: Task | None = None,
    card: Card | None = None,
    device: str = "auto",
    batch_size: int = 64,
) -> Predictions:
    """Run every image of ``split`` (``train``, ``val`` or ``test``) through a model.

    ``model`` is a torch classifier with its ``task``, or a serving runtime with its bundle's ``card``. Torch
    runs in full precision: these are the logits that the exported graph is held against.

    Rows come in the order of :func:`training.labels.read_rows`; ``ids`` name them.
    """
    from training.fit.cache import load_pixels

    if (task is None) == (card is None):
        raise UsageError("predict() needs either the model's task or its bundle's card.")
    if task is not None:
        heads, preprocessing = task.heads, task.preprocessing
    else:
        assert card is not None
        heads = tuple(HeadSpec(head.name, tuple(head.classes), ordinal=head.ordinal) for head in card.heads)
        preprocessing = Preprocessing.from_dict(card.preprocessing)
    rows = read_rows(dataset, split, heads)
    pixels = load_pixels(dataset, preprocessing)
    places = pixels.where(rows.sha256)
    images = (pixels.array[places[i : i + batch_size]] for i in range(0, len(places), batch_size))
    steps = -(-len(places) // batch_size)
    answers = _torch(model, images, device) if _is_torch(model) else _runtime(model, images)
    parts = list(track(answers, f"Predicting {split}", total=steps))
    width = sum(len(head.classes) for head in heads)
    if not parts:
        parts = [(np.zeros((0, width), np.float32), np.zeros((0, 1), np.float32))]
    return Predictions(
        ids=np.array(rows.ids, dtype=np.str_),
        logits=np.concatenate([logits for logits, _ in parts]),
        labels=rows.labels,
        embedding=np.concatenate([embedding for _, embedding in parts]),
        slices=rows.slices,
    )


Answer = tuple[NDArray[np.float32], NDArray[np.float32]]


def _torch(model: Any, images: Iterator[NDArray[np.uint8]], device: str) -> Iterator[Answer]:
    import torch

    from training.fit.device import choose_device

    where = choose_device(device)
    model = model.to(where).eval()
    for batch in images:
        # A GPU would otherwise round convolutions to TF32, which is coarser than what parity allows.
        exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
        with exact, torch.inference_mode():
            pixels = model.normalise(torch.from_numpy(batch).to(where))
            embedding = model.pool(model.features(pixels))
            logits = model.head(embedding)
        yield logits.float().cpu().numpy(), embedding.float().cpu().numpy()


def _runtime(model: Any, images: Iterator[NDArray[np.uint8]]) -> Iterator[Answer]:
    for batch in images:
        found = model.run(batch, ("logits", "embedding"))
        yield found["logits"], found["embedding"]


def _is_torch(model: object) -> bool:
    return hasattr(model, "backbone") and hasattr(model, "features")
