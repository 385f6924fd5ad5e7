"""A classifier's answer: per image as the V1 document says it, per batch as tensors."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.placement import Placement
from serving.core.bundle import Card
from serving.kinds.base import Sink


@dataclass(frozen=True, slots=True)
class HeadResult:
    """One head's answer for one image: ``probabilities`` and ``members`` [C], ``cam`` [h, w]."""

    classes: tuple[str, ...]
    probabilities: NDArray[np.float32]
    label: int
    members: NDArray[np.bool_]
    uncertain: bool
    cam: NDArray[np.float32] | None = None

    def to_dict(self) -> dict[str, Any]:
        """The V1 form."""
        values = [float(value) for value in self.probabilities]
        return {
            "label": self.classes[self.label],
            "confidence": values[self.label],
            "probabilities": dict(zip(self.classes, values, strict=True)),
            "set": [name for name, inside in zip(self.classes, self.members, strict=True) if inside],
            "uncertain": self.uncertain,
        }


@dataclass(frozen=True, slots=True)
class HeadsResult:
    """Every head's answer for one image. See ``serving.kinds.base.Result``."""

    heads: Mapping[str, HeadResult]

    @property
    def map(self) -> NDArray[np.float32] | None:
        """The first head's map of its label's class."""
        return next(iter(self.heads.values())).cam

    def maps(self) -> dict[str, NDArray[np.float32]]:
        """Each head's map of its own label's class, where there are several heads."""
        if len(self.heads) < 2:
            return {}
        return {name: head.cam for name, head in self.heads.items() if head.cam is not None}

    def placed(self, placement: Placement) -> HeadsResult:
        """Itself: a class is of the whole image."""
        return self

    def overlay(self, pixels: NDArray[np.uint8]) -> bytes | None:
        """The regions that spoke for the answer, coloured."""
        from serving.explain import overlay_png  # only where images are

        return None if self.map is None else overlay_png(pixels, self.map)

    def to_dict(self) -> dict[str, Any]:
        """The V1 form."""
        return {"heads": {name: head.to_dict() for name, head in self.heads.items()}}

    def counts(self) -> Iterator[tuple[str, str, bool]]:
        """Each head's label."""
        for name, head in self.heads.items():
            yield name, head.classes[head.label], head.uncertain


@dataclass(frozen=True, slots=True)
class HeadsForm:
    """Heads and the classes of their columns. See ``serving.kinds.base.Form``.

    ``titles`` are what people read for a class, ``{head: {class: title}}``, where a card says more than the
    class's name. They are of the metadata: no answer carries them.
    """

    classes: Mapping[str, tuple[str, ...]]
    titles: Mapping[str, Mapping[str, str]] = field(default_factory=dict, compare=False)

    @classmethod
    def of_card(cls, card: Card) -> HeadsForm:
        """The card's heads, in its order."""
        titles = {
            head.name: {
                name: title
                for name, title in zip(head.classes, head.titles, strict=True)
                if title.casefold() not in (name.casefold(), name.replace("_", " ").casefold())
            }
            for head in card.heads
        }
        return cls({head.name: head.classes for head in card.heads}, titles)

    def parameters(self) -> dict[str, str]:
        """The classes as JSON text."""
        return {"classes": json.dumps(self._columns())}

    def describe(self) -> dict[str, Any]:
        """Names of the columns by head, and what people read for them."""
        return {
            "classes": self._columns(),
            "titles": {head: dict(named) for head, named in self.titles.items()},
        }

    def _columns(self) -> dict[str, list[str]]:
        return {head: list(names) for head, names in self.classes.items()}

    def tensor_types(self) -> list[dict[str, Any]]:
        """V2 metadata of the predictor."""
        return self._types("INT64")

    def answer_types(self) -> list[dict[str, Any]]:
        """V2 metadata of the transformer, whose labels are words."""
        return self._types("BYTES")

    def read(self, tensors: Mapping[str, Any]) -> tuple[HeadsResult, ...]:
        """One result an image."""
        count = len(next(iter(tensors.values())))
        return tuple(HeadsResult(self._image(tensors, i)) for i in range(count))

    def write(self, sink: Sink, results: Sequence[Any]) -> None:
        """Probabilities, label, uncertain and set of each head."""
        for head, names in self.classes.items():
            of_head = [result.heads.get(head) if result is not None else None for result in results]
            _write_head(sink, head, of_head, len(names))

    def _image(self, tensors: Mapping[str, Any], i: int) -> dict[str, HeadResult]:
        results = {}
        for head, names in self.classes.items():
            cam = tensors.get(f"{head}.cam")
            results[head] = HeadResult(
                classes=names,
                probabilities=tensors[f"{head}.probabilities"][i],
                label=int(tensors[f"{head}.label"][i]),
                members=tensors[f"{head}.set"][i],
                uncertain=bool(tensors[f"{head}.uncertain"][i]),
                cam=None if cam is None else cam[i],
            )
        return results

    def _types(self, label: str) -> list[dict[str, Any]]:
        types = []
        for head, names in self.classes.items():
            count = len(names)
            types += [
                {"name": f"{head}.probabilities", "datatype": "FP32", "shape": [-1, count]},
                {"name": f"{head}.label", "datatype": label, "shape": [-1]},
                {"name": f"{head}.uncertain", "datatype": "BOOL", "shape": [-1]},
                {"name": f"{head}.set", "datatype": "BOOL", "shape": [-1, count]},
            ]
        return types


def _write_head(sink: Sink, head: str, results: Sequence[HeadResult | None], count: int) -> None:
    size = (len(results), count)
    probabilities: NDArray[np.float32] = np.full(size, np.nan, np.float32)
    members: NDArray[np.bool_] = np.zeros(size, np.bool_)
    for i, result in enumerate(results):
        if result is not None:
            probabilities[i], members[i] = result.probabilities, result.members
    sink.array(f"{head}.probabilities", probabilities)
    sink.texts(f"{head}.label", [r.classes[r.label] if r else "" for r in results])
    # Without an answer nothing is certain.
    sink.array(f"{head}.uncertain", np.array([r.uncertain if r else True for r in results], np.bool_))
    sink.array(f"{head}.set", members)
