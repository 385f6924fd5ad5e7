"""A dataset's rows as a model needs them: in one fixed order, labels as numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from data.errors import DatasetError
from training.spec.parts import HeadSpec

if TYPE_CHECKING:
    import pandas as pd

    from data.dataset import Dataset

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Rows:
    """Images of a split, ordered by content, so that equal datasets train equal models."""

    ids: tuple[str, ...]
    sha256: tuple[str, ...]
    labels: dict[str, Ints]
    slices: dict[str, NDArray[np.str_]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)


def read_rows(dataset: Dataset, split: str, heads: Sequence[HeadSpec]) -> Rows:
    """The rows of a split with the heads' labels; -1 where a row has none.

    Raises :class:`DatasetError` when the dataset knows other classes than the task.
    """
    check_heads(dataset, heads)
    frame = dataset.split(split).sort_values(["sha256", "id"], kind="stable")
    return Rows(
        ids=tuple(str(value) for value in frame["id"]),
        sha256=tuple(str(value) for value in frame["sha256"]),
        labels={head.name: label_numbers(frame, head) for head in heads},
        slices=slice_names(frame),
    )


def label_numbers(frame: pd.DataFrame, head: HeadSpec) -> Ints:
    """A head's labels as places in its classes, -1 where there is none."""
    column = f"label.{head.name}"
    if column not in frame:
        return np.full(len(frame), -1, dtype=np.int64)
    numbers = {label: index for index, label in enumerate(head.classes)}
    values = [None if value != value or value is None else str(value) for value in frame[column]]
    unknown = sorted({value for value in values if value is not None and value not in numbers})
    if unknown:
        raise DatasetError(
            f"The dataset has label {unknown[0]!r} for {head.name}, which the task doesn't know.",
            hint=f"The task's classes: {', '.join(head.classes)}.",
        )
    return np.array([-1 if value is None else numbers[value] for value in values], dtype=np.int64)


#: A column with more different values is an identifier, not a group.
MOST_SLICES = 20


def slice_names(frame: pd.DataFrame) -> dict[str, NDArray[np.str_]]:
    """The further columns of a split that sort its images into groups, by name without ``meta.``: [N].

    Only columns of words, with at most twenty different ones; "" where a row has none.
    """
    found: dict[str, NDArray[np.str_]] = {}
    for column in frame.columns:
        if not column.startswith("meta.") or frame[column].dtype.kind in "fiu":
            continue
        values = ["" if value is None or value != value else str(value).strip() for value in frame[column]]
        if 1 <= len(set(values) - {""}) <= MOST_SLICES:
            found[column.removeprefix("meta.")] = np.array(values, dtype=np.str_)
    return found


def check_heads(dataset: Dataset, heads: Sequence[HeadSpec]) -> None:
    """Refuse a dataset whose heads have other classes, or that has none of the task's heads."""
    known = {head.name: tuple(head.classes) for head in dataset.heads}
    for head in heads:
        if head.name in known and known[head.name] != head.classes:
            raise DatasetError(
                f"The dataset's classes of {head.name} are {', '.join(known[head.name])}; "
                f"the task's are {', '.join(head.classes)}.",
                hint="Ingest the source again for this task.",
            )
    if not any(head.name in known for head in heads):
        raise DatasetError(
            f"The dataset has the heads {', '.join(known)}, the task {', '.join(h.name for h in heads)}.",
            hint="Ingest the source again for this task.",
        )
