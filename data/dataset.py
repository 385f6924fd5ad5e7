"""The canonical dataset: one folder, whatever the source looked like.

::

    <dataset>/
      dataset.json        what it is: task, digests, heads, counts, licence, how it was split
      manifest.parquet    one row an image: id, path, sha256, split, group, labels, measures
      images/ab/<sha256>.<ext>
      masks/ab/<sha256>.<ext>   only where the source has masks of defects: column ``mask`` names them
      rejected.csv        images that could not be read, with the reason (empty when all could)

The *digest* is the version. It covers what a model can learn from or be judged by — images, labels, groups,
splits, class lists, and masks where there are any — and nothing else: not names, paths, dates or the order of
rows.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.errors import DatasetError, IntegrityError
from data.files import digest_json, read_json, sha256_file
from data.provenance import cpu_quota

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 1
SPLITS = ("train", "val", "test")
MANIFEST = "manifest.parquet"
INFO = "dataset.json"
REJECTED = "rejected.csv"
LABEL = "label."
META = "meta."
#: The column of masks, in datasets that have any: a path, or empty.
MASK = "mask"
#: The SHA-256 of the bytes as they came, where those that are stored are others (their metadata taken out).
#: Only in datasets that have such images, and no part of the digests: by it an erased image is found again.
ORIGINAL = "original"

#: Columns that every manifest has, in this order; ``label.<head>`` and ``meta.<column>`` follow.
COLUMNS = (
    "id",
    "path",
    "sha256",
    "split",
    "group",
    "source",
    "licence",
    "width",
    "height",
    "phash",
    "sharpness",
    "exposure",
    "verdict",
)
_REQUIRED_INFO = (
    "format",
    "task",
    "digest",
    "test_digest",
    "heads",
    "counts",
    "images",
    "synthetic",
    "forbids",
)


@dataclass(frozen=True, slots=True)
class Head:
    """One thing to predict: a name and its classes, in the order of the model's outputs."""

    name: str
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.name or not self.classes:
            raise DatasetError(f"Head {self.name!r} needs a name and at least one class.")
        if len(set(self.classes)) != len(self.classes):
            raise DatasetError(f"Head {self.name!r} names a class twice: {', '.join(self.classes)}.")


@dataclass(frozen=True, slots=True)
class Dataset:
    """An opened dataset. Rows are read when asked for; opening costs one small file."""

    root: Path
    info: Mapping[str, Any]

    @classmethod
    def open(cls, root: Path | str) -> Dataset:
        """Open a folder. :class:`DatasetError` when it is missing, incomplete or of another format."""
        root = Path(root)
        path = root / INFO
        if not root.is_dir():
            raise DatasetError(
                f"There is no dataset folder {root}.", hint="Make one with `retiderm data ingest`."
            )
        if not path.is_file():
            raise DatasetError(
                f"{root} holds no {INFO}, so it is not a canonical dataset.",
                hint="Make one with `retiderm data ingest KIND:PATH`; `retiderm data sources` lists kinds.",
            )
        try:
            info = read_json(path)
        except ValueError as error:
            raise DatasetError(f"{path} is not JSON: {error}.", hint="Ingest the dataset again.") from error
        if not isinstance(info, dict) or info.get("format") != FORMAT:
            found = info.get("format") if isinstance(info, dict) else None
            raise DatasetError(
                f"{path} is of format {found!r}; this version reads format {FORMAT}.",
                hint="Ingest the source again with this version.",
            )
        if lacking := [key for key in _REQUIRED_INFO if key not in info]:
            raise DatasetError(f"{path} lacks {', '.join(lacking)}.", hint="Ingest the dataset again.")
        if not (root / MANIFEST).is_file():
            raise DatasetError(f"{root} has no {MANIFEST}.", hint="Ingest the dataset again.")
        return cls(root, info)

    @property
    def digest(self) -> str:
        """The version: ``sha256:<hex>`` over images, labels, groups and splits."""
        return str(self.info["digest"])

    @property
    def test_digest(self) -> str:
        """The same over the test split alone: what a comparison of two models must share."""
        return str(self.info["test_digest"])

    @property
    def task(self) -> str:
        """The task that it was made for."""
        return str(self.info["task"])

    @property
    def heads(self) -> tuple[Head, ...]:
        """The heads and their classes, in order."""
        return tuple(Head(name, tuple(classes)) for name, classes in self.info["heads"].items())

    def frame(self) -> pd.DataFrame:
        """The manifest: one row an image, read afresh, yours to change."""
        import pandas as pd

        try:
            return pd.read_parquet(self.root / MANIFEST)
        except (OSError, ValueError) as error:
            raise DatasetError(
                f"{self.root / MANIFEST} can't be read: {error}.", hint="Ingest it again."
            ) from error

    def split(self, name: str) -> pd.DataFrame:
        """The rows of ``train``, ``val`` or ``test``."""
        if name not in SPLITS:
            raise DatasetError(f"There is no split {name!r}; a dataset has {', '.join(SPLITS)}.")
        frame = self.frame()
        return frame[frame["split"] == name].reset_index(drop=True)

    def image_path(self, path: str) -> Path:
        """Where a row's image (or mask) lies; ``path`` is the row's ``path`` (or ``mask``)."""
        return self.root / path

    def rejected(self) -> list[dict[str, str]]:
        """Images that could not be read: ``id, code, reason`` each."""
        path = self.root / REJECTED
        if not path.is_file():
            return []
        with path.open(newline="", encoding="utf-8") as stream:
            return list(csv.DictReader(stream))

    def verify(self, *, images: bool = True) -> None:
        """Check that rows and images are what the digests say. :class:`IntegrityError` names what is not."""
        frame = self.frame()
        if digest_of(frame, self.heads) != self.digest:
            raise IntegrityError(
                f"{self.root / MANIFEST} was changed: its rows no longer give {self.digest}.",
                hint="Ingest the dataset again; a changed dataset is another version.",
            )
        if digest_of(frame[frame["split"] == "test"], self.heads) != self.test_digest:
            raise IntegrityError(f"{self.root / INFO} names another test digest than its rows give.")
        if images:
            rows = [*zip(frame["path"], frame["sha256"], strict=True), *mask_files(frame)]
            wrong = [problem for problem in _in_threads(self._wrong, rows) if problem]
            if wrong:
                raise IntegrityError(
                    f"{len(wrong)} of {len(rows)} files are not what was recorded: {_some(wrong)}.",
                    hint="Ingest the dataset again.",
                )

    def _wrong(self, row: tuple[str, str]) -> str | None:
        path = self.image_path(row[0])
        if not path.is_file():
            return f"{row[0]} is missing"
        return None if sha256_file(path) == row[1] else f"{row[0]} was altered"


