"""The queue of images that a reader should look at, and the batches that are drawn from it."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import String, case, cast, func, select

from data.errors import Conflict, RequestError
from serving.gateway.store.checks import check_text
from serving.gateway.store.scope import Scope
from serving.gateway.store.tables import Batch, Case, Image, Label, QueueEntry

from . import images, labels, predictions
from .parts import insert_new, one, own, page

#: What a label does not answer: a user who has the patient before them.
_GRAVE = frozenset({"rejected"})


def enter(
    scope: Scope,
    *,
    task: str,
    image_id: str,
    prediction_id: str,
    reasons: Sequence[str],
    priority: float,
    case_id: str | None = None,
    readers_needed: int = 1,
) -> QueueEntry | None:
    """Ask for a reader. A photograph has one entry for a task, however often it is sent.

    Sent again, that entry gets the new reasons, and the higher priority; one that was read stays read. It
    stays about the copy, the answer and the case that it began with, so that an erasure finds what is theirs.

    Returns:
        The entry; None where there is none and a reader has labelled another copy: that answers every
        reason but a user's rejection.
    """
    image, prediction = images.get(scope, image_id), predictions.get(scope, prediction_id)
    about = one(scope, Case, case_id, "Case").id if case_id is not None else None
    check_text(task, "task", 200)
    # An entry's id is its photograph's, so that of two copies at once the second one's is refused as a key
    # that is there. Where the copy that it was about was erased, another copy's takes its place.
    entry_id = str(uuid.uuid5(uuid.UUID(scope.tenant), f"queue {task} {image.sha256}"))
    content = select(Image.id).where(Image.tenant_id == scope.tenant, Image.sha256 == image.sha256)
    query = own(scope, QueueEntry).where(QueueEntry.task == task, QueueEntry.image_id.in_(content))
    # Of several, which there were once: one that still waits for somebody.
    query = query.order_by(case((QueueEntry.state == "done", 1), else_=0), QueueEntry.number, QueueEntry.id)
    for _ in range(10):
        row = scope.session.scalars(query.limit(1).with_for_update()).one_or_none()
        if row is not None:
            break
        if _GRAVE.isdisjoint(reasons) and labels.of_contents(scope, task, [image.sha256]):
            return None
        insert_new(
            scope,
            QueueEntry,
            id=entry_id,
            created_at=scope.now,
            updated_at=scope.now,
            number=scope.number(),
            task=task,
            image_id=image.id,
            prediction_id=prediction.id,
            reasons=[],
            priority=0.0,
            state="waiting",
            readers_needed=readers_needed,
        )
    else:
        raise Conflict("This image is being erased and queued at once.", hint="Send it again later.")
    row.reasons = [*row.reasons, *(reason for reason in reasons if reason not in row.reasons)]
    row.priority = max(row.priority, priority)
    first = image if row.image_id == image.id else images.get(scope, row.image_id)
    # A copy that is nobody's may be called by another one's case; the same photograph goes with it then.
    if first is image or (row.case_id, first.case_key, first.patient_id) == (None, None, None):
        row.case_id = about or row.case_id
    if row.state != "done":
        row.readers_needed = max(row.readers_needed, readers_needed)
    row.updated_at = scope.now
    scope.session.flush()
    return row


def get(scope: Scope, entry_id: str, *, lock: bool = False) -> QueueEntry:
    """An entry; ``NotFound`` where there is none, for instance since its patient was erased."""
    return one(scope, QueueEntry, entry_id, "Queue entry", lock=lock)


def of_image(scope: Scope, task: str, image_id: str) -> QueueEntry | None:
    """The entry of an image for a task, if it ever entered."""
    query = own(scope, QueueEntry).where(
        QueueEntry.task == check_text(task, "task"), QueueEntry.image_id == images.get(scope, image_id).id
    )
    return scope.session.scalars(query).one_or_none()


def listed(
    scope: Scope,
    *,
    task: str | None = None,
    state: str | None = "waiting",
    batch_id: str | None = None,
    after: int = 0,
    limit: int = 100,
) -> list[QueueEntry]:
    """Entries in the order in which they came, from the one after number ``after``; ``state`` None: all."""
    query = own(scope, QueueEntry).where(QueueEntry.number > after)
    if task is not None:
        query = query.where(QueueEntry.task == check_text(task, "task"))
    if state is not None:
        query = query.where(QueueEntry.state == check_text(state, "state"))
    if batch_id is not None:
        query = query.where(QueueEntry.batch_id == batch(scope, batch_id).id)
    return list(scope.session.scalars(page(query.order_by(QueueEntry.number, QueueEntry.id), 0, limit)))


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page of the most urgent ended."""

    priority: float
    number: int

    def __str__(self) -> str:
        return f"{self.priority!r}_{self.number}"

    @classmethod
    def of(cls, row: QueueEntry) -> Place:
        """A row's."""
        return cls(row.priority, row.number)

    @classmethod
    def read(cls, text: str) -> Place:
        """The inverse of ``str``. ``RequestError`` for anything else."""
        priority, _, number = text.partition("_")
        try:
            return cls(float(priority), int(number))
        except ValueError:
            raise RequestError("This is not where a page ended.") from None


