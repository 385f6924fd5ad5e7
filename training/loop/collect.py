"""From labels wherever they are to a source that the pipeline's ingest reads."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from data.dataset import Head
from data.errors import UsageError
from data.files import digest_json
from data.sources.registry import open_source
from data.sources.review import Review
from training.loop import places
from training.loop.fetch import fetch
from training.loop.report import review_report

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from training.spec.parts import HeadSpec


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a person asks for when labels are added: the options of a source of kind ``review``."""

    correct: bool = False
    extend_test: bool = False
    leave_conflicts: bool = False
    licence: str = ""
    forbids: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON's own types."""
        return {**asdict(self), "forbids": list(self.forbids)}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Wishes:
        """The reverse of :meth:`to_dict`."""
        return cls(**{**value, "forbids": tuple(value.get("forbids", ()))})

    def options(self) -> dict[str, str]:
        """As the source is told them; what is as usual is left out."""
        said = {
            "correct": "yes" if self.correct else "",
            "extend_test": "yes" if self.extend_test else "",
            "conflicts": "leave" if self.leave_conflicts else "",
            "licence": self.licence,
            "forbids": ",".join(self.forbids),
        }
        return {name: value for name, value in said.items() if value}


@dataclass(frozen=True, slots=True)
class Collected:
    """``source`` and ``digest`` are what ingest is given; ``report`` see :mod:`training.loop.report`."""

    source: str
    digest: str
    report: dict[str, Any]


def collect(task: str, heads: Sequence[HeadSpec], labels: str, base: str, wishes: Wishes) -> Collected:
    """Fetch labels, check them against the base, and say what they come to. Nothing is made of them yet.

    ``labels`` is a folder, a zip or the gateway's address; ``base`` a canonical dataset, or empty for the
    loop's newest.

    Raises:
        SourceError: the export is faulty, or readers disagree undecided.
        UsageError: there is no base here.
    """
    known = [Head(head.name, head.classes) for head in heads]
    found = places.open_base(task, base)
    export = fetch(labels, task, known)
    options = wishes.options()
    source = f"review:{export.root}?{urlencode({'base': str(found.root), **options})}"
    opened = open_source(source)
    if not isinstance(opened, Review):  # a path with a question mark in it
        raise UsageError(f"The path {export.root} can't be named in a source.")
    checked, plan = opened.plan(known)
    digest = digest_json([checked.digest, found.digest, found.info.get("review", []), options])
    return Collected(source, digest, review_report(checked, plan, found, heads))
