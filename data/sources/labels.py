"""Images with a ``labels.csv``: the older retinopathy service's layout, and any set brought in its form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from data.sources.base import SKIN_OPTION, stated_skin
from data.sources.folders import PROFILE_NAMES, stated_licence
from data.sources.table_source import Part, TableSource
from data.sources.tables import Row
from data.synthetic.folder import MARKER


class Labels(TableSource):
    """``train/images``, ``train/labels.csv``, the same for ``val`` (and ``test``); or without that level.

    Columns ``image_name,label``; a column named like a head labels that head, and then ``label`` may be
    absent; ``group`` keeps images together (patient, lesion); any other column is kept for slices. Parts may
    use the same file names: an image's id is ``train/<name>`` and so on. Where no test part is given, one is
    cut from train, by group, and ``dataset.json`` says so.
    """

    kind = "labels"
    title = "Images with labels.csv (image_name,label), optionally under train/, val/ and test/"
    layout = "train/images/, train/labels.csv (image_name,label), val/…; or just images/ and labels.csv"
    options: ClassVar[Mapping[str, str]] = {
        **TableSource.options,
        "licence": "the licence's name (default: not stated)",
        "forbids": "uses that it forbids, such as commercial",
        "profile": "the quality profile: fundus, dermoscopy, thumbnail or photo (default)",
        "skin": SKIN_OPTION,
        "label": "the column with the label (default label)",
    }
    id_column = "image_name"
    label_column = "label"

    def prepare(self) -> None:
        """The folder must have at least one labelled part."""
        self.label_column = self.given.text("label", "label")
        self.synthetic = (self.path / MARKER).is_file()
        self.licence = stated_licence(self)
        self.profile = self.given.choice("profile", PROFILE_NAMES, self.profile)
        self.skin = stated_skin(self.given)
        super().prepare()

    def parts(self) -> Sequence[Part]:
        """One part a split, or one part without splits."""
        names = [name for name in ("train", "val", "test") if (self.path / name).is_dir()]
        if not names:
            return [Part(self.file("labels.csv"), (self.folder("images"),))]
        return [
            Part(self.file(f"{name}/labels.csv"), (self.folder(f"{name}/images"),), name, prefix=f"{name}/")
            for name in names
        ]

    def group(self, row: Row, name: str) -> str | None:
        """The column ``group`` where there is one."""
        return row.get("group") or None

    def meta(self, row: Row) -> dict[str, Any]:
        """Every other column."""
        own = {self.id_column, self.label_column, "group", *self.heads_known.values()}
        return {name: value or None for name, value in row.cells.items() if name not in own}
