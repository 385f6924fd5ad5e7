"""Labels: what readers say."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select

from data.errors import Conflict, RequestError
from serving.gateway.store.checks import check_text
from serving.gateway.store.scope import Scope
from serving.gateway.store.tables import Case, Image, Label

from . import images, predictions
from .parts import MOST, one, own, page


def add(
    scope: Scope,
    *,
    image_id: str,
    task: str,
    head: str,
    reader: str,
    value: str | None = None,
    cannot_grade: str | None = None,
    comment: str | None = None,
    case_id: str | None = None,
    prediction_id: str | None = None,
    source: str = "review",
    at: dt.datetime | None = None,
) -> Label:
    """A reader's label for one head of an image: a class, or why it can't be graded.

    ``case_id`` is our row's id, not the app's key. ``at`` is when it was said, where that isn't now; the
    future is now.

    Raises:
        NotFound: the image, case or prediction isn't there, for instance since it was deleted meanwhile.
        RequestError: neither a class nor a reason, or both.
        Conflict: the prediction is another image's.
    """
    if (value is None) == (cannot_grade is None):
        raise RequestError("A label has either a class, or a reason why the image can't be graded.")
    image = images.get(scope, image_id)
    prediction = predictions.get(scope, prediction_id) if prediction_id is not None else None
    if prediction is not None and prediction.image_id != image.id:
        raise Conflict("This prediction is about another image.")
    row = Label(
        tenant_id=scope.tenant,
        number=scope.number(),
        image_id=image.id,
        case_id=one(scope, Case, case_id, "Case").id if case_id is not None else None,
        prediction_id=prediction.id if prediction is not None else None,
        task=task,
        head=head,
        value=value,
        cannot_grade=cannot_grade,
        comment=comment,
        reader=reader,
        source=source,
        created_at=min(at or scope.now, scope.now),
    )
    scope.session.add(row)
    scope.session.flush()
    scope.audit("label.add", f"image:{row.image_id}", label=row.id, task=task, head=head)
    return row


def get(scope: Scope, label_id: str) -> Label:
    """A label, withdrawn ones too; ``NotFound`` where there is none."""
    return one(scope, Label, label_id, "Label")


def withdraw(scope: Scope, label_id: str) -> Label:
    """Take a label back. It stays, marked so."""
    row = get(scope, label_id)
    if row.withdrawn_at is None:
        row.withdrawn_at = scope.now
        scope.session.flush()
        scope.audit("label.withdraw", f"image:{row.image_id}", label=row.id)
    return row


def listed(
    scope: Scope,
    *,
    image_id: str | None = None,
    task: str | None = None,
    reader: str | None = None,
    withdrawn: bool = False,
    after: int = 0,
    limit: int = 1000,
) -> list[Label]:
    """Labels in the order of their making, from the one after number ``after``."""
    query = own(scope, Label).where(Label.number > after)
    if image_id is not None:
        query = query.where(Label.image_id == images.get(scope, image_id).id)
    if task is not None:
        query = query.where(Label.task == check_text(task, "task"))
    if reader is not None:
        query = query.where(Label.reader == check_text(reader, "reader"))
    if not withdrawn:
        query = query.where(Label.withdrawn_at.is_(None))
    return list(scope.session.scalars(page(query.order_by(Label.number, Label.id), 0, limit)))


def of_contents(scope: Scope, task: str, contents: Sequence[str]) -> dict[str, list[Label]]:
    """The standing labels of photographs for a task, by content (SHA-256), oldest first.

    Whichever copy they were given to. At most a thousand contents at once; those without
    a label are left out.
    """
    query = (
        select(Image.sha256, Label)
        .join(Label, (Label.tenant_id == Image.tenant_id) & (Label.image_id == Image.id))
        .where(
            Image.tenant_id == scope.tenant,
            Label.tenant_id == scope.tenant,
            Image.sha256.in_(contents[:MOST]),
            Label.task == check_text(task, "task"),
            Label.withdrawn_at.is_(None),
        )
        .order_by(Label.number, Label.id)
    )
    found: dict[str, list[Label]] = {}
    for sha256, row in scope.session.execute(query):
        found.setdefault(sha256, []).append(row)
    return found


@dataclass(frozen=True, slots=True)
class TakenBack:
    """A photograph's label for a head that was taken back at a moment, where no other stands."""

    sha256: str
    head: str
    at: dt.datetime


def taken_back(scope: Scope, task: str) -> list[TakenBack]:
    """Of which photographs a task's labels were all taken back, by head; of whichever copy. In order."""
    last = func.max(Label.withdrawn_at)
    query = (
        select(Image.sha256, Label.head, last)
        .join(Label, (Label.tenant_id == Image.tenant_id) & (Label.image_id == Image.id))
        .where(
            Image.tenant_id == scope.tenant,
            Label.tenant_id == scope.tenant,
            Label.task == check_text(task, "task"),
        )
        .group_by(Image.sha256, Label.head)
        .having(func.count() == func.count(Label.withdrawn_at))
        .order_by(Image.sha256, Label.head)
    )
    rows = scope.session.execute(query)
    return [TakenBack(sha256, head, at) for sha256, head, at in rows if at is not None]


def pairs(scope: Scope, task: str, *, limit: int = 1000) -> list[list[Label]]:
    """The standing labels of images that two readers or more have labelled for a task, an image each."""
    standing = (
        Label.tenant_id == scope.tenant,
        Label.task == check_text(task, "task"),
        Label.withdrawn_at.is_(None),
    )
    twice = (
        select(Label.image_id)
        .where(*standing)
        .group_by(Label.image_id)
        .having(func.count(Label.reader.distinct()) > 1)
        .order_by(func.max(Label.number).desc())
        .limit(min(max(limit, 0), MOST))
    )
    ids = list(scope.session.scalars(twice))
    found: dict[str, list[Label]] = {key: [] for key in ids}
    query = own(scope, Label).where(*standing, Label.image_id.in_(ids)).order_by(Label.number, Label.id)
    for row in scope.session.scalars(query):
        found[row.image_id].append(row)
    return list(found.values())
