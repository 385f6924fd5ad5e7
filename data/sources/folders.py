"""A folder a class, with or without a level of train, val and test above."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from data.dataset import Head
from data.errors import SourceError
from data.sources.base import (
    SKIN_OPTION,
    SYNTHETIC_LICENCE,
    Licence,
    Sample,
    Source,
    class_name,
    fail,
    near,
    stated_skin,
)
from data.sources.tables import IMAGE_SUFFIXES, reader
from data.synthetic.folder import MARKER

_SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}


class Folders(Source):
    """``<class>/*.jpg``, or ``train/<class>/*.jpg`` and so on; splits that are there are kept."""

    kind = "folders"
    title = "One folder a class, optionally under train/, val/ and test/"
    layout = "<class>/<image>… or train/<class>/<image>…, val/…, test/…"
    options: ClassVar[Mapping[str, str]] = {
        "licence": "the licence's name (default: not stated)",
        "forbids": "uses that it forbids, such as commercial",
        "profile": "the quality profile: fundus, dermoscopy, thumbnail or photo (default)",
        "skin": SKIN_OPTION,
    }

    def prepare(self) -> None:
        """The path must be a folder with class folders."""
        if not self.path.is_dir():
            raise SourceError(f"There is no folder {self.path}.", hint=f"Kind {self.kind} is {self.layout}.")
        self.synthetic = (self.path / MARKER).is_file()
        self.licence = stated_licence(self)
        self.profile = self.given.choice("profile", PROFILE_NAMES, self.profile)
        self.skin = stated_skin(self.given)
        if not _subfolders(self.path):
            raise SourceError(
                f"{self.path} has no class folders.", hint=f"Kind {self.kind} is {self.layout}."
            )

    def samples(self, heads: Sequence[Head]) -> Iterator[Sample]:
        """Every image under a class folder, in the order of names."""
        if len(heads) != 1:
            raise SourceError(f"Class folders label one head; the task has {len(heads)}.")
        head = heads[0]
        tops = _subfolders(self.path)
        splits = {path: _SPLITS.get(path.name.lower()) for path in tops}
        by_split = all(splits.values())
        if any(splits.values()) and not by_split and class_name(head, tops[0].name) is None:
            odd = [path.name for path in tops if not splits[path]]
            raise fail("Folders beside train, val and test that are no split", odd)
        parts = [(top, splits[top]) for top in tops] if by_split else [(self.path, None)]

        folders: list[tuple[Path, str, str | None]] = []
        strange = []
        for part, split in parts:
            for folder in _subfolders(part):
                name = class_name(head, folder.name)
                if name is None:
                    strange.append(folder.relative_to(self.path).as_posix() + near(folder.name, head.classes))
                else:
                    folders.append((folder, name, split))
        if strange:
            raise fail(
                f"{len(strange)} folder(s) are named like no class of {head.name}",
                strange,
                hint=f"Known classes: {', '.join(head.classes)}.",
            )
        count = 0
        for folder, name, split in folders:
            for path in sorted(folder.rglob("*")):
                if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file():
                    count += 1
                    identity = path.relative_to(self.path).as_posix()
                    yield Sample(identity, reader(path), {head.name: name}, split=split)
        if not count:
            raise SourceError(
                f"No images under {self.path}.", hint=f"Known types: {', '.join(sorted(IMAGE_SUFFIXES))}."
            )


PROFILE_NAMES = ("fundus", "dermoscopy", "thumbnail", "photo")


def stated_licence(source: Source) -> Licence:
    """The licence that the options state; ``not stated`` when they don't."""
    forbids = tuple(filter(None, (use.strip() for use in source.given.text("forbids").split(","))))
    unstated = SYNTHETIC_LICENCE.name if source.synthetic else "not stated"
    return Licence(source.given.text("licence", unstated), None, forbids)


def _subfolders(path: Path) -> list[Path]:
    return sorted(child for child in path.iterdir() if child.is_dir() and not child.name.startswith("."))
