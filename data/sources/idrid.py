"""IDRiD, disease grading part: 413 + 103 fundus photographs with DR grade and risk of macular oedema."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType

from data.sources.base import Licence
from data.sources.table_source import Part, TableSource
from data.sources.tables import Row

_TABLES = "2. Groundtruths"
_IMAGES = "1. Original Images"
# Table, folder, split, prefix. The numbering starts anew in the testing part: its IDRiD_001 is another eye.
# Training keeps the bare names, by which it is in the same hash fold as in the layout with one table.
_PARTS = (
    ("a. IDRiD_Disease Grading_Training Labels.csv", "a. Training Set", "train", ""),
    ("b. IDRiD_Disease Grading_Testing Labels.csv", "b. Testing Set", "test", "test/"),
)


class Idrid(TableSource):
    """The official layout, whose train and test are kept, or ``images/`` with one ``labels.csv``."""

    kind = "idrid"
    title = "IDRiD fundus photographs, DR grade 0–4 and macular oedema risk 0–2"
    layout = "labels.csv (image,dr_grade,dme_risk) and images/; or the official 'B. Disease Grading' folder"
    profile = "fundus"
    licence = Licence("CC BY 4.0", "https://creativecommons.org/licenses/by/4.0/")
    id_column = "image"
    label_column = "dr_grade"
    heads_known = MappingProxyType(
        {"grade": "dr_grade", "dr": "dr_grade", "dme": "dme_risk", "edema": "dme_risk"}
    )

    def parts(self) -> Sequence[Part]:
        """The official two parts where they are, else the one table."""
        root = self._official_root()
        if root is None:
            return [Part(self.file("labels.csv"), (self.folder("images"),))]
        self.id_column = "Image name"
        self.label_column = grade = "Retinopathy grade"
        risk = "Risk of macular edema"
        self.heads_known = MappingProxyType(
            {"grade": grade, "dr": grade, "dr_grade": grade, "dme": risk, "edema": risk, "dme_risk": risk}
        )
        return [
            Part(root / _TABLES / table, (root / _IMAGES / folder,), split, prefix=prefix)
            for table, folder, split, prefix in _PARTS
            if (root / _TABLES / table).is_file()
        ]

    def group(self, row: Row, name: str) -> str | None:
        """The image's own id: patients are not told, and names keep hash folds the same for ever."""
        return name

    def _official_root(self) -> Path | None:
        inner = self.path / "B. Disease Grading"
        for root in (self.path, inner, inner / "B. Disease Grading"):
            if any((root / _TABLES / table).is_file() for table, *_ in _PARTS):
                return root
        return None
