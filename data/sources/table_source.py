"""What the sources with one CSV beside image folders share: APTOS, EyePACS, Messidor-2, IDRiD, HAM10000."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

from data.dataset import Head
from data.errors import SourceError
from data.sources.base import Sample, Source
from data.sources.tables import (
    Pictures,
    Row,
    head_columns,
    labelled_rows,
    read_table,
    reader,
    require_all_labelled,
    require_columns,
)


@dataclass(frozen=True, slots=True)
class Part:
    """One table with its image folders, and the split that it is when the source says so.

    ``prefix`` goes before every name to make the sample's id: parts whose names may repeat need one.
    """

    table: Path
    folders: tuple[Path, ...]
    split: str | None = None
    deep: bool = False
    prefix: str = ""


class TableSource(Source):
    """A subclass says where its parts are, which column is what, and how a row's group and meta are had."""

    options: ClassVar[Mapping[str, str]] = {
        "missing": "error (default) or ignore: rows whose image is not there",
        "unlabelled": "error (default) or ignore: images that no row names",
    }
    id_column: str
    label_column: str
    heads_known: Mapping[str, str] = MappingProxyType({})
    aliases: Mapping[str, str] = MappingProxyType({})

    @abstractmethod
    def parts(self) -> Sequence[Part]:
        """The tables with their folders."""

    def group(self, row: Row, name: str) -> str | None:
        """A row's group, ``name`` being the sample's id; None when each image stands alone."""
        return None

    def meta(self, row: Row) -> dict[str, Any]:
        """A row's further columns, for slices. Those that label a head are taken out of it afterwards."""
        return {}

    def skip(self, row: Row) -> bool:
        """Whether a row is left out on purpose."""
        return False

    def prepare(self) -> None:
        """The path must be a folder that holds this layout."""
        if not self.path.exists():
            raise SourceError(f"There is nothing at {self.path}.", hint="Check the path after the colon.")
        if not self.path.is_dir():
            raise SourceError(
                f"{self.path} is a file; a source of kind {self.kind} is a folder: {self.layout}.",
                hint="`retiderm data sources` shows which kind fits.",
            )
        self.given.choice("missing", ("error", "ignore"), "error")
        self.given.choice("unlabelled", ("error", "ignore"), "error")
        self.parts()

    def samples(self, heads: Sequence[Head]) -> Iterator[Sample]:
        """The labelled rows of every part."""
        seen: dict[str, str] = {}
        for part in self.parts():
            where = part.table.relative_to(self.path).as_posix()
            table = read_table(part.table, (self.id_column,), kind=self.kind)
            own = {heads[0].name, self.heads_known.get(heads[0].name)}
            if len(heads) == 1 and own.isdisjoint(table.columns):
                require_columns(table.path, table.columns, (self.label_column,), kind=self.kind)
            columns = head_columns(
                heads, table.columns, main=self.label_column, known=self.heads_known, kind=self.kind
            )
            pictures = Pictures(part.folders, deep=part.deep)
            rows = list(
                labelled_rows(
                    table,
                    where,
                    pictures,
                    heads,
                    id_column=self.id_column,
                    columns=columns,
                    aliases=self.aliases,
                    ignore_missing=self.given.text("missing") == "ignore",
                    skip=self.skip,
                )
            )
            if self.given.text("unlabelled") != "ignore":
                require_all_labelled([pictures], where)
            labelling = {*columns, *columns.values()}
            for row, name, path, labels in rows:
                key = part.prefix + name
                if key in seen:
                    raise SourceError(
                        f"{key} is in {seen[key]} and in {where}.", hint="Give each image a name of its own."
                    )
                seen[key] = where
                meta = {name: value for name, value in self.meta(row).items() if name not in labelling}
                yield Sample(key, reader(path), labels, self.group(row, key), part.split, meta)

    def folder(self, *names: str) -> Path:
        """The first of ``names`` that is a folder here. :class:`SourceError` names them when none is."""
        for name in names:
            if (self.path / name).is_dir():
                return self.path / name
        raise SourceError(
            f"{self.path} has no folder {' or '.join(names)}.",
            hint=f"A source of kind {self.kind} looks like: {self.layout}.",
        )

    def file(self, *names: str) -> Path:
        """The first of ``names`` that is a file here. :class:`SourceError` names them when none is."""
        for name in names:
            if (self.path / name).is_file():
                return self.path / name
        raise SourceError(
            f"{self.path} has no file {' or '.join(names)}.",
            hint=f"A source of kind {self.kind} looks like: {self.layout}.",
        )
