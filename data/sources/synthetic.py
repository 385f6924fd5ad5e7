"""Drawn images as a source, for the demo and the tests. Synthetic, and labelled so everywhere."""

from __future__ import annotations

import functools
import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

from data.dataset import Head
from data.errors import SourceError
from data.sources.base import SYNTHETIC_LICENCE, Sample, Source, class_name
from data.sources.ham10000 import DIAGNOSES
from data.synthetic import Drawing, draw, plan
from data.synthetic.looks import HAIR_TYPES, SKIN_TYPES


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
        self._drawings()

    def _drawings(self, **how: Any) -> tuple[Drawing, ...]:
        """The plan that the options ask for; ``how`` goes to ``plan``."""
        return plan(
            self.subject,
            self.given.integer("n", 400, least=1),
            seed=self.given.integer("seed", 0),
            size=self.given.integer("size", 256, least=32),
            format=self.given.choice("format", ("jpeg", "png"), "jpeg"),
            **how,
        )

    def samples(self, heads: Sequence[Head]) -> Iterator[Sample]:
        """Every drawing, drawn when it is read."""
        if len(heads) != 1:
            raise SourceError(
                f"A synthetic {self.subject} image has one label; the task has {len(heads)} heads.",
                hint="For heads of skin and hair: synthetic-face.",
            )
        head = heads[0]
        for drawing in self._drawings():
            label = self.label(head, drawing)
            if label is None:
                raise SourceError(
                    f"Synthetic {self.subject} images have no class that fits the head {head.name} "
                    f"({', '.join(head.classes)}).",
                    hint="dr_grading fits synthetic-fundus, skin_lesion synthetic-lesion, the other skin "
                    "tasks synthetic-face.",
                )
            meta = {"camera": drawing.camera}
            yield Sample(
                drawing.name, functools.partial(draw, drawing), {head.name: label}, drawing.group, meta=meta
            )

    @abstractmethod
    def label(self, head: Head, drawing: Drawing) -> str | None:
        """The head's class that a drawing shows."""


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
    skin = "around"
    subject = "lesion"

    def label(self, head: Head, drawing: Drawing) -> str | None:
        """The diagnosis's code, or the name that the task uses for it."""
        return class_name(head, drawing.label, DIAGNOSES)


#: By class of a head on skin conditions, what is drawn for it, in turn. What a head has no class for isn't
#: drawn for it.
_DRAWN_FOR: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "healthy": ("healthy",),
        "normal": ("healthy",),
        "no_acne": ("healthy", "rosacea", "healthy", "pigmentation", "eczema", "healthy", "psoriasis"),
        "acne": ("mild_acne", "severe_acne"),
        **{name: (name,) for name in ("mild_acne", "severe_acne", "rosacea", "eczema", "psoriasis")},
        "pigmentation": ("pigmentation",),
    }
)
_TRAITS = MappingProxyType({"skin_type": SKIN_TYPES, "hair_type": HAIR_TYPES})


def trait_of(head: Head) -> str | None:
    """What of a drawn face a head asks for, by its classes: skin_type, hair_type or condition; or None."""
    for trait, known in _TRAITS.items():
        if set(head.classes) <= set(known):
            return trait
    return "condition" if set(head.classes) <= _DRAWN_FOR.keys() else None


class SyntheticFace(Synthetic):
    """People with and without conditions of the skin, of six skin tones, with four kinds of hair.

    The heads are told by their classes. Where one asks for the hair, three of four images are portraits,
    else faces from near by; the rest are patches of skin, which show neither hair nor skin type and are not
    labelled for them.
    """

    kind = "synthetic-face"
    title = "Drawn faces and skin patches: acne, conditions, skin type, hair (synthetic)"
    profile = "photo"
    skin = "centre"
    subject = "face"

    def samples(self, heads: Sequence[Head]) -> Iterator[Sample]:
        """Every drawing with the labels that it shows."""
        traits = {head.name: trait_of(head) for head in heads}
        if unknown := [head for head in heads if traits[head.name] is None]:
            raise SourceError(
                f"Synthetic faces have no classes that fit the head {unknown[0].name} "
                f"({', '.join(unknown[0].classes)}).",
                hint=f"They know {', '.join((*_DRAWN_FOR, *SKIN_TYPES[1:], *HAIR_TYPES))}.",
            )
        conditions = [head for head in heads if traits[head.name] == "condition"]
        near = "portrait" if "hair_type" in traits.values() else "close"
        labels = _in_turn(conditions[0].classes) if conditions else ()
        for drawing in self._drawings(labels=labels, views=(near, near, near, "patch")):
            shown = {head.name: _shown(head, traits[head.name] or "", drawing) for head in heads}
            if any(shown.values()):
                meta = {"camera": drawing.camera, "view": drawing.view}
                read = functools.partial(draw, drawing)
                yield Sample(drawing.name, read, shown, drawing.group, meta=meta)

    def label(self, head: Head, drawing: Drawing) -> str | None:
        """The head's class that a drawing shows."""
        return _shown(head, trait_of(head) or "", drawing)


def _in_turn(classes: Sequence[str]) -> tuple[str, ...]:
    """Conditions to draw, so that the classes come equally often, and within one its conditions do."""
    rounds = math.lcm(*(len(_DRAWN_FOR[name]) for name in classes))
    return tuple(_DRAWN_FOR[name][turn % len(_DRAWN_FOR[name])] for turn in range(rounds) for name in classes)


def _shown(head: Head, trait: str, drawing: Drawing) -> str | None:
    """The class of a head that a drawing shows; None where it shows none of them."""
    seen = drawing.shows(trait)
    if trait != "condition":
        return seen if seen in head.classes else None
    fits = [name for name in head.classes if seen in _DRAWN_FOR[name]]
    # The more exact class wins: mild_acne before acne.
    return min(fits, key=lambda name: len(_DRAWN_FOR[name])) if fits else None
