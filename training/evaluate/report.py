"""The evaluation document: what is stored, put on the card, and compared by the gate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from data.errors import DataError
from serving.core.bundle import HeadCard
from training.calibrate import HeadCalibration
from training.evaluate.bootstrap import LEVEL
from training.evaluate.heads import Judged, head_report
from training.evaluate.pictures import write_pictures
from training.evaluate.slices import gaps, slice_reports
from training.spec.parts import HeadSpec

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 1


class Predicted(Protocol):
    """What an evaluation needs of predictions; ``training.predict.Predictions`` is one."""

    @property
    def ids(self) -> Sequence[str] | NDArray[Any]:
        """The images' ids [N], as in the manifest."""

    @property
    def logits(self) -> NDArray[np.float32]:
        """[N, sum of classes], the heads in the task's order."""

    @property
    def labels(self) -> Mapping[str, NDArray[Any]]:
        """Per head [N], the class's index, -1 where absent."""


def evaluate(
    predictions: Predicted,
    heads: Sequence[HeadSpec],
    frame: pd.DataFrame | None = None,
    *,
    calibration: Mapping[str, HeadCalibration] | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
    split: str = "test",
    pictures: Path | None = None,
) -> dict[str, Any]:
    """Judge predictions as they would be served; ``docs/evaluation.md`` describes the document.

    ``frame`` holds the dataset's rows, for slices and for the ``group`` that intervals are drawn by;
    ``calibration`` is applied where given, so that every figure is of the served answers. ``pictures`` is a
    folder for the three PNG files. The same input and seed give the same document.

    Raises:
        DataError: a head has no labelled image, or shapes don't fit.
    """
    cards = [_card(head, calibration) for head in heads]
    rows_of = None if frame is None else _rows(predictions, frame)
    group = None if rows_of is None else _group(rows_of)
    judged: dict[str, tuple[Judged, NDArray[np.intp]]] = {}
    for card, part in zip(cards, _parts(cards, predictions), strict=True):
        truth = np.asarray(predictions.labels[card.name], dtype=np.intp)
        rows = np.flatnonzero(truth >= 0)
        if not len(rows):
            raise DataError(
                f"No image of the {split} split has a label for {card.name!r}.",
                hint="Give the dataset labelled images in that split.",
            )
        judged[card.name] = (
            Judged.of(card, part[rows], truth[rows], None if group is None else group[rows]),
            rows,
        )
    total = len(predictions.logits)
    together = any(len(np.unique(item.group)) < len(item) for item, _ in judged.values())
    slices, skipped = ([], []) if rows_of is None else slice_reports(judged, rows_of, seed=seed)
    if pictures is not None:
        write_pictures([item for item, _ in judged.values()], pictures)
    return {
        "format": FORMAT,
        "split": split,
        "images": total,
        "interval": {
            "level": LEVEL,
            "method": "stratified bootstrap" + (" of groups" if together else ""),
            "resamples": bootstrap,
            "seed": seed,
        },
        "heads": {
            name: head_report(item, total - len(item), count=bootstrap, seed=seed)
            for name, (item, _) in judged.items()
        },
        "slices": slices,
        "slices_left_out": skipped,
        "gaps": gaps(slices),
    }


def _card(head: HeadSpec, calibration: Mapping[str, HeadCalibration] | None) -> HeadCard:
    if calibration is not None:
        if head.name not in calibration:
            raise DataError(
                f"There is no calibration for head {head.name!r}.", hint="Run the calibration step again."
            )
        return calibration[head.name].card(head)
    return HeadCard(name=head.name, classes=head.classes, ordinal=head.ordinal)


def _parts(cards: Sequence[HeadCard], predictions: Predicted) -> list[NDArray[np.float64]]:
    logits = np.asarray(predictions.logits, dtype=np.float64)
    widths = [len(card.classes) for card in cards]
    if logits.ndim != 2 or logits.shape[1] != sum(widths):
        raise DataError(
            f"The predictions have logits {list(logits.shape)}, the heads {sum(widths)} classes.",
            hint="Predict again with this task's model.",
        )
    return np.split(logits, np.cumsum(widths)[:-1], axis=1)


def _rows(predictions: Predicted, frame: pd.DataFrame) -> pd.DataFrame:
    """The frame's row of each prediction, in their order."""
    ids = [str(item) for item in predictions.ids]
    indexed = frame.assign(id=frame["id"].astype(str)).set_index("id")
    missing = sorted(set(ids) - set(indexed.index))
    if missing:
        raise DataError(
            f"{len(missing)} predicted images are not in the dataset, {missing[0]!r} among them.",
            hint="Predict again with this dataset.",
        )
    return indexed.loc[ids].reset_index()


def _group(rows: pd.DataFrame) -> NDArray[np.intp] | None:
    """A number for each image's group [N]; an image whose group isn't known has one of its own."""
    if "group" not in rows.columns:
        return None
    codes = np.asarray(rows["group"].replace("", None).factorize()[0], dtype=np.intp)
    return np.where(codes >= 0, codes, len(codes) + np.arange(len(codes)))
