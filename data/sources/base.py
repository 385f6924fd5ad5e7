"""What a source is: something that lists labelled images and reads one when asked."""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from data.dataset import Head
from data.errors import SourceError
from data.tone import PLACES, Place

Label = str | int | None
ROWS_NAMED = 10


@dataclass(frozen=True, slots=True)
class Licence:
    """Under what terms a source may be used. ``forbids`` are uses that a gate can ask to be allowed."""

    name: str
    url: str | None = None
    forbids: tuple[str, ...] = ()


SYNTHETIC_LICENCE = Licence("synthetic, drawn by this project (Apache-2.0)")


@dataclass(frozen=True, slots=True)
class Sample:
    """One labelled image. ``read`` gives the file's bytes, and is only called when they are needed.

    ``labels`` maps a head to a class name, to the class's index, or to None where the head isn't labelled.
    ``group`` is what must not be spread over splits (patient, lesion); None means the image stands alone.
    ``mask`` gives a lossless image file of the same size that marks the defect's pixels, where there is one.
    ``original`` is the SHA-256 of the bytes as they once came, where ``read`` gives others; ``source`` and
    ``licence`` are the image's own, where they aren't the whole source's.
    """

    id: str
    read: Callable[[], bytes]
    labels: Mapping[str, Label]
    group: str | None = None
    split: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    mask: Callable[[], bytes] | None = None
    original: str | None = None
    source: str | None = None
    licence: str | None = None


@dataclass(frozen=True, slots=True)
class Options:
    """What follows ``?`` in a source's spec, with every name checked against what the source knows."""

    values: Mapping[str, str]

    def text(self, name: str, default: str = "") -> str:
        """A text option."""
        return self.values.get(name, default)

    def integer(self, name: str, default: int, *, least: int = 0) -> int:
        """A whole number. :class:`SourceError` when it is none or below ``least``."""
        value = self.values.get(name)
        if value is None:
            return default
        try:
            number = int(value)
        except ValueError:
            number = least - 1
        if number < least:
            raise SourceError(f"Option {name}={value} must be a whole number of at least {least}.")
        return number

    def choice(self, name: str, choices: Sequence[str], default: str) -> str:
        """One of ``choices``."""
        value = self.values.get(name, default)
        if value not in choices:
            raise SourceError(f"Option {name}={value} must be one of {', '.join(choices)}.")
        return value


class Source(ABC):
    """The base of every source. A subclass names itself and lists its samples.

    Listing reads labels and names only, so that every wrong label is found before the first image is read.
    """

    kind: ClassVar[str]
    title: ClassVar[str]
    layout: ClassVar[str]
    options: ClassVar[Mapping[str, str]] = {}
    profile: str = "photo"
    licence: Licence = Licence("not stated", None, ())
    synthetic: bool = False
    #: Where an image's skin is, whose tone the ingest measures; ``none`` where that has no sense.
    skin: Place = "none"
    #: Whether it is made for learning from one class: its default rule is then ``one-class``.
    one_class: bool = False

    def __init__(self, path: Path, options: Options) -> None:
        self.path = path
        self.given = options
        self.prepare()

    @abstractmethod
    def prepare(self) -> None:
        """Check that the path is of this kind. :class:`SourceError` says what is missing."""

    @abstractmethod
    def samples(self, heads: Sequence[Head]) -> Iterator[Sample]:
        """Every labelled image, in a fixed order. :class:`SourceError` names the rows that are wrong."""

    def record(self, info: Mapping[str, Any], heads: Sequence[Head]) -> dict[str, Any]:
        """What the source adds to ``dataset.json``, given what stands there; it may refuse the dataset."""
        return {}

    @property
    def name(self) -> str:
        """What the manifest's ``source`` column says: the kind, never a path."""
        return self.kind


#: The option of sources that can't know what their images show.
SKIN_OPTION = "where the skin is whose tone is measured: none (default), centre (faces) or around (lesions)"


def stated_skin(options: Options) -> Place:
    """What the option ``skin`` says."""
    said = options.choice("skin", PLACES, "none")
    return "centre" if said == "centre" else "around" if said == "around" else "none"


def class_name(head: Head, value: str | int, aliases: Mapping[str, str] | None = None) -> str | None:
    """The class that a source's label means, or None when it is none of the head's.

    A class's own name wins, then an alias, then a whole number as the class's index.

    >>> class_name(Head("grade", ("no_dr", "mild")), "1")
    'mild'
    """
    if isinstance(value, int):
        return head.classes[value] if 0 <= value < len(head.classes) else None
    text = value.strip()
    if text in head.classes:
        return text
    folded = {_fold(name): name for name in head.classes}
    if _fold(text) in folded:
        return folded[_fold(text)]
    for code, names in (aliases or {}).items():
        family = {_fold(code), *(_fold(name) for name in names.split(","))}
        if _fold(text) in family:
            for candidate in family:
                if candidate in folded:
                    return folded[candidate]
    try:
        number = float(text)
    except ValueError:
        return None
    return class_name(head, int(number)) if number.is_integer() else None


def fail(what: str, rows: Sequence[str], *, hint: str | None = None) -> SourceError:
    """A :class:`SourceError` that counts and names rows."""
    more = f" and {len(rows) - ROWS_NAMED} more" if len(rows) > ROWS_NAMED else ""
    return SourceError(f"{what}: {', '.join(rows[:ROWS_NAMED])}{more}.", hint=hint)


def near(name: str, known: Sequence[str]) -> str:
    """`` (did you mean X?)`` when something like ``name`` is known."""
    match = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {match[0]}?)" if match else ""


def _fold(text: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in text.strip().casefold())
