"""What an erasure leaves to another's copy of the same photograph: its place in the queue.

A photograph waits once, however many sent it. Where the copy goes that the entry was about, the others wait.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import select

from serving.gateway.store.scope import Scope
from serving.gateway.store.tables import Image, Prediction, QueueEntry

from . import queue

# Under SQLite's and PostgreSQL's bounds on a statement's values.
_PART = 300


@dataclass(frozen=True, slots=True)
class Place:
    """An entry that goes: what it asked for, of which photograph."""

    task: str
    sha256: str
    reasons: tuple[str, ...]
    priority: float
    readers: int


def places(
    scope: Scope, images: Collection[str], cases: Collection[str], predictions: Collection[str]
) -> list[Place]:
    """Of the entries that an erasure of these rows takes, in the order in which they came."""
    found: dict[int, Place] = {}
    every = [
        (QueueEntry.image_id, images),
        (QueueEntry.case_id, cases),
        (QueueEntry.prediction_id, predictions),
    ]
    for column, keys in every:
        listed = sorted(keys)
        for start in range(0, len(listed), _PART):
            query = (
                select(QueueEntry, Image.sha256)
                .join(Image, (Image.tenant_id == QueueEntry.tenant_id) & (Image.id == QueueEntry.image_id))
                .where(
                    QueueEntry.tenant_id == scope.tenant,
                    Image.tenant_id == scope.tenant,
                    column.in_(listed[start : start + _PART]),
                )
            )
            for row, sha256 in scope.session.execute(query):
                found[row.number] = Place(
                    row.task, sha256, tuple(row.reasons), row.priority, row.readers_needed
                )
    return [found[number] for number in sorted(found)]


def pass_on(scope: Scope, left: Sequence[Place]) -> int:
    """Give each place to a copy that is still there, about its newest answer; how many there were.

    A copy's reader starts anew: the labels went with the one that was erased.
    """
    passed = 0
    for place in left:
        query = (
            select(Prediction.image_id, Prediction.id)
            .join(Image, (Image.tenant_id == Prediction.tenant_id) & (Image.id == Prediction.image_id))
            .where(
                Prediction.tenant_id == scope.tenant,
                Image.tenant_id == scope.tenant,
                Image.sha256 == place.sha256,
                Prediction.task == place.task,
                Prediction.role == "champion",
            )
            .order_by(Prediction.number.desc())
            .limit(1)
        )
        if (copy := scope.session.execute(query).one_or_none()) is not None:
            entry = queue.enter(
                scope,
                task=place.task,
                image_id=copy[0],
                prediction_id=copy[1],
                reasons=place.reasons,
                priority=place.priority,
                readers_needed=place.readers,
            )
            passed += entry is not None
    return passed
