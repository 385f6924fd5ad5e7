"""Next versions of a small dataset: an export added to it, and rows to label anew."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from data.dataset import Dataset
from data.ingest import ingest
from tests.review_exports import Exported


def add(base: Dataset, export: Exported, folder: Path, options: str = "", **more: Any) -> Dataset:
    """The next version of a dataset."""
    root = export.write(folder / "export")
    return ingest(
        f"review:{root}?base={base.root}{options}",
        base.heads,
        folder / "next",
        task=base.task,
        store=folder / "store",
        **more,
    )


def some(base: Dataset, split: str) -> Any:
    return base.split(split).iloc[0]


def content(base: Dataset, row: Any) -> bytes:
    return base.image_path(row["path"]).read_bytes()


def opposite(row: Any) -> str:
    return "high" if row["label.grade"] != "high" else "low"


def hash_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
