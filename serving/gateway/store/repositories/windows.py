"""Windows for drift: answers in the order in which they were given, verdicts in the order in which they came.

Whatever is asked, few rows are read: an index has a bundle's answers in their order, and lists are bounded.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Select, String, cast, delete, func, select, update

from serving.features.columns import Features as Looks
from serving.gateway.store.scope import Scope
from serving.gateway.store.tables import DriftWindow, Features, Glance, Label, Prediction, QueueEntry
from serving.gateway.store.types import new_id

from .parts import MOST, insert_new, looks_of, own
from .predictions import Origin

#: A window of what images look like and how they are answered, or of what readers say of them.
Kind = Literal["images", "labels"]

#: Of each bundle so many glances are kept at most, and a tenth more: nobody may be there to judge them.
MOST_GLANCES = 1000
_TIDIED = 100


@dataclass(frozen=True, slots=True)
class Sight:
    """One image of a window: whether it was let through, its features, and its answer where one is kept."""

    at: dt.datetime
    version: str
    gradable: bool
    looks: Looks
    answer: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Read:
    """One image that readers have finished with: its answer, and each label that stands, oldest first."""

    at: dt.datetime
    version: str
    entry_number: int
    answer: Mapping[str, Any]
    labels: tuple[Label, ...]


def glance(scope: Scope, origin: Origin, verdict: str, looks: Looks) -> Glance:
    """Note what a photograph was like of which nothing else is kept."""
    row = Glance(
        id=new_id(),
        tenant_id=scope.tenant,
        created_at=scope.now,
        number=scope.number(),
        task=origin.task,
        model_version=origin.model_version,
        bundle_digest=origin.bundle_digest,
        verdict=verdict,
        sharpness=looks.sharpness,
        exposure=looks.exposure,
    )
    scope.session.add(row)
    scope.session.flush()
    if row.number % _TIDIED == 0:
        newest = _glances(scope, origin.bundle_digest, 0, MOST_GLANCES)
        if len(newest) == MOST_GLANCES:
            _forget(scope, Glance.bundle_digest == origin.bundle_digest, before=newest[-1])
    return row


def numbers(scope: Scope, digest: str, *, after: int = 0, most: int = MOST) -> list[int]:
    """The numbers of a bundle's newest answers and glances after a number, at most ``most``, ascending."""
    given = (
        select(Prediction.number)
        .where(*_champions(scope, digest), Prediction.number > after)
        .order_by(Prediction.number.desc())
        .limit(most)
    )
    found = [*scope.session.scalars(given), *_glances(scope, digest, after, most)]
    return sorted(found)[-most:] if most else []


def sights(scope: Scope, digest: str, first: int, last: int) -> list[Sight]:
    """A bundle's images from one number to another, in their order."""
    given = (
        select(Prediction, Features)
        .outerjoin(
            Features,
            (Features.tenant_id == Prediction.tenant_id) & (Features.prediction_id == Prediction.id),
        )
        .where(*_champions(scope, digest), Prediction.number.between(first, last))
        .order_by(Prediction.number)
        .limit(MOST)
    )
    found = [
        (
            row.number,
            Sight(row.created_at, row.model_version, row.verdict == _FINE, looks_of(kept), row.answer),
        )
        for row, kept in scope.session.execute(given)
    ]
    seen = (
        own(scope, Glance)
        .where(Glance.bundle_digest == digest, Glance.number.between(first, last))
        .order_by(Glance.number)
        .limit(MOST)
    )
    for one in scope.session.scalars(seen):
        looks = Looks(sharpness=one.sharpness, exposure=one.exposure)
        found.append((one.number, Sight(one.created_at, one.model_version, one.verdict == _FINE, looks, {})))
    return [sight for _, sight in sorted(found, key=lambda pair: pair[0])]


def read_numbers(scope: Scope, task: str, digest: str, *, after: int = 0, most: int = MOST) -> list[int]:
    """Of the newest images that were drawn by chance and read, when: each one's last label's number."""
    last = func.max(Label.number)
    query = _read(scope, task, digest, after).with_only_columns(last).order_by(last.desc()).limit(most)
    return sorted(scope.session.scalars(query))


def reads(scope: Scope, task: str, digest: str, first: int, last: int) -> list[Read]:
    """The same images from one number to another, in the order of their last labels."""
    number = func.max(Label.number)
    query = _read(scope, task, digest, first - 1).with_only_columns(Label.image_id, number)
    query = query.having(number.between(first, last)).order_by(number).limit(MOST)
    order: dict[str, int] = dict(scope.session.execute(query).all())
    rows = (
        select(QueueEntry.number, Prediction)
        .join(
            Prediction,
            (Prediction.tenant_id == QueueEntry.tenant_id) & (Prediction.id == QueueEntry.prediction_id),
        )
        .where(
            QueueEntry.tenant_id == scope.tenant,
            Prediction.tenant_id == scope.tenant,
            QueueEntry.task == task,
            QueueEntry.image_id.in_(order),
        )
    )
    said: dict[str, list[Label]] = {}
    standing = own(scope, Label).where(
        Label.task == task, Label.image_id.in_(order), Label.withdrawn_at.is_(None)
    )
    for label in scope.session.scalars(standing.order_by(Label.number)):
        said.setdefault(label.image_id, []).append(label)
    found = {
        row.image_id: Read(
            said[row.image_id][-1].created_at, row.model_version, entry, row.answer, tuple(said[row.image_id])
        )
        for entry, row in scope.session.execute(rows)
    }
    return [found[image] for image in sorted(order, key=order.__getitem__) if image in found]


