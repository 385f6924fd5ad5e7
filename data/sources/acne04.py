"""ACNE04: face photographs of people with acne, by how severe it is. Nobody without acne is among them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

from data.dataset import Head
from data.errors import SourceError
from data.sources.base import Label, Licence, Sample, fail
from data.sources.table_source import Part, TableSource
from data.sources.tables import Pictures, Row, read_table, reader, require_all_labelled

#: What the four numbers mean (Hayashi et al. 2008, J. Dermatol. 35, 255).
SEVERITIES = ("mild", "moderate", "severe", "very_severe")

# What a class says of each severity. A number is never a class's index here: severity 0 is mild acne, and the
# first class of most heads is healthy skin.
_MEANS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "acne": SEVERITIES,
        "mild_acne": ("mild",),
        "severe_acne": ("severe", "very_severe"),
        **{name: (name,) for name in SEVERITIES},
    }
)
_EITHER = ("mild_acne", "severe_acne")


class Acne04(TableSource):
    """``images/`` with one ``labels.csv`` whose severities run from 0, which is mild, to 3.

    A head gets the class that its severity means: ``acne``, ``mild`` … ``very_severe``, ``mild_acne`` and
    ``severe_acne`` (2 and 3; ``?moderate=`` says what 1 is). A head without such a class has no label here,
    nor has an image whose severity none of them means.
    """

    kind = "acne04"
    title = "ACNE04 face photographs, all with acne, severity 0 (mild) to 3 (very severe)"
    layout = "labels.csv (image_name,severity) and images/"
    profile = "photo"
    skin = "centre"
    licence = Licence("CC BY 4.0, as the export states", "https://creativecommons.org/licenses/by/4.0/")
    options: ClassVar[Mapping[str, str]] = {
        **TableSource.options,
        "moderate": "what severity 1 is to heads with mild_acne and severe_acne: unlabelled (default), "
        "mild_acne or severe_acne",
    }
    id_column = "image_name"
    label_column = "severity"

    def parts(self) -> Sequence[Part]:
        """The one table."""
        return [Part(self.file("labels.csv"), (self.folder("images"),))]

    def group(self, row: Row, name: str) -> str | None:
        """The original photograph: an export may hold it several times, under names with other ends."""
        return name.split("_jpg.rf.")[0]

    def samples(self, heads: Sequence[Head]) -> Iterator[Sample]:
        """The photographs that have a label in at least one head."""
        moderate = self.given.choice("moderate", ("unlabelled", *_EITHER), "unlabelled")
        part = self.parts()[0]
        table = read_table(part.table, (self.id_column, self.label_column), kind=self.kind)
        pictures = Pictures(part.folders)
        meanings = {head.name: _meanings(head, moderate) for head in heads}
        if not any(meanings.values()):
            raise SourceError(
                "ACNE04 shows acne and how severe it is; none of the heads has a class that says so "
                f"({'; '.join(f'{head.name}: ' + ', '.join(head.classes) for head in heads)}).",
                hint=f"Classes that it knows: {', '.join(_MEANS)}.",
            )
        found: dict[str, Sample] = {}
        strange, twice, missing = [], [], []
        for row in table.rows:
            name, told = row[self.id_column], _severity(row[self.label_column])
            at = f"line {row.number} ({name or 'no name'})"
            path = pictures.find(name) if name else None
            if told is None:
                strange.append(f"{at}: {row[self.label_column]!r}")
            elif name in found:
                twice.append(at)
            elif path is None:
                missing.append(at)
            else:
                labels: dict[str, Label] = {each: known.get(told) for each, known in meanings.items()}
                meta: dict[str, Any] = {} if "severity" in meanings else {"severity": told}
                found[name] = Sample(path.stem, reader(path), labels, self.group(row, path.stem), None, meta)
        if strange:
            raise fail(
                f"{part.table.name} has an unknown severity in {len(strange)} row(s)",
                strange,
                hint=f"0 to 3, or {', '.join(SEVERITIES)}.",
            )
        if twice:
            raise fail(f"{part.table.name} names {len(twice)} image(s) twice", twice)
        if missing and self.given.text("missing") != "ignore":
            raise fail(
                f"{part.table.name} names {len(missing)} image(s) that are not there",
                missing,
                hint="Complete the images, or take with option missing=ignore what there is.",
            )
        if self.given.text("unlabelled") != "ignore":
            require_all_labelled([pictures], part.table.name)
        yield from (sample for sample in found.values() if any(sample.labels.values()))


def _severity(text: str) -> str | None:
    """The severity that a cell means: a number from 0 to 3, or its name."""
    folded = text.strip().casefold().replace(" ", "_")
    if folded in SEVERITIES:
        return folded
    return SEVERITIES[int(folded)] if folded in {"0", "1", "2", "3"} else None


def _meanings(head: Head, moderate: str) -> dict[str, str]:
    """A head's class for each severity that it has one for; the more exact class wins."""
    found: dict[str, str] = {}
    for name in sorted(head.classes, key=lambda each: -len(_MEANS.get(each, ()))):
        found.update(dict.fromkeys(_MEANS.get(name, ()), name))
    if moderate in head.classes and "moderate" not in head.classes:
        found["moderate"] = moderate
    return found
