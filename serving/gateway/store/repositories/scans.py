"""Scans (S2's examinations, S3's face scans) and their states."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

from sqlalchemy import CursorResult, or_, update

from data.errors import Conflict
from serving.gateway.store.checks import check_value
from serving.gateway.store.scope import Scope
from serving.gateway.store.tables import Scan

from . import images, patients
from .parts import one, own, page


def add(
    scope: Scope,
    *,
    system: str,
    owner: str,
    patient_id: str | None = None,
    image_id: str | None = None,
    overlay_id: str | None = None,
    status: str = "pending",
    visit_type: str | None = None,
    notes: str | None = None,
    result: dict[str, Any] | None = None,
) -> Scan:
    """A new scan. ``NotFound`` where the patient or an image isn't there."""
    row = Scan(
        tenant_id=scope.tenant,
        number=scope.number(),
        system=system,
        owner=owner,
        patient_id=patients.get(scope, patient_id).id if patient_id is not None else None,
        image_id=images.get(scope, image_id).id if image_id is not None else None,
        overlay_id=images.get(scope, overlay_id).id if overlay_id is not None else None,
        status=status,
        visit_type=visit_type,
        notes=notes,
        result=result,
        created_at=scope.now,
        updated_at=scope.now,
    )
    scope.session.add(row)
    scope.session.flush()
    return row


def get(scope: Scope, scan_id: str) -> Scan:
    """A scan; ``NotFound`` where there is none. Whose it is, is ``owner``."""
    return one(scope, Scan, scan_id, "Scan")


def history(
    scope: Scope,
    *,
    patient_id: str | None = None,
    owner: str | None = None,
    system: str | None = None,
    until: dt.datetime | None = None,
    without_image: str | None = None,
    skip: int = 0,
    limit: int = 1000,
) -> list[Scan]:
    """Scans, newest first: of a patient (``NotFound`` for an unknown one), of an owner, of a system.

    ``until``: made then or before. ``without_image``: not those of this image.
    """
    query = own(scope, Scan)
    if patient_id is not None:
        query = query.where(Scan.patient_id == patients.get(scope, patient_id).id)
    if owner is not None:
        query = query.where(Scan.owner == owner)
    if system is not None:
        query = query.where(Scan.system == system)
    if until is not None:
        query = query.where(Scan.created_at <= until)
    if without_image is not None:
        query = query.where(or_(Scan.image_id.is_(None), Scan.image_id != without_image))
    return list(scope.session.scalars(page(query.order_by(Scan.number.desc(), Scan.id), skip, limit)))


def start(scope: Scope, scan_id: str, image_id: str) -> Scan:
    """Pending or failed → processing, with this image. Of two at once, one succeeds.

    Raises:
        NotFound: no such scan or image.
        Conflict: it is processing or completed.
    """
    image = images.get(scope, image_id)
    _move(scope, scan_id, ("pending", "failed"), "processing", image_id=image.id, failure=None, result=None)
    return get(scope, scan_id)


def complete(scope: Scope, scan_id: str, result: dict[str, Any], *, overlay_id: str | None = None) -> Scan:
    """Processing → completed, with its result. ``Conflict`` where it isn't processing."""
    overlay = images.get(scope, overlay_id).id if overlay_id is not None else None
    _move(scope, scan_id, ("processing",), "completed", result=result, failure=None, overlay_id=overlay)
    return get(scope, scan_id)


def fail(scope: Scope, scan_id: str, code: str, message: str, details: Sequence[str] = ()) -> Scan:
    """Pending or processing → failed, with a reason that a program and a person can read."""
    failure: dict[str, Any] = {"code": code, "message": message}
    if details:
        failure["details"] = list(details)
    _move(
        scope,
        scan_id,
        ("pending", "processing"),
        "failed",
        failure=failure,
        result=None,
    )
    return get(scope, scan_id)


def _move(scope: Scope, scan_id: str, allowed: tuple[str, ...], to: str, **values: Any) -> None:
    row = get(scope, scan_id)
    for name, value in values.items():
        check_value(value, name)
    done = scope.session.execute(
        update(Scan)
        .where(Scan.tenant_id == scope.tenant, Scan.id == row.id, Scan.status.in_(allowed))
        .values(status=to, updated_at=scope.now, **values)
        .execution_options(synchronize_session=False)
    )
    assert isinstance(done, CursorResult)
    scope.session.expire(row)
    if done.rowcount != 1:
        raise Conflict(f"The scan is {get(scope, scan_id).status}.")