def label_columns(heads: Iterable[Head]) -> list[str]:
    """The manifest's label columns, in the heads' order."""
    return [LABEL + head.name for head in heads]


def digest_of(frame: pd.DataFrame, heads: Sequence[Head]) -> str:
    """The digest over a manifest's rows: equal content in any order, under any names, is equal.

    Masks count where any of the rows has one, so that rows without keep the digest that they always had.
    """
    columns = ["sha256", *label_columns(heads), "group", "split"]
    rows = [
        [None if _is_missing(value) else str(value) for value in row]
        for row in frame[columns].itertuples(index=False, name=None)
    ]
    if mask_files(frame):
        for row, mask in zip(rows, frame[MASK], strict=True):
            row.append(None if _is_missing(mask) else Path(str(mask)).stem)
    # None can't be compared with a string, so it sorts by a flag first.
    rows.sort(key=lambda row: [(value is not None, value or "") for value in row])
    return digest_json({"heads": {head.name: list(head.classes) for head in heads}, "rows": rows})


def mask_files(frame: pd.DataFrame) -> list[tuple[str, str]]:
    """Every mask's path and what its SHA-256 must be, which its name says; empty where there are no masks."""
    if MASK not in frame.columns:
        return []
    return [(path, Path(path).stem) for path in frame[MASK] if isinstance(path, str)]


def counts_of(frame: pd.DataFrame, heads: Sequence[Head]) -> dict[str, dict[str, dict[str, int]]]:
    """``{split: {head: {class: n}}}``, with a zero where a class has no image."""
    counts: dict[str, dict[str, dict[str, int]]] = {}
    for split in SPLITS:
        part = frame[frame["split"] == split]
        counts[split] = {}
        for head in heads:
            found = part[LABEL + head.name].value_counts()
            counts[split][head.name] = {name: int(found.get(name, 0)) for name in head.classes}
    return counts


def _is_missing(value: object) -> bool:
    return value is None or value != value


def _in_threads(
    function: Callable[[tuple[str, str]], str | None], rows: Sequence[tuple[str, str]]
) -> list[str | None]:
    with ThreadPoolExecutor(cpu_quota()) as pool:
        return list(pool.map(function, rows, chunksize=1))


def _some(names: Sequence[str], limit: int = 10) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
