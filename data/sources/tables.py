"""Reading label tables: a CSV of names and labels beside folders of images, every fault named by its row."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from data.dataset import Head
from data.errors import SourceError
from data.sources.base import Label, class_name, fail

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif"})


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table; ``number`` is the line in the file, as an editor counts."""

    number: int
    cells: Mapping[str, str]

    def __getitem__(self, column: str) -> str:
        return self.cells[column]

    def get(self, column: str) -> str:
        """A cell, empty when the column isn't there."""
        return self.cells.get(column, "")


@dataclass(frozen=True, slots=True)
class Table:
    """A CSV file: stripped column names, stripped cells, empty lines left out."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


def read_table(path: Path, required: Sequence[str] = (), *, kind: str = "") -> Table:
    """Read a CSV with a header line (comma, semicolon or tab; UTF-8, a byte-order mark is allowed)."""
    if not path.is_file():
        raise SourceError(
            f"There is no label file {path}.",
            hint=f"A source of kind {kind} needs it; see `retiderm data sources {kind}`." if kind else None,
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise SourceError(
            f"{path} is not a UTF-8 text file ({error.reason}).", hint="Save it as CSV in UTF-8."
        ) from error
    header = text.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)
    lines = csv.reader(text.splitlines(), delimiter=delimiter)
    try:
        columns = tuple(name.strip() for name in next(lines))
    except StopIteration:
        raise SourceError(f"{path} is empty.", hint="It needs a header line and one line an image.") from None
    require_columns(path, columns, required, kind=kind)
    rows = []
    try:
        for cells in lines:
            if any(cell.strip() for cell in cells):
                named = {name: cell.strip() for name, cell in zip(columns, cells, strict=False) if name}
                rows.append(Row(lines.line_num, {name: named.get(name, "") for name in columns if name}))
    except csv.Error as error:
        raise SourceError(f"{path}, line {lines.line_num}: {error}.") from error
    if not rows:
        raise SourceError(f"{path} has a header but no rows.", hint="It needs one line an image.")
    return Table(path, columns, tuple(rows))


def require_columns(path: Path, columns: Sequence[str], required: Sequence[str], *, kind: str = "") -> None:
    """Raise for columns that a table lacks, naming those that it has."""
    if lacking := [name for name in required if name not in columns]:
        raise SourceError(
            f"{path} has no column {', '.join(lacking)}; it has {', '.join(filter(None, columns))}.",
            hint=f"Is it really of kind {kind}? `retiderm data sources` lists the kinds." if kind else None,
        )


def list_images(folders: Sequence[Path], *, deep: bool = False) -> dict[str, Path]:
    """Images by lower-case file name; two folders with the same name are an error."""
    found: dict[str, Path] = {}
    twice = []
    for folder in folders:
        if not folder.is_dir():
            raise SourceError(f"There is no image folder {folder}.")
        for path in sorted(folder.rglob("*") if deep else folder.iterdir()):
            if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file():
                if path.name.lower() in found:
                    twice.append(path.name)
                found[path.name.lower()] = path
    if twice:
        raise fail("The same image name is in two folders", twice)
    if not found:
        raise SourceError(
            f"No images in {', '.join(str(folder) for folder in folders)}.",
            hint=f"Known image types: {', '.join(sorted(IMAGE_SUFFIXES))}.",
        )
    return found


class Pictures:
    """Finds the file that a table names, with or without its suffix, and remembers which were asked for."""

    def __init__(self, folders: Sequence[Path], *, deep: bool = False) -> None:
        self.files = list_images(folders, deep=deep)
        self._stems: dict[str, Path] = {}
        for path in self.files.values():
            self._stems.setdefault(path.stem.lower(), path)
        self._asked: set[Path] = set()

    def find(self, name: str) -> Path | None:
        """The file, or None. Names can't reach outside the folders: only listed files are ever given."""
        path = self.files.get(name.lower()) or self._stems.get(name.lower())
        if path is None and Path(name).suffix.lower() in IMAGE_SUFFIXES:
            path = self._stems.get(Path(name).stem.lower())
        if path is not None:
            self._asked.add(path)
        return path

    def unasked(self) -> list[str]:
        """Images that no row named."""
        return [path.name for path in self.files.values() if path not in self._asked]


def reader(path: Path) -> Callable[[], bytes]:
    """A sample's ``read`` for a file."""
    return path.read_bytes


