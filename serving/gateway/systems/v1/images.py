"""``/v1/images``."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from starlette.requests import Request

from serving.gateway.access import Role
from serving.gateway.access.gate import Identity
from serving.gateway.gateway import Gateway
from serving.gateway.once import Once
from serving.gateway.openapi import KEYED, ONCE
from serving.gateway.pictures import add_picture, checked, keep_picture, url_of
from serving.gateway.routing import Who, allow
from serving.gateway.store.repositories import patients
from serving.gateway.store.repositories.idempotency import Answer
from serving.gateway.store.tables import Image as Row
from serving.gateway.store.types import about
from serving.gateway.systems.v1.common import Id, made, refusals, seen_image
from serving.gateway.uploads import read_upload, upload_body

SYSTEM = "v1"
_PATIENT = {"patient_id": {"type": "string", "format": "uuid", "description": "Whose image it is."}}
_BODY = upload_body("The photograph: JPEG, PNG, BMP, WebP, TIFF or GIF.", fields=_PATIENT)
_ID = TypeAdapter(uuid.UUID)


class Image(BaseModel):
    """An image as it was sent, or an overlay made of one (``derived_from``).

    ``url`` gives its bytes to whoever has it, until it expires; ask again for another.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": "7d5b1f9e-4a6f-4d8e-9a55-0f6f2b1c3d4e",
                "kind": "original",
                "media_type": "image/jpeg",
                "width": 2048,
                "height": 1536,
                "bytes": 812345,
                "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                "patient_id": None,
                "derived_from": None,
                "created_at": "2026-11-20T10:15:30.123456Z",
                "url": "http://127.0.0.1:8000/files/…?expires=…&signature=…",
                "url_expires_at": "2026-11-20T11:15:30.123456Z",
            }
        }
    )

    id: uuid.UUID
    kind: Literal["original", "overlay"]
    media_type: str
    width: int
    height: int
    bytes: int
    sha256: str
    patient_id: uuid.UUID | None
    derived_from: uuid.UUID | None
    created_at: dt.datetime
    url: str
    url_expires_at: dt.datetime


def shown(gateway: Gateway, row: Row) -> Image:
    """An image with an address. Blocks for S3: milliseconds."""
    expires = gateway.store.clock() + dt.timedelta(seconds=gateway.settings.url_expires_s)
    return Image(
        id=uuid.UUID(row.id),
        kind="overlay" if row.kind == "overlay" else "original",
        media_type=row.media_type,
        width=row.width,
        height=row.height,
        bytes=row.bytes,
        sha256=row.sha256,
        patient_id=_uuid(row.patient_id),
        derived_from=_uuid(row.derived_from),
        created_at=row.created_at,
        url=url_of(gateway, row),
        url_expires_at=expires,
    )


def one_id(name: str, *said: str | uuid.UUID | None) -> str | None:
    """The id that a form or a query says, whichever; None where neither does.

    Raises:
        RequestValidationError: it is no UUID, or they say two.
    """
    found: set[str] = set()
    for text in said:
        if text is None:
            continue
        try:
            found.add(str(_ID.validate_python(text)))
        except ValidationError:
            raise invalid(name, "Input should be a valid UUID") from None
    if len(found) > 1:
        raise invalid(name, "Said twice, and differently")
    return next(iter(found), None)


def invalid(name: str, message: str) -> RequestValidationError:
    """A field that isn't of its form."""
    return RequestValidationError([{"type": "value_error", "loc": ("body", name), "msg": message}])


def add_routes(router: APIRouter, gateway: Gateway) -> None:
    """Add them."""

    @router.post(
        "/v1/images",
        status_code=201,
        responses=refusals(404, 415, *ONCE),
        openapi_extra={**_BODY, **KEYED},
    )
    @allow(Role.APP, Role.REVIEWER)
    async def add_image(
        request: Request, who: Who, patient_id: Annotated[uuid.UUID | None, Query()] = None
    ) -> Image:
        """Keep an image as it is. ``patient_id`` is a field of the form, or in the query."""
        sent = await read_upload(request)
        patient = one_id("patient_id", patient_id, sent.fields.get("patient_id"))
        picture = await checked(gateway, sent.data)
        kept = await keep_picture(gateway, who.tenant, picture)
        said = {"sha256": kept.sha256, "patient_id": patient}
        once = Once.of(request, who, said, hours=gateway.settings.idempotency_hours)

        def write() -> Answer:
            with gateway.store.write(who.tenant, who.actor) as scope:
                if (earlier := once.claim(scope)) is not None:
                    return earlier
                whose: dict[str, Any] = {"system": SYSTEM, "owner": who.subject}
                if patient is not None:
                    whose["patient_id"] = patients.get(scope, patient).id
                row = add_picture(scope, kept, picture, **whose)
                return once.answer(scope, 201, {"id": row.id}, about=about("image", row.id))

        return await gateway.run(_one, gateway, who, made(await gateway.run(write)))

    @router.get("/v1/images/{image_id}", responses=refusals(404))
    @allow(Role.APP, Role.REVIEWER)
    async def get_image(who: Who, image_id: Id) -> Image:
        """An image, with an address that gives its bytes for a while."""
        return await gateway.run(_one, gateway, who, str(image_id))


def _one(gateway: Gateway, who: Identity, image_id: str) -> Image:
    with gateway.store.read(who.tenant, who.actor) as scope:
        row = seen_image(scope, who, image_id)
    return shown(gateway, row)


def _uuid(text: str | None) -> uuid.UUID | None:
    return uuid.UUID(text) if text is not None else None
