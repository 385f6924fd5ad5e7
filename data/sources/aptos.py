"""APTOS 2019 Blindness Detection: 3,662 fundus photographs from Aravind Eye Hospital, DR grade 0–4."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

from data.sources.base import Licence
from data.sources.table_source import Part, TableSource


class Aptos(TableSource):
    """``train.csv`` with ``train_images/``; the competition's own test part has no labels and isn't used.

    The rules of the competition bind its data: read them before any use. What they forbid is recorded here
    on the safe side.
    """

    kind = "aptos"
    title = "APTOS 2019 fundus photographs, DR grade 0–4"
    layout = "train.csv (id_code,diagnosis) and train_images/<id_code>.png"
    profile = "fundus"
    licence = Licence(
        "APTOS 2019 competition rules",
        "https://www.kaggle.com/c/aptos2019-blindness-detection/rules",
        ("commercial", "redistribution"),
    )
    id_column = "id_code"
    label_column = "diagnosis"
    heads_known = MappingProxyType({"grade": "diagnosis", "dr": "diagnosis", "dr_grade": "diagnosis"})

    def parts(self) -> Sequence[Part]:
        """The labelled part."""
        return [
            Part(self.file("train.csv", "train_1.csv"), (self.folder("train_images", "images"),), deep=True)
        ]