@dataclass(slots=True)
class Faults:
    """Collects what is wrong with rows, so that one message can name them all."""

    where: str
    missing_label: list[str]
    unknown_class: list[str]
    duplicate: list[str]
    no_image: list[str]

    @classmethod
    def of(cls, where: str) -> Faults:
        """An empty collection for the table that messages call ``where``."""
        return cls(where, [], [], [], [])

    def raise_if_any(self, heads: Sequence[Head]) -> None:
        """Raise for the first kind of fault that has rows."""
        classes = "; ".join(f"{head.name}: {', '.join(head.classes)}" for head in heads)
        if self.duplicate:
            raise fail(
                f"{self.where} names {len(self.duplicate)} image(s) twice",
                self.duplicate,
                hint="Keep one row an image.",
            )
        if self.missing_label:
            raise fail(
                f"{self.where} has no label in {len(self.missing_label)} row(s)",
                self.missing_label,
                hint="Label them or take the rows out.",
            )
        if self.unknown_class:
            raise fail(
                f"{self.where} has an unknown class in {len(self.unknown_class)} row(s)",
                self.unknown_class,
                hint=f"Known classes: {classes} (or their index from 0).",
            )
        if self.no_image:
            raise fail(
                f"{self.where} names {len(self.no_image)} image(s) that are not there",
                self.no_image,
                hint="Complete the images, or take with option missing=ignore what there is.",
            )


def head_columns(
    heads: Sequence[Head], columns: Sequence[str], *, main: str, known: Mapping[str, str], kind: str
) -> dict[str, str]:
    """Which column labels which head.

    A column of the head's own name wins, then ``known`` (head name → column), then, for a task with one head,
    the source's ``main`` column. Anything else is an error that lists the columns.
    """
    chosen = {}
    for head in heads:
        if head.name in columns:
            chosen[head.name] = head.name
        elif known.get(head.name) in columns:
            chosen[head.name] = known[head.name]
        elif len(heads) == 1 and main in columns:
            chosen[head.name] = main
        else:
            raise SourceError(
                f"A source of kind {kind} has no labels for the head {head.name!r}; "
                f"its columns are {', '.join(filter(None, columns))}.",
                hint="Name the column like the head.",
            )
    return chosen


def labelled_rows(
    table: Table,
    where: str,
    pictures: Pictures,
    heads: Sequence[Head],
    *,
    id_column: str,
    columns: Mapping[str, str],
    aliases: Mapping[str, str] | None = None,
    ignore_missing: bool = False,
    skip: Callable[[Row], bool] = lambda row: False,
) -> Iterator[tuple[Row, str, Path, dict[str, Label]]]:
    """Each row with its name, file and labels; faulty rows are all named before the first is given.

    ``where`` is what messages call the table: its path in the source, since its parts' tables may have the
    same name.
    """
    faults = Faults.of(where)
    good: list[tuple[Row, str, Path, dict[str, Label]]] = []
    seen: set[str] = set()
    for row in table.rows:
        name = row[id_column]
        at = f"line {row.number} ({name or 'no name'})"
        path = pictures.find(name) if name else None
        if skip(row):
            continue
        if name.lower() in seen:
            faults.duplicate.append(at)
            continue
        seen.add(name.lower())
        labels: dict[str, Label] = {}
        for head in heads:
            value = row[columns[head.name]]
            label = class_name(head, value, aliases) if value else None
            if value and label is None:
                faults.unknown_class.append(f"{at}: {value!r}")
            labels[head.name] = label
        if not any(row[columns[head.name]] for head in heads):
            faults.missing_label.append(at)
        if path is None:
            if not ignore_missing:
                faults.no_image.append(at)
            continue
        good.append(
            (row, Path(name).stem if Path(name).suffix.lower() in IMAGE_SUFFIXES else name, path, labels)
        )
    faults.raise_if_any(heads)
    if not good:
        raise SourceError(f"{table.path} has no row whose image is there.")
    yield from good


def require_all_labelled(pictures: Sequence[Pictures], where: str) -> None:
    """Raise for images that no row names: an image without a label would silently be lost."""
    names = [name for each in pictures for name in each.unasked()]
    if names:
        raise fail(
            f"{len(names)} image(s) have no row in {where}",
            names,
            hint="Label them, or leave them out with option unlabelled=ignore.",
        )
