"""Drawn images as a source, for the demo and the tests. Synthetic, and labelled so everywhere."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from data.dataset import Head
from data.errors import SourceError
from data.sources.base import SYNTHETIC_LICENCE, Sample, Source, class_name
from data.sources.ham10000 import DIAGNOSES
from data.synthetic import Drawing, draw, plan


class Synthetic(Source):
    """``n`` images of ``size`` pixels; a seed always draws the same. Two can share a patient or lesion."""

    options: ClassVar[Mapping[str, str]] = {
        "n": "how many images (default 400)",
        "size": "side in pixels (default 256)",
        "seed": "which images (default 0)",
        "format": "jpeg (default) or png",
    }
    layout = "nothing: the images are drawn"
    licence = SYNTHETIC_LICENCE
    synthetic = True
    subject: ClassVar[str]

    def prepare(self) -> None:
        """Nothing is read, so the path must be empty."""
        if str(self.path) not in {"", "."}:
            raise SourceError(
                f"A source of kind {self.kind} draws its images and takes no path, but got {self.path}.",
                hint=f"Write {self.kind}?n=400&seed=0.",
            )
        self._plan = plan(
            self.subject,
            self.given.integer("n", 400, least=1),
            seed=self.given.integer("seed", 0),
            size=self.given.integer("size", 256, least=32),
            format=self.given.choice("format", ("jpeg", "png"), "jpeg"),
        )

    def samples(self, heads: Sequence[Head]) -> Iterator[Sample]:
        """Every drawing, drawn when it is read."""
        if len(heads) != 1:
            raise SourceError(f"A synthetic image has one label; the task has {len(heads)} heads.")
        head = heads[0]
        for drawing in self._plan:
            label = self.label(head, drawing)
            if label is None:
                raise SourceError(
                    f"Synthetic {self.subject} images have no class that fits the head {head.name} "
                    f"({', '.join(head.classes)}).",
                    hint="dr_grading fits synthetic-fundus, skin_lesion fits synthetic-lesion.",
                )
            meta = {"camera": drawing.camera}
            yield Sample(
                drawing.name, functools.partial(draw, drawing), {head.name: label}, drawing.group, meta=meta
            )

    def label(self, head: Head, drawing: Drawing) -> str | None:
        """The head's class that a drawing shows."""
        raise NotImplementedError


class SyntheticFundus(Synthetic):
    """Fundus photographs with the lesions of each grade of the international clinical scale."""

    kind = "synthetic-fundus"
    title = "Drawn fundus photographs, DR grade 0–4 (synthetic)"
    profile = "fundus"
    subject = "fundus"

    def label(self, head: Head, drawing: Drawing) -> str | None:
        """The grade is the class's index."""
        return head.classes[drawing.grade] if len(head.classes) == 5 else None


class SyntheticLesion(Synthetic):
    """Dermoscopic lesions with the look of HAM10000's seven diagnoses."""

    kind = "synthetic-lesion"
    title = "Drawn dermoscopic lesions, 7 diagnoses (synthetic)"
    profile = "dermoscopy"
    subject = "lesion"

    def label(self, head: Head, drawing: Drawing) -> str | None:
        """The diagnosis's code, or the name that the task uses for it."""
        return class_name(head, drawing.label, DIAGNOSES)
