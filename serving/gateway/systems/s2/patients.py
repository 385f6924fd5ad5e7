"""``/patients/``."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from serving.gateway.access import Role
from serving.gateway.gateway import Gateway
from serving.gateway.once import Once, respond
from serving.gateway.openapi import KEYED, ONCE, errors
from serving.gateway.routing import Who, allow
from serving.gateway.store.checks import check_value
from serving.gateway.store.repositories import patients
from serving.gateway.store.tables import Patient
from serving.gateway.store.types import about

_MOST = 1000
#: ISO 8601 with the zone.
Moment = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
PatientId = Annotated[str, Path(max_length=200, description="The id that POST /patients/ gave.")]


class PatientIn(BaseModel):
    """A patient as an app knows them. Only the name is needed; further fields are passed over."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"name": "Ada L.", "age": 61, "email": "ada@example.org", "phone": "+44 20 7946 0000"}
        }
    )

    name: str = Field(min_length=1, max_length=500, pattern=r"\S")
    age: int | None = Field(None, ge=0, le=150)
    email: str | None = Field(None, max_length=320)
    phone: str | None = Field(None, max_length=64)
    medical_history: str | None = Field(None, max_length=100_000)


class PatientOut(BaseModel):
    """The same, with its id."""

    id: str
    name: str
    age: int | None
    email: str | None
    phone: str | None
    medical_history: str | None
    created_at: Moment
    updated_at: Moment


def shown(row: Patient) -> dict[str, Any]:
    """A patient as the contract shows one."""
    return {
        "id": row.id,
        "name": row.name,
        "age": row.age,
        "email": row.email,
        "phone": row.phone,
        "medical_history": row.medical_history,
        "created_at": row.created_at.isoformat(),
        "updated_at": row.updated_at.isoformat(),
    }


def add_routes(router: APIRouter, gateway: Gateway) -> None:
    """Add them, each also without its last slash."""
    hours = gateway.settings.idempotency_hours

    @router.post("/patients", include_in_schema=False)
    @router.post("/patients/", response_model=PatientOut, responses=errors(*ONCE), openapi_extra=KEYED)
    @allow(Role.APP)
    async def add_patient(request: Request, who: Who, given: PatientIn) -> Response:
        """Note a patient."""
        said = given.model_dump()
        check_value(said, "the patient")
        once = Once.of(request, who, said, hours=hours)

        def write() -> Any:
            with gateway.store.write(who.tenant, who.actor) as scope:
                if (earlier := once.claim(scope)) is not None:
                    return earlier
                row = patients.add(scope, **said)
                return once.answer(scope, 200, shown(row), about=about("patient", row.id))

        return respond(await gateway.run(write))

    @router.get("/patients", include_in_schema=False)
    @router.get("/patients/", response_model=list[PatientOut])
    @allow(Role.APP)
    async def list_patients(
        who: Who,
        skip: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
        limit: Annotated[int, Query(ge=0, le=_MOST)] = 10,
    ) -> Response:
        """Patients in the order of their making."""

        def read() -> list[dict[str, Any]]:
            with gateway.store.read(who.tenant, who.actor) as scope:
                return [shown(row) for row in patients.listed(scope, skip=skip, limit=limit)]

        return JSONResponse(await gateway.run(read))

    @router.get("/patients/{patient_id}/", include_in_schema=False)
    @router.get("/patients/{patient_id}", response_model=PatientOut, responses=errors(404))
    @allow(Role.APP)
    async def get_patient(who: Who, patient_id: PatientId) -> Response:
        """One patient."""

        def read() -> dict[str, Any]:
            with gateway.store.read(who.tenant, who.actor) as scope:
                return shown(patients.get(scope, patient_id))

        return JSONResponse(await gateway.run(read))
