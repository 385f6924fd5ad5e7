"""The images of an export: each content once, with all that was said of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from data.sources.review_export import Export, ReviewLabel, Settled


@dataclass(frozen=True, slots=True)
class Image:
    """A content with all that was said of it, under whatever files it was sent."""

    content: str
    sent: tuple[str, ...]
    file: str
    names: tuple[str, ...]
    heads: Mapping[str, Settled]
    labels: tuple[ReviewLabel, ...]

    @property
    def cases(self) -> list[str]:
        """The apps' cases that it is of."""
        return sorted({label.case_id for label in self.labels if label.case_id})

    @property
    def values(self) -> dict[str, str | None]:
        """The class for each head, None where there is none."""
        return {head: said.value for head, said in self.heads.items()}


def images_of(export: Export, contents: Mapping[str, str]) -> list[Image]:
    """One entry a content: two files that differ in metadata alone are one image."""
    labels: dict[str, list[ReviewLabel]] = defaultdict(list)
    for label in export.labels:
        labels[contents[label.sha256]].append(label)
    found = []
    for content, heads in export.settled(contents).items():
        every = tuple(labels[content])
        sent = tuple(sorted({label.sha256 for label in every}))
        named = tuple(sorted({label.group for label in every if label.group}))
        file = next(label.file for label in every if label.sha256 == sent[0])
        found.append(Image(content, sent, file, named or (f"image:{sent[0]}",), heads, every))
    return found
