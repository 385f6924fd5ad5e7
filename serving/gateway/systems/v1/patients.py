"""``/v1/patients``."""

from __future__ import annotations

import datetime as dt
import uuid
from functools import partial
from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from starlette.requests import Request

from serving.gateway.access import Role
from serving.gateway.gateway import Gateway
from serving.gateway.once import Once
from serving.gateway.openapi import KEYED, ONCE
from serving.gateway.routing import Who, allow
from serving.gateway.store.checks import check_value
from serving.gateway.store.repositories import patients
from serving.gateway.store.repositories.idempotency import Answer
from serving.gateway.store.tables import Patient as Row
from serving.gateway.store.types import about
from serving.gateway.systems.v1.common import (
    VISIBLE,
    After,
    Id,
    In,
    Limit,
    Page,
    made,
    no_text,
    page_of,
    refusals,
    start_of,
)
from serving.gateway.systems.v1.erasures import Erasure, Reason, reported


class PatientIn(In):
    """A patient. Only the name is needed."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"name": "Ada L.", "age": 61, "email": "ada@example.org"}}
    )

    name: str = Field(min_length=1, max_length=500, pattern=VISIBLE)
    age: Annotated[int | None, BeforeValidator(no_text)] = Field(None, ge=0, le=150)
    email: str | None = Field(None, max_length=320)
    phone: str | None = Field(None, max_length=64)
    medical_history: str | None = Field(None, max_length=100_000)


class Patient(BaseModel):
    """A patient, as noted."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": "0b9f3c1e-6a1d-4b7a-8a52-2f1c9d7e5a10",
                "name": "Ada L.",
                "age": 61,
                "email": "ada@example.org",
                "phone": None,
                "medical_history": None,
                "created_at": "2026-11-20T10:15:30.123456Z",
                "updated_at": "2026-11-20T10:15:30.123456Z",
            }
        }
    )

    id: uuid.UUID
    name: str
    age: int | None
    email: str | None
    phone: str | None
    medical_history: str | None
    created_at: dt.datetime
    updated_at: dt.datetime


def add_routes(router: APIRouter, gateway: Gateway) -> None:
    """Add them."""

    @router.post("/v1/patients", status_code=201, responses=refusals(*ONCE), openapi_extra=KEYED)
    @allow(Role.APP)
    async def add_patient(request: Request, who: Who, given: PatientIn) -> Patient:
        """Note a patient."""
        said = given.model_dump()
        check_value(said, "the patient")
        once = Once.of(request, who, said, hours=gateway.settings.idempotency_hours)

        def write() -> Answer:
            with gateway.store.write(who.tenant, who.actor) as scope:
                if (earlier := once.claim(scope)) is not None:
                    return earlier
                row = patients.add(scope, **said)
                return once.answer(scope, 201, {"id": row.id}, about=about("patient", row.id))

        return await gateway.run(one, who.tenant, made(await gateway.run(write)))

    @router.get("/v1/patients")
    @allow(Role.APP)
    async def list_patients(who: Who, after: After = None, limit: Limit = 50) -> Page[Patient]:
        """Patients in the order of their making."""

        def read() -> Page[Patient]:
            with gateway.store.read(who.tenant, who.actor, paged=True) as scope:
                rows = patients.listed(scope, after=start_of(after), limit=limit + 1)
                return page_of(scope, rows, limit, _shown, lambda row: int(row.number))

        return await gateway.run(read)

    @router.get("/v1/patients/{patient_id}", responses=refusals(404))
    @allow(Role.APP)
    async def get_patient(who: Who, patient_id: Id) -> Patient:
        """One patient."""
        return await gateway.run(one, who.tenant, str(patient_id))

    @router.delete("/v1/patients/{patient_id}", responses=refusals(404))
    @allow(Role.ADMIN)
    async def erase_patient(
        who: Who,
        patient_id: Id,
        reason: Reason = "asked for by DELETE /v1/patients",
    ) -> Erasure:
        """Erase a patient: scans, images, overlays, predictions, cases, labels, answers. It can't be undone.

        ``finished`` is false where bytes could not be reached yet: the gateway goes on with it by itself.
        """
        erase = partial(gateway.eraser.patient, actor=who.actor, reason=reason)
        report = await gateway.run(erase, who.tenant, str(patient_id))
        return await gateway.run(reported, gateway, who.tenant, report.erasure_id)

    def one(tenant: str, patient_id: str) -> Patient:
        with gateway.store.read(tenant) as scope:
            return _shown(patients.get(scope, patient_id))


def _shown(row: Row) -> Patient:
    return Patient.model_validate(row, from_attributes=True)
