"""Which data a bundle learned from, as its card says it; the same for a trained and an imported model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serving.core.bundle import DatasetCard

if TYPE_CHECKING:
    from data.dataset import Dataset


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
