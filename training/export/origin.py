"""Which data a bundle learned from, and when it was made, as its card says it; the same for every model."""

from __future__ import annotations

import datetime
import os
from typing import TYPE_CHECKING

from serving.core.bundle import DatasetCard

if TYPE_CHECKING:
    from data.dataset import Dataset
    from training.task import Task


def dataset_card(dataset: Dataset) -> DatasetCard:
    """The card's ``dataset``: digests, source, licence and what it forbids, whether it was drawn, counts."""
    info = dataset.info
    licence = str(info.get("licence", ""))
    return DatasetCard(
        digest=dataset.digest,
        test_digest=dataset.test_digest,
        source=str(info.get("source", "")),
        licences=(licence,) if licence else (),
        forbids=tuple(info["forbids"]),
        synthetic=bool(info["synthetic"]),
        counts=info["counts"],
    )


#: The first of a card's limits where the images were drawn.
DRAWN = "Trained and judged on drawn (synthetic) images only. It says nothing about photographs or people."


def limits_of(task: Task, dataset: Dataset) -> tuple[str, ...]:
    """The card's ``limits``: the task's, and before them that the images were drawn, where they were."""
    return (DRAWN, *task.limits) if dataset.info["synthetic"] else task.limits


def made_at() -> str:
    """The time, or the one that ``SOURCE_DATE_EPOCH`` gives to builds that must repeat to the byte."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    zone = datetime.UTC
    when = datetime.datetime.fromtimestamp(int(epoch), zone) if epoch else datetime.datetime.now(zone)
    return when.isoformat(timespec="seconds")
