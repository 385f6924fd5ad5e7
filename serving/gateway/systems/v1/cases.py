"""``/v1/cases``: what apps logged of images and answers (S0), for those who review them."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict

from serving.gateway.access import Role
from serving.gateway.gateway import Gateway
from serving.gateway.routing import Who, allow
from serving.gateway.store.repositories import cases, images
from serving.gateway.systems.v1.common import After, Id, Limit, Moment, Page, page_of, refusals, start_of

_Word = Annotated[str | None, Query(max_length=200)]


class Case(BaseModel):
    """A case, as it was said last. ``key`` is the app's own id of it."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": "5a8f0d9c-7b1e-4e1c-8c39-1d2e3f405162",
                "key": "case-2026-0117",
                "image_id": "7d5b1f9e-4a6f-4d8e-9a55-0f6f2b1c3d4e",
                "patient_id": None,
                "task": "skin_lesion",
                "status": "uncertain",
                "user_id": "u-17",
                "user_role": "nurse",
                "rejected": False,
                "created_at": "2026-11-20T10:15:30.123456Z",
                "updated_at": "2026-11-20T10:15:30.123456Z",
            }
        }
    )

    id: uuid.UUID
    key: str
    image_id: uuid.UUID | None
    patient_id: uuid.UUID | None
    task: str | None
    status: str | None
    user_id: str | None
    user_role: str | None
    rejected: bool
    created_at: dt.datetime
    updated_at: dt.datetime


class CaseEntry(BaseModel):
    """What an app sent about a case, as it was sent."""

    id: uuid.UUID
    payload: dict[str, Any]
    by: str
    created_at: dt.datetime


class Rejection(BaseModel):
    """A user who said that the answer is wrong."""

    id: uuid.UUID
    reason: str | None
    notes: str | None
    predictions: list[Any]
    by: str
    created_at: dt.datetime


class Whole(Case):
    """A case with everything that was said of it, oldest first, and its images."""

    # The shorter one's example would lack these.
    model_config = ConfigDict(json_schema_extra=lambda schema: schema.pop("example", None))

    entries: list[CaseEntry]
    rejections: list[Rejection]
    images: list[uuid.UUID]


def add_routes(router: APIRouter, gateway: Gateway) -> None:
    """Add them."""

    @router.get("/v1/cases")
    @allow(Role.REVIEWER)
    async def list_cases(
        who: Who,
        status: _Word = None,
        task: _Word = None,
        key: Annotated[str | None, Query(max_length=200, description="The app's own id.")] = None,
        rejected: bool | None = None,
        since: Annotated[Moment | None, Query(description="Changed since then.")] = None,
        after: After = None,
        limit: Limit = 50,
    ) -> Page[Case]:
        """Cases in the order of their making."""

        def read() -> Page[Case]:
            with gateway.store.read(who.tenant, who.actor, paged=True) as scope:
                rows = cases.listed(
                    scope,
                    status=status,
                    task=task,
                    key=key,
                    rejected=rejected,
                    since=since,
                    after=start_of(after),
                    limit=limit + 1,
                )
                return page_of(scope, rows, limit, _shown, lambda row: int(row.number))

        return await gateway.run(read)

    @router.get("/v1/cases/{case_id}", responses=refusals(404))
    @allow(Role.REVIEWER)
    async def get_case(who: Who, case_id: Id) -> Whole:
        """One case, with its entries and rejections. ``case_id`` is its ``id``, not the app's ``key``."""

        def read() -> Whole:
            with gateway.store.read(who.tenant, who.actor) as scope:
                row = cases.by_id(scope, str(case_id))
                said, against = cases.entries(scope, row.key), cases.rejections(scope, row.key)
                pictures = {image.id for image in images.of_case(scope, row.key)} | {row.image_id} - {None}
                return Whole(
                    **_shown(row).model_dump(),
                    entries=[CaseEntry.model_validate(item, from_attributes=True) for item in said],
                    rejections=[Rejection.model_validate(item, from_attributes=True) for item in against],
                    images=sorted(uuid.UUID(item) for item in pictures if item),
                )

        return await gateway.run(read)


def _shown(row: Any) -> Case:
    return Case.model_validate(row, from_attributes=True)
