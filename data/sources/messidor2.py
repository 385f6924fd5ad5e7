"""Messidor-2: 1,748 photographs of 874 examinations, grades adjudicated by specialists (Krause, 2018)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

from data.sources.base import Licence
from data.sources.table_source import Part, TableSource
from data.sources.tables import Row, read_table


class Messidor2(TableSource):
    """``messidor_data.csv`` with ``IMAGES/``. Images adjudicated ungradable have no grade and are left out.

    The repack with a folder ``preprocess`` calls the same columns ``id_code`` and ``diagnosis``: the header
    decides, not the folder.

    With the pairing table ``messidor-2.csv`` (columns left and right) beside it, both eyes of an examination
    are one group; without it every image stands alone.
    """

    kind = "messidor2"
    title = "Messidor-2 fundus photographs, adjudicated DR grade 0–4"
    layout = (
        "messidor_data.csv (image_id,adjudicated_dr_grade,adjudicated_dme,adjudicated_gradable) and IMAGES/, "
        "or (id_code,diagnosis,…) and preprocess/"
    )
    options: ClassVar[Mapping[str, str]] = {
        **TableSource.options,
        "split": "test: use all of it for the test, as an external set",
    }
    profile = "fundus"
    licence = Licence(
        "Messidor-2 terms (research and education)",
        "https://www.adcis.net/en/third-party/messidor2/",
        ("commercial", "redistribution"),
    )
    id_column = "image_id"
    label_column = "adjudicated_dr_grade"

    def prepare(self) -> None:
        """The folder must be of this layout; the pairing table is read when it is there."""
        super().prepare()
        split = self.given.choice("split", ("", "test"), "")
        self._split = split or None
        self._pairs: dict[str, str] = {}
        for name in ("messidor-2.csv", "pairs.csv"):
            if (self.path / name).is_file():
                for row in read_table(self.path / name, ("left", "right"), kind=self.kind).rows:
                    for eye in ("left", "right"):
                        self._pairs[_stem(row[eye])] = f"examination:{_stem(row['left'])}"
                break

    def parts(self) -> Sequence[Part]:
        """The one table, whose header says what its columns are called."""
        table = self.file("messidor_data.csv", "messidor-2/messidor_data.csv")
        columns = read_table(table, kind=self.kind).columns
        self.id_column = _first(("image_id", "id_code"), columns)
        self.label_column = grade = _first(("adjudicated_dr_grade", "diagnosis"), columns)
        self.heads_known = MappingProxyType(
            {
                **dict.fromkeys(("grade", "dr", "dr_grade"), grade),
                **dict.fromkeys(("dme", "edema"), "adjudicated_dme"),
            }
        )
        folder = self.folder(
            "IMAGES", "images", "preprocess", "messidor-2/preprocess", "messidor-2/messidor-2/preprocess"
        )
        return [Part(table, (folder,), getattr(self, "_split", None), deep=True)]

    def skip(self, row: Row) -> bool:
        """Ungradable images."""
        return row.get("adjudicated_gradable") in {"0", "0.0"}

    def group(self, row: Row, name: str) -> str | None:
        """The examination, where the pairing is known."""
        return self._pairs.get(_stem(name))

    def meta(self, row: Row) -> dict[str, Any]:
        """The adjudicated macular oedema, for slices."""
        value = row.get("adjudicated_dme")
        return {"dme": value or None}


def _first(names: Sequence[str], columns: Sequence[str]) -> str:
    """The first name that is a column; where none is, the first, which the message about it then names."""
    return next((name for name in names if name in columns), names[0])


def _stem(name: str) -> str:
    return name.rsplit(".", 1)[0].lower()