def urgent(
    scope: Scope,
    *,
    task: str | None = None,
    state: str = "waiting",
    reason: str | None = None,
    batch_id: str | None = None,
    after: Place | None = None,
    before: Place | None = None,
    unread_by: str | None = None,
    limit: int = 100,
) -> list[QueueEntry]:
    """Entries of a state, the most urgent first, the older of two alike.

    From the one ``after`` a place; or, the nearest first, from the one ``before`` it. ``unread_by`` leaves
    out what that reader has labelled: where two are asked for, the first one's work is over.
    """
    query = own(scope, QueueEntry).where(QueueEntry.state == check_text(state, "state"))
    if task is not None:
        query = query.where(QueueEntry.task == check_text(task, "task"))
    if reason is not None:
        # A JSON list as text, the same on both databases; the reasons are words of ours.
        query = query.where(cast(QueueEntry.reasons, String).contains(f'"{check_text(reason, "reason")}"'))
    if batch_id is not None:
        query = query.where(QueueEntry.batch_id == batch(scope, batch_id).id)
    if unread_by is not None:
        own_label = select(Label.id).where(
            Label.tenant_id == scope.tenant,
            Label.image_id == QueueEntry.image_id,
            Label.task == QueueEntry.task,
            Label.reader == check_text(unread_by, "reader"),
            Label.withdrawn_at.is_(None),
        )
        query = query.where(~own_label.exists())
    if after is not None:
        query = query.where(
            (QueueEntry.priority < after.priority)
            | ((QueueEntry.priority == after.priority) & (QueueEntry.number > after.number))
        )
    if before is not None:
        query = query.where(
            (QueueEntry.priority > before.priority)
            | ((QueueEntry.priority == before.priority) & (QueueEntry.number < before.number))
        )
        query = query.order_by(QueueEntry.priority, QueueEntry.number.desc(), QueueEntry.id.desc())
    else:
        query = query.order_by(QueueEntry.priority.desc(), QueueEntry.number, QueueEntry.id)
    return list(scope.session.scalars(page(query, 0, limit)))


def counts(
    scope: Scope, task: str | None = None, *, batch_id: str | None = None
) -> dict[str, dict[str, int]]:
    """How many entries of each state, by task; of a batch where one is named."""
    query = select(QueueEntry.task, QueueEntry.state, func.count()).where(
        QueueEntry.tenant_id == scope.tenant
    )
    if task is not None:
        query = query.where(QueueEntry.task == check_text(task, "task"))
    if batch_id is not None:
        query = query.where(QueueEntry.batch_id == batch(scope, batch_id).id)
    found: dict[str, dict[str, int]] = {}
    for name, state, count in scope.session.execute(query.group_by(QueueEntry.task, QueueEntry.state)):
        found.setdefault(name, {})[state] = count
    return found


def move(scope: Scope, entry_id: str, state: str) -> QueueEntry:
    """Set an entry's state: ``waiting``, ``adjudicate``, ``done`` or ``skipped``."""
    row = get(scope, entry_id, lock=True)
    row.state, row.updated_at = state, scope.now
    scope.session.flush()
    return row


def add_batch(
    scope: Scope,
    *,
    task: str,
    head: str,
    strategy: str,
    seed: int,
    pool_digest: str,
    entries: Sequence[str],
    made_by: str,
    readers_needed: int = 1,
) -> Batch:
    """A batch of waiting entries, in the order chosen.

    Raises:
        NotFound: an entry is gone.
        Conflict: one doesn't wait any more, or is in another batch.
    """
    rows: dict[str, Any] = {}
    for key in sorted(entries):
        row = get(scope, key, lock=True)
        if row.state != "waiting" or row.batch_id is not None:
            raise Conflict("An entry was read or batched meanwhile.", hint="Draw the batch again.")
        rows[key] = row
    made = Batch(
        tenant_id=scope.tenant,
        created_at=scope.now,
        number=scope.number(),
        task=task,
        head=head,
        strategy=strategy,
        seed=seed,
        size=len(rows),
        pool_digest=pool_digest,
        entries=list(entries),
        made_by=made_by,
    )
    scope.session.add(made)
    scope.session.flush()
    for row in rows.values():
        row.batch_id = made.id
        row.readers_needed = max(row.readers_needed, readers_needed)
    scope.session.flush()
    scope.audit(
        "batch.make",
        f"batch:{made.id}",
        task=task,
        strategy=strategy,
        seed=seed,
        size=len(rows),
        pool=pool_digest,
    )
    return made


def batch(scope: Scope, batch_id: str) -> Batch:
    """A batch; ``NotFound`` where there is none."""
    return one(scope, Batch, batch_id, "Batch")


def batches(
    scope: Scope, *, task: str | None = None, after: int = 0, newest: bool = False, limit: int = 100
) -> list[Batch]:
    """Batches in the order of their making, or the newest first."""
    query = own(scope, Batch).where(Batch.number > after)
    if task is not None:
        query = query.where(Batch.task == check_text(task, "task"))
    order = (Batch.number.desc(), Batch.id) if newest else (Batch.number, Batch.id)
    return list(scope.session.scalars(page(query.order_by(*order), 0, limit)))
