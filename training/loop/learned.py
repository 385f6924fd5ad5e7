"""Which model versions had learned from given images: for the proof of an erasure.

A version learned from an image where its dataset has it in ``train`` or ``val``, by its SHA-256 as stored or
as it was sent, under each name that it was sent by (files that differ in metadata alone are one image there);
or where it began with the weights of a version that did (``--warm-start``). A version whose
dataset or bundle can't be found here is named as unknown, and nothing is said of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from data.dataset import ORIGINAL
from data.errors import RetidermError
from training.loop import places
from training.loop.warm import CARD_KEY

if TYPE_CHECKING:
    from training.registry.client import Registry
    from training.registry.version import Version


@dataclass(frozen=True, slots=True)
class Learned:
    """A version, and those of the images that it learned from; none of a version that is unknown."""

    model: str
    version: str
    dataset_digest: str
    images: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """What can be said: versions that learned, and versions of which nobody here can tell."""

    versions: tuple[Learned, ...]
    unknown: tuple[Learned, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON's own types."""
        return asdict(self)


def learned(registry: Registry, images: Iterable[str]) -> Answer:
    """Of every version of every task, whether it learned from one of these images (SHA-256, hex)."""
    asked = frozenset(images)
    versions: list[Learned] = []
    unknown: list[Learned] = []
    for task in registry.tasks():
        seen: dict[str, frozenset[str] | None] = {}
        # By the SHA-256 of the weights that a version ended with, what these have seen.
        passed_on: dict[str, frozenset[str]] = {}
        for version in sorted(registry.versions(task), key=lambda item: int(item.version)):
            digest = version.dataset_digest
            if digest not in seen:
                seen[digest] = _seen(task, digest, asked)
            found = seen[digest]
            begun, ended = _weights(registry, version)
            if found is None or begun is None:
                unknown.append(Learned(task, version.version, digest))
                continue
            found |= passed_on.get(begun, frozenset()) if begun else frozenset()
            if ended:
                passed_on[ended] = found
            if found:
                versions.append(Learned(task, version.version, digest, tuple(sorted(found))))
    return Answer(tuple(versions), tuple(unknown))


def _seen(task: str, digest: str, asked: frozenset[str]) -> frozenset[str] | None:
    """Those of the images that a dataset trains with; None where it isn't here."""
    dataset = places.find(task, digest)
    if dataset is None:
        return None
    frame = dataset.frame()
    frame = frame[frame["split"] != "test"]
    named = set(frame["sha256"])
    if ORIGINAL in frame:
        named |= set(frame[ORIGINAL])
    rows = set(frame["id"])
    for version in dataset.info.get("review", []):
        for case in version["cases"]:
            if case["row"] in rows:
                named |= set(case["sha256"])
    return asked & named


def _weights(registry: Registry, version: Version) -> tuple[str | None, str]:
    """The SHA-256 of the weights that a version began and ended with; None where its card can't be read."""
    try:
        card = registry.bundle(version).card
    except RetidermError:
        return None, ""
    return card.weights.sha256 or "", str(card.extra.get(CARD_KEY, ""))
