"""Cases, and the rejections of their answers (S0)."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

from sqlalchemy import or_, select

from data.errors import Conflict, NotFound
from serving.gateway.store.checks import check_text, check_value
from serving.gateway.store.scope import Scope
from serving.gateway.store.tables import Case, CaseEntry, Image, Rejection
from serving.gateway.store.types import as_id, new_id

from . import images, patients
from .parts import MOST, insert_new, one, own, page


def log(
    scope: Scope,
    key: str,
    payload: dict[str, Any],
    *,
    by: str,
    task: str | None = None,
    patient_id: str | None = None,
) -> Case:
    """Keep what an app says of a case. Said again, the columns follow, and both entries stay.

    ``payload`` is the request's document. Its ``image_id`` is linked where it is one of ours; the old service
    took any, so another one is kept as text only. Where it names none, the image that was sent last under the
    case's id is linked.
    """
    case = _upsert(scope, key, payload, task=task, patient_id=patient_id)
    scope.session.add(
        CaseEntry(
            tenant_id=scope.tenant,
            number=scope.number(),
            case_id=case.id,
            payload=payload,
            by=by,
            created_at=scope.now,
        )
    )
    scope.session.flush()
    return case


def reject(scope: Scope, key: str, payload: dict[str, Any], *, by: str, task: str | None = None) -> Rejection:
    """Keep that a user said that a case's answer is wrong. A case that nobody logged yet is begun with it."""
    case = _upsert(scope, key, payload, task=task, rejected=True)
    row = Rejection(
        tenant_id=scope.tenant,
        number=scope.number(),
        case_id=case.id,
        reason=_text(payload.get("reason")),
        notes=_text(payload.get("notes")),
        predictions=list(payload.get("predictions") or []),
        payload=payload,
        by=by,
        created_at=scope.now,
    )
    scope.session.add(row)
    scope.session.flush()
    return row


def begin(scope: Scope, key: str, payload: dict[str, Any], *, task: str | None, image_id: str) -> None:
    """Begin a case that its app hasn't logged yet, since an answer was doubtful.

    One that is there stays as it is. There is no entry of it: nobody has said anything.
    """
    check_text(key, "case_id", 200)
    check_value(payload, "the case")
    insert_new(
        scope,
        Case,
        id=new_id(),
        number=scope.number(),
        key=key,
        image_id=images.get(scope, image_id).id,
        task=task,
        status=_text(payload.get("status")),
        rejected=False,
        payload=payload,
        created_at=scope.now,
        updated_at=scope.now,
    )


def find(scope: Scope, key: str) -> Case | None:
    """The case of that app's id, if there is one."""
    check_text(key, "case_id")
    return scope.session.scalars(own(scope, Case).where(Case.key == key)).one_or_none()


def get(scope: Scope, key: str) -> Case:
    """The case of that app's id; ``NotFound`` where there is none."""
    row = find(scope, key)
    if row is None:
        raise NotFound("Case not found")
    return row


def by_id(scope: Scope, case_id: str) -> Case:
    """The case of our own id; ``NotFound`` where there is none."""
    return one(scope, Case, case_id, "Case")


def by_ids(scope: Scope, case_ids: Sequence[str]) -> dict[str, Case]:
    """Cases by our rows' ids; those that aren't there are left out. At most a thousand at once."""
    query = own(scope, Case).where(Case.id.in_(case_ids[:MOST]))
    return {row.id: row for row in scope.session.scalars(query)}


def of_images(scope: Scope, shown: Sequence[Image]) -> dict[str, Case]:
    """The cases that images belong to, by the images' ids: under whose key they were sent, or that name them.

    Images without a case are left out. At most a thousand at once.
    """
    shown = shown[:MOST]
    keys = {image.case_key for image in shown if image.case_key is not None}
    asked = or_(Case.key.in_(sorted(keys)), Case.image_id.in_([image.id for image in shown]))
    rows = list(scope.session.scalars(own(scope, Case).where(asked).order_by(Case.number, Case.id)))
    by_key = {row.key: row for row in rows}
    naming = {row.image_id: row for row in rows}
    found = {image.id: by_key.get(image.case_key or "") or naming.get(image.id) for image in shown}
    return {key: row for key, row in found.items() if row is not None}


