"""A dataset's rows, as labels from review come to them: those that it has, and those that come in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

#: The id of an image that came from review, in datasets: this and the SHA-256 of the file that was sent.
PREFIX = "review/"
_OURS = re.compile(PREFIX + r"[0-9a-f]{64}")


@dataclass(slots=True)
class BaseRow:
    """A row of the base: ``sha256`` of the stored bytes, ``original`` of those that once came.

    Of a row that labels came to in review, ``cases`` are the apps' cases, ``sent`` all files (SHA-256) that
    it was sent as, and ``tenants`` those whose readers labelled it, as ``dataset.json`` says.
    """

    id: str
    sha256: str
    original: str
    split: str
    group: str
    labels: dict[str, str | None]
    cases: tuple[str, ...] = ()
    sent: tuple[str, ...] = ()
    tenants: frozenset[str] = frozenset()

    @property
    def from_review(self) -> bool:
        """Whether the image itself came from review, not from what the first base was made of."""
        return _OURS.fullmatch(self.id) is not None

    @property
    def names(self) -> set[str]:
        """Every SHA-256 that it is known by."""
        return {self.sha256, self.original, *self.sent} - {""}


@dataclass(frozen=True, slots=True)
class NewImage:
    """An image that comes into the dataset; ``sha256`` is of the file that was sent."""

    sha256: str
    file: str
    split: str
    group: str
    labels: Mapping[str, str | None]

    @property
    def id(self) -> str:
        """Its id in the dataset."""
        return PREFIX + self.sha256


def is_erased(row: BaseRow, excluded: frozenset[str]) -> bool:
    """Whether a row's content was erased: by its stored bytes, those that came, or what its names say of them
    (datasets of older versions keep no ``original``)."""
    names = (row.group.removeprefix("image:"), row.id.removeprefix(PREFIX))
    return not excluded.isdisjoint((row.sha256, row.original, *names))
