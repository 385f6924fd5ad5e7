"""HAM10000: 10,015 dermatoscopic images of pigmented lesions, seven diagnoses (Tschandl et al., 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

from data.errors import SourceError
from data.sources.base import Licence
from data.sources.table_source import Part, TableSource
from data.sources.tables import Row

#: The seven codes of column ``dx``, with the names that a task may use instead.
DIAGNOSES = {
    "nv": "melanocytic nevi,melanocytic nevus,nevus",
    "mel": "melanoma",
    "bkl": "benign keratosis,benign keratosis-like lesions,seborrheic keratosis",
    "bcc": "basal cell carcinoma",
    "akiec": "actinic keratosis,actinic keratoses,bowen,bowens disease,intraepithelial carcinoma",
    "vasc": "vascular lesion,vascular lesions",
    "df": "dermatofibroma",
}


class Ham10000(TableSource):
    """Grouped by ``lesion_id``: one lesion was often photographed several times."""

    kind = "ham10000"
    title = "HAM10000 skin lesions, 7 diagnoses, grouped by lesion"
    layout = "HAM10000_metadata.csv (lesion_id,image_id,dx,…) and images/ or HAM10000_images_part_1/ and _2/"
    profile = "dermoscopy"
    licence = Licence("CC BY-NC 4.0", "https://creativecommons.org/licenses/by-nc/4.0/", ("commercial",))
    skin = "around"
    id_column = "image_id"
    label_column = "dx"
    heads_known = MappingProxyType({"diagnosis": "dx", "lesion": "dx"})
    aliases = MappingProxyType(DIAGNOSES)

    def parts(self) -> Sequence[Part]:
        """One table; the images are in one folder or in the two of the original archive."""
        table = self.file("HAM10000_metadata.csv", "HAM10000_metadata", "metadata.csv")
        halves = [self.path / f"HAM10000_images_part_{number}" for number in (1, 2)]
        found = tuple(folder for folder in halves if folder.is_dir())
        return [Part(table, found or (self.folder("images", "HAM10000_images"),))]

    def group(self, row: Row, name: str) -> str | None:
        """The lesion."""
        return row.get("lesion_id") or None

    def meta(self, row: Row) -> dict[str, Any]:
        """Age in years, sex, place on the body, how the diagnosis was made; unknown is empty."""
        kept = {name: row.get(name) for name in ("sex", "localization", "dx_type")}
        return {
            "age": _age(row),
            **{name: value if value and value != "unknown" else None for name, value in kept.items()},
        }


def _age(row: Row) -> float | None:
    """The age; None where it is empty or ``unknown``. :class:`SourceError` for what else is no number."""
    text = row.get("age")
    if text.casefold() in {"", "unknown", "nan"}:
        return None
    try:
        return float(text)
    except ValueError:
        raise SourceError(
            f"Line {row.number}: the age {text!r} is no number.",
            hint="Leave the cell empty where it is unknown.",
        ) from None