def unread(scope: Scope, task: str, digest: str, first: int, last: int) -> int:
    """How many of the images that chance drew, from one place in the queue to another, nobody has read."""
    query = (
        select(func.count())
        .select_from(QueueEntry)
        .join(
            Prediction,
            (Prediction.tenant_id == QueueEntry.tenant_id) & (Prediction.id == QueueEntry.prediction_id),
        )
        .where(
            *_audited(scope, task, digest),
            QueueEntry.state != "done",
            QueueEntry.number.between(first, last),
        )
    )
    return int(scope.session.scalar(query) or 0)


def find(scope: Scope, digest: str, kind: Kind) -> DriftWindow | None:
    """The newest whole window of a bundle that was judged, if any was."""
    key = {"tenant_id": scope.tenant, "bundle_digest": digest, "kind": kind}
    return scope.session.get(DriftWindow, key)


def keep(
    scope: Scope,
    *,
    task: str,
    digest: str,
    kind: Kind,
    before: int | None,
    first: int,
    last: int,
    report: dict[str, Any] | None,
    running: dict[str, Any] | None,
) -> bool:
    """Note where the newest whole window begins and ends, and what was found in it.

    ``before`` is where the last one ended as the caller knew it (None: there was none). False where somebody
    else was faster; nothing is changed then.
    """
    values: dict[str, Any] = {
        "first_number": first,
        "last_number": last,
        "report": report,
        "running": running,
        "judged_at": scope.now,
    }
    if before is None:
        return insert_new(scope, DriftWindow, bundle_digest=digest, kind=kind, task=task, **values)
    done = scope.session.execute(
        update(DriftWindow)
        .where(
            DriftWindow.tenant_id == scope.tenant,
            DriftWindow.bundle_digest == digest,
            DriftWindow.kind == kind,
            DriftWindow.last_number == before,
        )
        .values(values)
        .returning(DriftWindow.last_number)
        .execution_options(synchronize_session=False)
    )
    kept = done.first() is not None
    if kept and kind == "images":
        # Other bundles' of the task too: what one saw before the window of this one began is of no use.
        _forget(scope, Glance.task == task, before=first)
    return kept


_FINE = "gradable"


def _champions(scope: Scope, digest: str) -> tuple[Any, ...]:
    """A challenger's answers are of no window, also after its promotion: they begin in the middle."""
    return (
        Prediction.tenant_id == scope.tenant,
        Prediction.bundle_digest == digest,
        Prediction.role == "champion",
    )


def _glances(scope: Scope, digest: str, after: int, most: int) -> list[int]:
    """Numbers, newest first."""
    query = (
        select(Glance.number)
        .where(Glance.tenant_id == scope.tenant, Glance.bundle_digest == digest, Glance.number > after)
        .order_by(Glance.number.desc())
        .limit(most)
    )
    return list(scope.session.scalars(query))


def _forget(scope: Scope, which: Any, *, before: int) -> None:
    scope.session.execute(
        delete(Glance)
        .where(Glance.tenant_id == scope.tenant, which, Glance.number < before)
        .execution_options(synchronize_session=False)
    )


def _audited(scope: Scope, task: str, digest: str) -> tuple[Any, ...]:
    """Entries of images that were drawn by chance, whatever else was said of them."""
    return (
        QueueEntry.tenant_id == scope.tenant,
        Prediction.tenant_id == scope.tenant,
        QueueEntry.task == task,
        Prediction.bundle_digest == digest,
        # A JSON list as text, the same on both databases; the reasons are words of ours.
        cast(QueueEntry.reasons, String).contains('"audit"'),
    )


def _read(scope: Scope, task: str, digest: str, after: int) -> Select[Any]:
    """Images with labels after a number that need no further reader, one group each."""
    return (
        select(Label.image_id)
        .join(
            QueueEntry,
            (QueueEntry.tenant_id == Label.tenant_id)
            & (QueueEntry.task == Label.task)
            & (QueueEntry.image_id == Label.image_id),
        )
        .join(
            Prediction,
            (Prediction.tenant_id == QueueEntry.tenant_id) & (Prediction.id == QueueEntry.prediction_id),
        )
        .where(
            *_audited(scope, task, digest),
            Label.tenant_id == scope.tenant,
            Label.task == task,
            Label.number > after,
            Label.withdrawn_at.is_(None),
            # Whoever can't grade an image says nothing about the answer.
            Label.value.is_not(None),
            QueueEntry.state == "done",
        )
        .group_by(Label.image_id)
    )