def listed(
    scope: Scope,
    *,
    status: str | None = None,
    task: str | None = None,
    since: dt.datetime | None = None,
    rejected: bool | None = None,
    key: str | None = None,
    after: int = 0,
    limit: int = 1000,
) -> list[Case]:
    """Cases in the order of their making, from the one after number ``after``: for pages and for exports.

    ``since`` is about the last change.
    """
    query = own(scope, Case).where(Case.number > after)
    if status is not None:
        query = query.where(Case.status == check_text(status, "status"))
    if task is not None:
        query = query.where(Case.task == check_text(task, "task"))
    if since is not None:
        query = query.where(Case.updated_at >= since)
    if key is not None:
        query = query.where(Case.key == check_text(key, "key"))
    if rejected is not None:
        query = query.where(Case.rejected == rejected)
    return list(scope.session.scalars(page(query.order_by(Case.number, Case.id), 0, limit)))


def entries(scope: Scope, key: str) -> list[CaseEntry]:
    """Everything that was logged of a case, oldest first."""
    query = own(scope, CaseEntry).where(CaseEntry.case_id == get(scope, key).id)
    return list(scope.session.scalars(page(query.order_by(CaseEntry.number), 0, 1000)))


def rejections(scope: Scope, key: str) -> list[Rejection]:
    """Everything that was said against a case's answers, oldest first."""
    query = own(scope, Rejection).where(Rejection.case_id == get(scope, key).id)
    return list(scope.session.scalars(page(query.order_by(Rejection.number), 0, 1000)))


def rejections_of(scope: Scope, shown: Sequence[Image], *, limit: int = 100) -> list[Rejection]:
    """The newest of what was said against answers about these images, oldest first."""
    ids, keys = [row.id for row in shown[:MOST]], [row.case_key for row in shown[:MOST]]
    query = (
        own(scope, Rejection)
        .join(Case, (Case.tenant_id == Rejection.tenant_id) & (Case.id == Rejection.case_id))
        .where(or_(Case.image_id.in_(ids), Case.key.in_([key for key in keys if key is not None])))
        .order_by(Rejection.number.desc())
    )
    return list(scope.session.scalars(page(query, 0, limit)))[::-1]


def _upsert(
    scope: Scope,
    key: str,
    payload: dict[str, Any],
    *,
    task: str | None,
    patient_id: str | None = None,
    rejected: bool = False,
) -> Case:
    check_text(key, "case_id", 200)
    check_value(payload, "the case")
    case = _held(scope, key)
    image = _image(scope, payload.get("image_id"))
    if image is None and case.image_id is None:
        image = images.newest_of_case(scope, key)
    case.image_id = image.id if image is not None else case.image_id
    if patient_id is not None:
        case.patient_id = patients.get(scope, patient_id).id
    elif image is not None and image.patient_id is not None:
        case.patient_id = image.patient_id
    case.task = task or case.task
    case.status = _text(payload.get("status")) or ("rejected" if rejected else case.status)
    case.user_id = _text(payload.get("user_id")) or case.user_id
    case.user_role = _text(payload.get("user_role")) or case.user_role
    case.rejected = case.rejected or rejected
    case.payload = payload
    case.updated_at = scope.now
    scope.session.flush()
    return case


def _held(scope: Scope, key: str) -> Case:
    """The case's row, locked, made where it isn't there."""
    for _ in range(10):
        insert_new(
            scope,
            Case,
            id=new_id(),
            number=scope.number(),
            key=key,
            rejected=False,
            payload={},
            created_at=scope.now,
            updated_at=scope.now,
        )
        # Between the two, an erasure may have removed the row that was in the first one's way: then again.
        query = own(scope, Case).where(Case.key == key).with_for_update()
        if (row := scope.session.scalars(query).one_or_none()) is not None:
            return row
    raise Conflict("This case is being erased and logged at once.", hint="Send it again later.")


def _image(scope: Scope, image_id: Any) -> Image | None:
    known = as_id(image_id)
    if known is None:
        return None
    return scope.session.scalars(
        select(Image).where(Image.tenant_id == scope.tenant, Image.id == known)
    ).one_or_none()


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
