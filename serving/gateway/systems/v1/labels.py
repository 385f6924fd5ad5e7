"""``/v1/labels``: what readers say of images."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.requests import Request

from data.errors import Conflict, NotAllowed
from serving.gateway.access import Role
from serving.gateway.gateway import Gateway
from serving.gateway.once import Once
from serving.gateway.openapi import KEYED, ONCE
from serving.gateway.routing import Who, allow
from serving.gateway.store.checks import check_value
from serving.gateway.store.repositories import labels
from serving.gateway.store.repositories.idempotency import Answer
from serving.gateway.store.types import about
from serving.gateway.systems.v1.common import (
    VISIBLE,
    After,
    Id,
    In,
    Limit,
    Page,
    Short,
    Task,
    made,
    one_of,
    page_of,
    refusals,
    start_of,
)

_Word = Annotated[str | None, Query(max_length=200)]


class LabelIn(In):
    """A reader's label for one head of an image: a class (``value``), or why it can't be graded."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {
                "image_id": "7d5b1f9e-4a6f-4d8e-9a55-0f6f2b1c3d4e",
                "task": "dr_grading",
                "head": "grade",
                "value": "mild",
            },
            "oneOf": one_of("value", "cannot_grade"),
        },
    )

    image_id: uuid.UUID
    task: Task
    head: Short
    value: Short | None = None
    cannot_grade: str | None = Field(None, min_length=1, max_length=500, pattern=VISIBLE)
    comment: str | None = Field(None, max_length=10_000)
    case_id: uuid.UUID | None = None
    prediction_id: uuid.UUID | None = None

    @model_validator(mode="after")
    def _one(self) -> LabelIn:
        if (self.value is None) == (self.cannot_grade is None):
            raise ValueError("say either value or cannot_grade")
        return self


class Label(BaseModel):
    """A label. One that was taken back stays, with ``withdrawn_at``."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": "c0d7c6de-1d9b-4f8a-9f5e-6b1a7f3a2b90",
                "image_id": "7d5b1f9e-4a6f-4d8e-9a55-0f6f2b1c3d4e",
                "case_id": None,
                "prediction_id": None,
                "task": "dr_grading",
                "head": "grade",
                "value": "mild",
                "cannot_grade": None,
                "comment": None,
                "reader": "dr-g",
                "source": "api",
                "created_at": "2026-11-20T10:15:30.123456Z",
                "withdrawn_at": None,
            }
        }
    )

    id: uuid.UUID
    image_id: uuid.UUID
    case_id: uuid.UUID | None
    prediction_id: uuid.UUID | None
    task: str
    head: str
    value: str | None
    cannot_grade: str | None
    comment: str | None
    reader: str
    source: str
    created_at: dt.datetime
    withdrawn_at: dt.datetime | None


def add_routes(router: APIRouter, gateway: Gateway) -> None:
    """Add them."""

    @router.post("/v1/labels", status_code=201, responses=refusals(404, *ONCE), openapi_extra=KEYED)
    @allow(Role.REVIEWER)
    async def add_label(request: Request, who: Who, given: LabelIn) -> Label:
        """Say what is on an image. Head and class are held against the model's, where one serves the task."""
        said = given.model_dump(mode="json")
        check_value(said, "the label")
        await _check(gateway, given)
        once = Once.of(request, who, said, hours=gateway.settings.idempotency_hours)

        def write() -> Answer:
            with gateway.store.write(who.tenant, who.actor) as scope:
                if (earlier := once.claim(scope)) is not None:
                    return earlier
                row = labels.add(scope, reader=who.subject, source="api", **said)
                return once.answer(scope, 201, {"id": row.id}, about=about("image", row.image_id))

        label_id = made(await gateway.run(write))

        def read() -> Label:
            with gateway.store.read(who.tenant, who.actor) as scope:
                return _shown(labels.get(scope, label_id))

        return await gateway.run(read)

    @router.get("/v1/labels", responses=refusals(404))
    @allow(Role.REVIEWER)
    async def list_labels(
        who: Who,
        image_id: Annotated[uuid.UUID | None, Query()] = None,
        task: _Word = None,
        reader: _Word = None,
        withdrawn: Annotated[bool, Query(description="Those that were taken back too.")] = False,
        after: After = None,
        limit: Limit = 50,
    ) -> Page[Label]:
        """Labels in the order of their making."""

        def read() -> Page[Label]:
            with gateway.store.read(who.tenant, who.actor, paged=True) as scope:
                rows = labels.listed(
                    scope,
                    image_id=str(image_id) if image_id is not None else None,
                    task=task,
                    reader=reader,
                    withdrawn=withdrawn,
                    after=start_of(after),
                    limit=limit + 1,
                )
                return page_of(scope, rows, limit, _shown, lambda row: int(row.number))

        return await gateway.run(read)

    @router.delete("/v1/labels/{label_id}", responses=refusals(404))
    @allow(Role.REVIEWER)
    async def withdraw_label(who: Who, label_id: Id) -> Label:
        """Take a label back: one's own, or any as an admin. It stays, marked so. Again is no error."""

        def write() -> Label:
            with gateway.store.write(who.tenant, who.actor) as scope:
                row = labels.get(scope, str(label_id))
                if who.role is not Role.ADMIN and row.reader != who.subject:
                    raise NotAllowed("This label is another reader's.")
                return _shown(labels.withdraw(scope, row.id))

        return await gateway.run(write)


async def _check(gateway: Gateway, given: LabelIn) -> None:
    """Refuse a head or class that the model of the task doesn't have; a task without a model takes any.

    Raises:
        Conflict: what is served has others.
    """
    said = await gateway.models.describe(given.task)
    classes = said.get("classes") if said is not None else None
    if not isinstance(classes, dict) or not classes:
        return
    if given.head not in classes:
        raise Conflict(f"{given.task} has the heads {', '.join(classes)}, not {given.head}.")
    if given.value is not None and given.value not in classes[given.head]:
        raise Conflict(f"{given.head} has the classes {', '.join(classes[given.head])}, not {given.value}.")


def _shown(row: Any) -> Label:
    return Label.model_validate(row, from_attributes=True)
