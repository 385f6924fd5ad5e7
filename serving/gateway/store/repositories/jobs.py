"""Work that goes on after its request: its state, which a restart does not lose."""

from __future__ import annotations

import datetime as dt
from typing import Any

from sqlalchemy import or_

from data.errors import Conflict
from serving.gateway.store.scope import Scope
from serving.gateway.store.tables import Job

from .parts import one, own, page


def add(scope: Scope, kind: str, about: str, payload: dict[str, Any] | None = None) -> Job:
    """A queued job about ``<kind>:<id>``. Put it to the queue after the transaction, by its id."""
    row = Job(
        tenant_id=scope.tenant,
        kind=kind,
        about=about,
        status="queued",
        payload=payload or {},
        attempts=0,
        created_at=scope.now,
    )
    scope.session.add(row)
    scope.session.flush()
    return row


def get(scope: Scope, job_id: str) -> Job:
    """A job; ``NotFound`` where there is none."""
    return one(scope, Job, job_id, "Job")


def claim(scope: Scope, job_id: str, lease_s: float) -> Job:
    """Begin a job: queued, or running in a process whose lease ran out. Of two at once, one succeeds.

    Raises:
        Conflict: it is done, failed, or somebody works on it.
    """
    row = one(scope, Job, job_id, "Job", lock=True)
    waiting = row.status == "queued" or (
        row.status == "running" and row.lease_until is not None and row.lease_until <= scope.now
    )
    if not waiting:
        raise Conflict(f"The job is {row.status}.")
    row.status = "running"
    row.attempts += 1
    row.started_at = scope.now
    row.lease_until = scope.now + dt.timedelta(seconds=lease_s)
    scope.session.flush()
    return row


def renew(scope: Scope, job_id: str, attempt: int, lease_s: float) -> None:
    """Say that the work goes on. ``Conflict`` where another process has taken it over."""
    row = _held(scope, job_id, attempt)
    row.lease_until = scope.now + dt.timedelta(seconds=lease_s)
    scope.session.flush()


def release(scope: Scope, job_id: str, attempt: int) -> Job:
    """Give up a claim, so that anybody may begin the job again. ``Conflict`` as in :func:`renew`."""
    row = _held(scope, job_id, attempt)
    row.status = "queued"
    row.lease_until = None
    scope.session.flush()
    return row


def finish(scope: Scope, job_id: str, attempt: int, error: str | None = None) -> Job:
    """End attempt number ``attempt``: done, or failed with ``error``. ``Conflict`` as in :func:`renew`."""
    row = _held(scope, job_id, attempt)
    row.status = "done" if error is None else "failed"
    row.error = error
    row.finished_at = scope.now
    row.lease_until = None
    scope.session.flush()
    return row


def waiting(scope: Scope, *, limit: int = 1000) -> list[Job]:
    """Jobs that nobody works on, oldest first: what a start puts to the queue again after a crash."""
    query = own(scope, Job).where(
        or_(Job.status == "queued", (Job.status == "running") & (Job.lease_until <= scope.now))
    )
    return list(scope.session.scalars(page(query.order_by(Job.created_at, Job.id), 0, limit)))


def _held(scope: Scope, job_id: str, attempt: int) -> Job:
    row = one(scope, Job, job_id, "Job", lock=True)
    if row.status != "running" or row.attempts != attempt:
        raise Conflict("Another process has this job.")
    return row
