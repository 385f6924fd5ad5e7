"""An existing canonical dataset as a source: take it over, cut it anew, or give it to another task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from data.dataset import LABEL, MASK, META, ORIGINAL, Dataset, Head
from data.errors import SourceError
from data.sources.base import Licence, Sample, Source, class_name, fail
from data.sources.tables import reader


class Canonical(Source):
    """Splits, groups, licence, profile and further columns are kept as they are."""

    kind = "dataset"
    title = "A canonical dataset made by `retiderm data ingest`"
    layout = "dataset.json, manifest.parquet and images/"
    licence = Licence("the dataset's own")

    def prepare(self) -> None:
        """The folder must be a canonical dataset."""
        self.dataset = Dataset.open(self.path)
        info = self.dataset.info
        self.licence = Licence(str(info.get("licence", "not stated")), None, tuple(info["forbids"]))
        self.profile = str(info.get("profile", "photo"))
        self.synthetic = bool(info["synthetic"])
        self.one_class = "one_class" in info

    @property
    def name(self) -> str:
        """The source that the dataset was made of."""
        return str(self.dataset.info.get("source", self.kind))

    def record(self, info: Mapping[str, Any], heads: Sequence[Head]) -> dict[str, Any]:
        """Which cases and readers it owes its labels to, where it came from review."""
        return {key: self.dataset.info[key] for key in ("review",) if key in self.dataset.info}

    def samples(self, heads: Sequence[Head]) -> Iterator[Sample]:
        """The manifest's rows."""
        frame = self.dataset.frame()
        for head in heads:
            if LABEL + head.name not in frame.columns:
                has = ", ".join(known.name for known in self.dataset.heads)
                raise SourceError(f"{self.path} has no head {head.name!r}; it has {has}.")
        meta = [name for name in frame.columns if name.startswith(META)]
        unknown = []
        found = []
        for row in frame.to_dict("records"):
            labels = {}
            for head in heads:
                value = row[LABEL + head.name]
                label = class_name(head, value) if isinstance(value, str) else None
                if isinstance(value, str) and label is None:
                    unknown.append(f"{row['id']}: {value!r}")
                labels[head.name] = label
            extra = {name.removeprefix(META): None if row[name] != row[name] else row[name] for name in meta}
            path = self.dataset.image_path(row["path"])
            marked = row.get(MASK)
            mask = reader(self.dataset.image_path(marked)) if isinstance(marked, str) else None
            first = row.get(ORIGINAL)
            original = first if isinstance(first, str) else None
            found.append(
                Sample(
                    row["id"],
                    reader(path),
                    labels,
                    row["group"],
                    row["split"],
                    extra,
                    mask,
                    original=original,
                )
            )
        if unknown:
            raise fail(f"{self.path} has an unknown class in {len(unknown)} row(s)", unknown)
        yield from found
