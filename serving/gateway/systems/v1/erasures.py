"""``/v1/erasures``: somebody's data, removed for good, and the proof."""

from __future__ import annotations

import datetime as dt
import uuid
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field, model_validator

from serving.gateway.access import Role
from serving.gateway.gateway import Gateway
from serving.gateway.retention import ErasureReport
from serving.gateway.routing import Who, allow
from serving.gateway.store.checks import check_text
from serving.gateway.store.repositories import audit, erasures
from serving.gateway.store.scope import Scope
from serving.gateway.store.tables import AuditEntry, ErasedImage
from serving.gateway.store.tables import Erasure as Row
from serving.gateway.systems.v1.common import (
    VISIBLE,
    After,
    Id,
    In,
    Limit,
    Page,
    Short,
    one_of,
    page_of,
    refusals,
    start_of,
)

Reason = Annotated[
    str, Query(min_length=1, max_length=500, pattern=VISIBLE, description="Why; never with a name in it.")
]
_ONE = ("patient_id", "user", "case")
#: What the audit log says of each erasure, in its own transaction.
_BEGIN = "erasure.begin"


class ErasureIn(In):
    """What to erase, one of the three: a patient, a user's cases and scans, or a case by the app's own id."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {"patient_id": "7d5b1f9e-4a6f-4d8e-9a55-0f6f2b1c3d4e", "reason": "asked by letter"},
            "oneOf": one_of(*_ONE),
        },
    )

    patient_id: uuid.UUID | None = None
    user: Short | None = None
    case: Short | None = None
    reason: str = Field(min_length=1, max_length=500, pattern=VISIBLE)

    @model_validator(mode="after")
    def _one(self) -> ErasureIn:
        if sum(getattr(self, name) is not None for name in _ONE) != 1:
            raise ValueError("say one of patient_id, user, case")
        return self


class Learned(BaseModel):
    """A model version that had learned from an erased image."""

    model: str
    version: str
    dataset_digest: str


class Erasure(BaseModel):
    """What an erasure did. ``learned`` is null where nobody could say which models had learned from it.

    ``erased`` and ``kept_for_others`` are SHA-256 of contents; the latter are another image's too.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": "3f2a8d55-0c1b-4c8e-b7de-90a4f3c2e611",
                "about": "patient:0b9f3c1e-6a1d-4b7a-8a52-2f1c9d7e5a10",
                "reason": "asked by letter",
                "created_at": "2026-11-20T10:15:30.123456Z",
                "finished_at": "2026-11-20T10:15:30.223456Z",
                "finished": True,
                "counts": {"patients": 1, "scans": 2, "images": 4, "predictions": 2, "labels": 0},
                "erased": ["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"],
                "kept_for_others": [],
                "learned": [{"model": "dr_grading", "version": "3", "dataset_digest": "sha256:a81e…"}],
            }
        }
    )

    id: uuid.UUID
    about: str
    reason: str
    created_at: dt.datetime
    finished_at: dt.datetime | None
    finished: bool
    counts: dict[str, int]
    erased: list[str]
    kept_for_others: list[str]
    learned: list[Learned] | None


def add_routes(router: APIRouter, gateway: Gateway) -> None:
    """Add them."""

    @router.post("/v1/erasures", status_code=201, responses=refusals(404))
    @allow(Role.ADMIN)
    async def erase(who: Who, given: ErasureIn) -> Erasure:
        """Erase what is somebody's: rows, images, overlays. It can't be undone.

        ``finished`` is false where bytes could not be reached yet: the gateway goes on with it by itself.
        """
        check_text(given.reason, "reason")
        report = await gateway.run(partial(_erase, gateway, who.tenant, who.actor, given))
        return await gateway.run(reported, gateway, who.tenant, report.erasure_id)

    @router.get("/v1/erasures")
    @allow(Role.ADMIN)
    async def list_erasures(who: Who, after: After = None, limit: Limit = 50) -> Page[Erasure]:
        """Erasures, oldest first."""

        def read() -> Page[Erasure]:
            with gateway.store.read(who.tenant, who.actor) as scope:
                # In the order of the audit log, whose numbers are given one transaction after another.
                begun = audit.entries(scope, action=_BEGIN, after=start_of(after), limit=limit + 1)
                return page_of(scope, begun, limit, partial(_begun, scope), lambda entry: int(entry.seq))

        return await gateway.run(read)

    @router.get("/v1/erasures/{erasure_id}", responses=refusals(404))
    @allow(Role.ADMIN)
    async def get_erasure(who: Who, erasure_id: Id) -> Erasure:
        """One erasure's report."""
        return await gateway.run(reported, gateway, who.tenant, str(erasure_id))


def reported(gateway: Gateway, tenant: str, erasure_id: str) -> Erasure:
    """What an erasure has done until now."""
    with gateway.store.read(tenant) as scope:
        return _shown(erasures.get(scope, erasure_id), erasures.contents(scope, erasure_id))


def _begun(scope: Scope, entry: AuditEntry) -> Erasure:
    row = erasures.get(scope, audit.data_of(entry)["erasure"])
    return _shown(row, erasures.contents(scope, row.id))


def _erase(gateway: Gateway, tenant: str, actor: str, given: ErasureIn) -> ErasureReport:
    how = {"actor": actor, "reason": given.reason}
    if given.patient_id is not None:
        return gateway.eraser.patient(tenant, str(given.patient_id), **how)
    if given.user is not None:
        return gateway.eraser.user(tenant, given.user, **how)
    assert given.case is not None
    return gateway.eraser.case(tenant, given.case, **how)


def _shown(row: Row, contents: list[ErasedImage]) -> Erasure:
    told = row.learned or {"known": False}
    return Erasure(
        id=uuid.UUID(row.id),
        about=row.about,
        reason=row.reason,
        created_at=row.created_at,
        finished_at=row.finished_at,
        finished=row.finished_at is not None,
        counts=row.counts,
        erased=[item.sha256 for item in contents if item.settled_at is not None and not item.kept],
        kept_for_others=[item.sha256 for item in contents if item.kept],
        learned=[Learned(**item) for item in told["versions"]] if told["known"] else None,
    )
