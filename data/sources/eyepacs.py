"""EyePACS, the Kaggle Diabetic Retinopathy Detection set: 35,126 photographs, both eyes of a patient."""

from __future__ import annotations

import re
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

from data.errors import SourceError
from data.sources.base import Licence
from data.sources.table_source import Part, TableSource
from data.sources.tables import Row

_EYE = re.compile(r"(?P<patient>.+)_(?P<eye>left|right)$")


class EyePacs(TableSource):
    """``trainLabels.csv``, ``train/``. The patient, a group, is the name before ``_left`` or ``_right``."""

    kind = "eyepacs"
    title = "EyePACS (Kaggle DR Detection) fundus photographs, DR grade 0–4, grouped by patient"
    layout = "trainLabels.csv (image,level) and train/<patient>_<left|right>.jpeg"
    profile = "fundus"
    licence = Licence(
        "Kaggle Diabetic Retinopathy Detection rules",
        "https://www.kaggle.com/c/diabetic-retinopathy-detection/rules",
        ("commercial", "redistribution"),
    )
    id_column = "image"
    label_column = "level"
    heads_known = MappingProxyType({"grade": "level", "dr": "level", "dr_grade": "level"})

    def parts(self) -> Sequence[Part]:
        """The labelled part."""
        return [Part(self.file("trainLabels.csv"), (self.folder("train", "images"),), deep=True)]

    def group(self, row: Row, name: str) -> str:
        """The patient. A name of another form is an error, since its patient would be unknown."""
        match = _EYE.match(name)
        if not match:
            raise SourceError(
                f"trainLabels.csv, line {row.number}: {name!r} doesn't end in _left or _right, "
                "so its patient is unknown.",
                hint="Use the kind `labels` for images with other names.",
            )
        return match["patient"]

    def meta(self, row: Row) -> dict[str, Any]:
        """Which eye."""
        match = _EYE.match(row[self.id_column].rsplit(".", 1)[0])
        return {"eye": match["eye"] if match else None}
