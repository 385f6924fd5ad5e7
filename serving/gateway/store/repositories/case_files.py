"""Everything that belongs to many cases at once, in a handful of queries: for exports."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import ColumnElement

from serving.gateway.store.scope import Scope
from serving.gateway.store.tables import Case, CaseEntry, Image, Label, Prediction, Rejection, Row

from .parts import own

_R = TypeVar("_R", bound=Row)
_N = TypeVar("_N", CaseEntry, Rejection, Label, Prediction)
# Under SQLite's and PostgreSQL's bounds on a statement's values.
_PART = 500


@dataclass(frozen=True, slots=True)
class CaseFile:
    """A case with all that is known of it, each list oldest first.

    - ``images``: the one that its app named, and those that were sent under its id.
    - ``labels``: of these images, without withdrawn ones; ``predictions``: likewise.
    """

    case: Case
    entries: tuple[CaseEntry, ...]
    rejections: tuple[Rejection, ...]
    images: tuple[Image, ...]
    labels: tuple[Label, ...]
    predictions: tuple[Prediction, ...]


def gather(scope: Scope, rows: Sequence[Case]) -> list[CaseFile]:
    """The files of these cases, in their order."""
    ids = [case.id for case in rows]
    entries = _by(_all(scope, CaseEntry, CaseEntry.case_id, ids), "case_id")
    rejections = _by(_all(scope, Rejection, Rejection.case_id, ids), "case_id")
    named = _all(scope, Image, Image.id, [case.image_id for case in rows if case.image_id is not None])
    sent = _all(scope, Image, Image.case_key, [case.key for case in rows], Image.kind == "original")
    by_id = {image.id: image for image in named}
    by_key = _by(sent, "case_key")
    pictures: dict[str, list[Image]] = {}
    for case in rows:
        found = {image.id: image for image in by_key[case.key]}
        if case.image_id in by_id:
            found[case.image_id] = by_id[case.image_id]
        pictures[case.id] = sorted(found.values(), key=lambda image: (image.created_at, image.id))
    shown = sorted({image.id for found in pictures.values() for image in found})
    labels = _by(_all(scope, Label, Label.image_id, shown, Label.withdrawn_at.is_(None)), "image_id")
    predictions = _by(_all(scope, Prediction, Prediction.image_id, shown), "image_id")
    return [
        CaseFile(
            case,
            _ordered(entries[case.id]),
            _ordered(rejections[case.id]),
            tuple(pictures[case.id]),
            _ordered(row for image in pictures[case.id] for row in labels[image.id]),
            _ordered(row for image in pictures[case.id] for row in predictions[image.id]),
        )
        for case in rows
    ]


def _all(
    scope: Scope, table: type[_R], column: Any, keys: Sequence[str], *also: ColumnElement[bool]
) -> list[_R]:
    """The tenant's rows with one of the keys in that column."""
    found: list[_R] = []
    for start in range(0, len(keys), _PART):
        query = own(scope, table).where(column.in_(keys[start : start + _PART]), *also)
        found.extend(scope.session.scalars(query))
    return found


def _by(rows: Iterable[_R], name: str) -> dict[Any, list[_R]]:
    grouped: dict[Any, list[_R]] = defaultdict(list)
    for row in rows:
        grouped[getattr(row, name)].append(row)
    return grouped


def _ordered(rows: Iterable[_N]) -> tuple[_N, ...]:
    return tuple(sorted(rows, key=lambda row: row.number))
