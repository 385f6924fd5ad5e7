"""MVTec AD's layout: good images to learn from, good and defective ones to test with, masks of the defects.

The data set's own terms (CC BY-NC-SA 4.0) forbid commercial use. Your own images in the same layout: state
their licence with ``?licence=…``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from data.dataset import Head
from data.errors import SourceError
from data.sources.base import Licence, Sample, Source, class_name, fail
from data.sources.folders import PROFILE_NAMES, stated_licence
from data.sources.tables import IMAGE_SUFFIXES, reader

_GOOD = "good"
_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".gif")


class MvTec(Source):
    """``train/good/`` and ``test/<defect or good>/``; masks at ``ground_truth/<defect>/<name>_mask.png``."""

    kind = "mvtec"
    title = "MVTec AD: one object's good images, defective ones to test with, masks"
    layout = "train/good/…, test/good/…, test/<defect>/…, ground_truth/<defect>/<name>_mask.png"
    options: ClassVar[dict[str, str]] = {
        "licence": "the licence's name (default: MVTec AD's own, CC BY-NC-SA 4.0)",
        "forbids": "uses that it forbids, such as commercial (MVTec AD's own does)",
        "masks": "require (default: every defective image has one), optional, or ignore them all",
        "profile": "the quality profile: fundus, dermoscopy, thumbnail or photo (default)",
    }
    licence = Licence(
        "CC BY-NC-SA 4.0", "https://creativecommons.org/licenses/by-nc-sa/4.0/", ("commercial",)
    )
    one_class = True

    def prepare(self) -> None:
        """The path must be one object's folder."""
        if not (self.path / "train" / _GOOD).is_dir():
            hint = f"Kind {self.kind} is {self.layout}."
            if objects := sorted(path.parent.parent for path in self.path.glob("*/train/good")):
                hint = f"Name one of its objects: {', '.join(path.name for path in objects)}."
            raise SourceError(f"There is no folder train/good in {self.path}.", hint=hint)
        if self.given.text("licence") or self.given.text("forbids"):
            self.licence = stated_licence(self)
        self.profile = self.given.choice("profile", PROFILE_NAMES, self.profile)
        self._masks = self.given.choice("masks", ("require", "optional", "ignore"), "require")

    def samples(self, heads: Sequence[Head]) -> Iterator[Sample]:
        """Train's good images, then the test's by folder, each in the order of names."""
        if len(heads) != 1:
            raise SourceError(f"This layout labels one head, OK or not; the task has {len(heads)}.")
        head = heads[0]
        labels = {good: class_name(head, good) for good in ("ok", "ng")}
        if len(head.classes) != 2 or None in labels.values():
            raise SourceError(
                f"This layout knows the classes ok and ng; {head.name} has {', '.join(head.classes)}.",
                hint="Use a task of kind anomaly, or the kind folders.",
            )
        train = self._images(self.path / "train")
        if strange := sorted({path.parent.name for path in train} - {_GOOD}):
            raise fail("Folders beside train/good", strange, hint="Only good images are learned from.")
        test = self._images(self.path / "test") if (self.path / "test").is_dir() else []
        masks, lacking = self._mask_files(test)
        if lacking:
            raise fail(
                f"{len(lacking)} defective image(s) have no mask under ground_truth",
                lacking,
                hint="Add them, or ?masks=optional to do without.",
            )
        if not train:
            raise SourceError(f"No images under {self.path / 'train' / _GOOD}.", hint=self.layout)
        for split, paths in (("train", train), ("test", test)):
            for path in paths:
                defect = path.relative_to(self.path / split).parts[0]
                mask = masks.get(path)
                yield Sample(
                    path.relative_to(self.path).as_posix(),
                    reader(path),
                    {head.name: labels["ok" if defect == _GOOD else "ng"]},
                    split=split,
                    meta={"defect": defect},
                    mask=None if mask is None else reader(mask),
                )

    def _images(self, folder: Path) -> list[Path]:
        """Images a folder below ``folder`` and deeper; one that lies in ``folder`` itself has no class."""
        found = sorted(
            path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
        )
        if loose := [path.name for path in found if path.parent == folder]:
            raise fail(f"Images in {folder.name}/ itself, in no folder good or of a defect", loose)
        return found

    def _mask_files(self, test: Sequence[Path]) -> tuple[dict[Path, Path], list[str]]:
        """Each defective image's mask, and the images that should have one and don't."""
        if self._masks == "ignore":
            return {}, []
        found: dict[Path, Path] = {}
        lacking = []
        for path in test:
            inner = path.relative_to(self.path / "test")
            if inner.parts[0] == _GOOD:
                continue
            folder = self.path / "ground_truth" / inner.parent
            names = [f"{path.stem}{mark}{suffix}" for mark in ("_mask", "") for suffix in _SUFFIXES]
            mask = next((folder / name for name in names if (folder / name).is_file()), None)
            if mask is not None:
                found[path] = mask
            elif self._masks == "require":
                lacking.append(path.relative_to(self.path).as_posix())
        return found, lacking
