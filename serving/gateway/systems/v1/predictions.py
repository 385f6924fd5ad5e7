"""``/v1/predictions``: ask a model about an image, and what it said."""

from __future__ import annotations

import asyncio
import datetime as dt
import uuid
from dataclasses import dataclass, replace
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.exceptions import RequestValidationError
from pydantic import Field, ValidationError
from starlette.requests import Request

from data.errors import NotFound
from data.files import sha256_bytes
from serving.gateway.access import Role
from serving.gateway.access.gate import Identity
from serving.gateway.blobs.base import Kept
from serving.gateway.errors import NotServed
from serving.gateway.gateway import Gateway
from serving.gateway.held import Claim
from serving.gateway.loop.challenge import Kept as Compared
from serving.gateway.loop.keep import keep_answer
from serving.gateway.models import Answer as Said
from serving.gateway.once import Once
from serving.gateway.openapi import KEYED, MODEL, ONCE
from serving.gateway.pictures import add_picture, checked, keep_picture, url_of
from serving.gateway.routing import Who, allow, claim_of
from serving.gateway.store.repositories import cases, images, patients, predictions
from serving.gateway.store.repositories.idempotency import Answer
from serving.gateway.store.scope import Scope
from serving.gateway.store.tables import Image as ImageRow
from serving.gateway.store.tables import Prediction as Row
from serving.gateway.store.types import about
from serving.gateway.systems.v1.common import Id, In, Task, made, refusals, seen_image
from serving.gateway.systems.v1.images import SYSTEM
from serving.gateway.systems.v1.said import Anomaly, AnsweringModel, Head, Overlay, Prediction, Quality, Trace
from serving.gateway.uploads import Picture, read_upload, upload_body

# Where an answer's document names the overlay's image.
_OVERLAY = "overlay_image_id"


class PredictionIn(In):
    """What to ask: an image that is kept already, or one that comes with the request."""

    task: Task
    image_id: uuid.UUID | None = None
    explain: bool = Field(False, description="An overlay that shows what the answer rests on.")
    patient_id: uuid.UUID | None = Field(None, description="Whose image it is, where that isn't noted yet.")


_PROPERTIES = {
    "task": {"type": "string", "pattern": "^[a-z][a-z0-9_]{0,63}$"},
    "explain": {"type": "boolean"},
    "patient_id": {"type": "string", "format": "uuid"},
}
_BODY = upload_body("The image: JPEG, PNG, BMP, WebP, TIFF or GIF.", fields=_PROPERTIES)
_KEPT = {
    "type": "object",
    "properties": {
        **_PROPERTIES,
        "image_id": {"type": "string", "format": "uuid"},
        "patient_id": {"anyOf": [_PROPERTIES["patient_id"], {"type": "null"}]},
    },
    "required": ["task", "image_id"],
    "additionalProperties": False,
    "example": {"task": "dr_grading", "image_id": "7d5b1f9e-4a6f-4d8e-9a55-0f6f2b1c3d4e", "explain": True},
}
_BODY["requestBody"]["content"]["application/json"] = {"schema": _KEPT}


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, read. ``data`` is the image that came with it, None where it names one."""

    task: str
    explain: bool
    image_id: str | None
    patient_id: str | None
    data: bytes | None

    @property
    def said(self) -> dict[str, Any]:
        """What it asks, for its idempotency key."""
        image = self.image_id if self.data is None else sha256_bytes(self.data)
        return {"task": self.task, "explain": self.explain, "patient_id": self.patient_id, "image": image}


@dataclass(frozen=True, slots=True)
class Known:
    """What is there already: ids as we write them, the image's row, an earlier answer."""

    patient_id: str | None
    image: ImageRow | None
    earlier: Answer | None


def add_routes(router: APIRouter, gateway: Gateway) -> None:
    """Add them."""
    hours = gateway.settings.idempotency_hours

    @router.post(
        "/v1/predictions",
        status_code=201,
        responses=refusals(404, *MODEL, *ONCE),
        openapi_extra={**_BODY, **KEYED},
    )
    @allow(Role.APP, Role.REVIEWER)
    async def add_prediction(
        request: Request,
        who: Who,
        task: Annotated[Task | None, Query(description="Where the body is an image.")] = None,
        explain: Annotated[bool | None, Query()] = None,
        patient_id: Annotated[uuid.UUID | None, Query()] = None,
    ) -> Prediction:
        """Ask a task's model about an image: one that is kept (JSON), or one that comes with the request.

        A form has the image in ``file``, and the other fields; an image as the body has them in the query.
        An image that can't be graded has an answer too: its verdict, and no heads.
        """
        query = {"task": task, "explain": explain, "patient_id": patient_id}
        asked = await read_asked(request, {k: v for k, v in query.items() if v is not None})
        once = Once.of(request, who, asked.said, hours=hours)
        known = await gateway.run(_look, gateway, who, asked, once)
        answer = known.earlier or await _answer(gateway, who, asked, known, once, claim_of(request))
        return await gateway.run(_one, gateway, who, made(answer))

    @router.get("/v1/predictions/{prediction_id}", responses=refusals(404))
    @allow(Role.APP, Role.REVIEWER)
    async def get_prediction(who: Who, prediction_id: Id) -> Prediction:
        """One prediction, as it was answered."""
        return await gateway.run(_one, gateway, who, str(prediction_id))

    @router.get("/v1/predictions/{prediction_id}/trace", responses=refusals(404))
    @allow(Role.APP, Role.REVIEWER)
    async def get_trace(who: Who, prediction_id: Id) -> Trace:
        """Everything behind one answer, down to the data and the code that made the model."""

        def read() -> Trace:
            with gateway.store.read(who.tenant, who.actor) as scope:
                row = _given(scope, str(prediction_id))
                seen_image(scope, who, row.image_id)
                return Trace.model_validate(predictions.trace(scope, row.id))

        return await gateway.run(read)


async def read_asked(request: Request, query: dict[str, Any]) -> Asked:
    """The request in any of its forms: JSON, a form, an image with a query. A body's word goes before.

    Raises:
        RequestValidationError: a field is missing, unknown or not of its form.
        RequestError: a form without its file, or damaged.
        WrongType: the body is neither.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    data: bytes | None = None
    try:
        if kind == "application/json":
            # Strictly: a JSON has types of its own, unlike a form or a query.
            given = PredictionIn.model_validate_json(await request.body(), strict=True)
            asked = PredictionIn.model_validate({**query, **given.model_dump(exclude_unset=True)})
        else:
            sent = await read_upload(request)
            data = sent.data
            fields = {key: value for key, value in sent.fields.items() if key != "image_id"}
            asked = PredictionIn.model_validate({**query, **fields})
    except ValidationError as error:
        raise RequestValidationError(
            [{**item, "loc": ("body", *item["loc"])} for item in error.errors(include_input=False)]
        ) from None
    if data is None and asked.image_id is None:
        raise RequestValidationError(
            [{"type": "missing", "loc": ("body", "image_id"), "msg": "Field required"}]
        )
    return Asked(asked.task, asked.explain, _text(asked.image_id), _text(asked.patient_id), data)


def _look(gateway: Gateway, who: Identity, asked: Asked, once: Once) -> Known:
    """Before a model takes its time: is everything there that is named?"""
    with gateway.store.read(who.tenant, who.actor) as scope:
        patient = patients.get(scope, asked.patient_id).id if asked.patient_id is not None else None
        image = seen_image(scope, who, asked.image_id) if asked.image_id is not None else None
        return Known(patient, image, once.find(scope))


async def _answer(
    gateway: Gateway, who: Identity, asked: Asked, known: Known, once: Once, claim: Claim
) -> Answer:
    picture: Picture | None = None
    if asked.data is not None:
        picture = await checked(gateway, asked.data)
        data = picture.data
    else:
        assert known.image is not None
        await claim.take(known.image.bytes)
        data = await gateway.run_images(gateway.blobs.get, who.tenant, known.image.sha256)
    try:
        whose = known.patient_id or (known.image.patient_id if known.image is not None else None)
        said = await gateway.challengers.ask(
            asked.task,
            data,
            key=whose or sha256_bytes(data),
            explain="overlay" if asked.explain else "",
        )
    except NotServed as error:
        raise NotFound(error.message, hint="GET /v1/models lists what is served.") from error
    kept, overlay = await asyncio.gather(_keep(gateway, who, picture), _keep_overlay(gateway, who, said))

    def write() -> tuple[Answer, Compared | None]:
        with gateway.store.write(who.tenant, who.actor) as scope:
            if (earlier := once.claim(scope)) is not None:
                return earlier, None
            row = _add(scope, gateway, who, asked, known, kept, overlay, said)
            answer = once.answer(scope, 201, {"id": row.id}, about=about("image", row.image_id))
            return answer, Compared(who.tenant, row.task, row.image_id, row.id, said)

    answer, to_compare = await gateway.run(write)
    if to_compare is not None:
        gateway.challengers.shadow(to_compare, data)
    return answer


def _add(
    scope: Scope,
    gateway: Gateway,
    who: Identity,
    asked: Asked,
    known: Known,
    kept: tuple[Kept, Picture] | None,
    overlay: tuple[Kept, Picture] | None,
    said: Said,
) -> Row:
    whose: dict[str, Any] = {"system": SYSTEM, "owner": who.subject}
    if kept is not None:
        image = add_picture(scope, *kept, **whose, patient_id=known.patient_id)
    else:
        assert asked.image_id is not None
        image = images.get(scope, asked.image_id)
        # What is made of another system's image is as much its owner's.
        whose = {"system": image.system, "owner": image.owner}
        if known.patient_id is not None:
            image = images.belong(scope, image.id, known.patient_id)
    if overlay is not None:
        picture = add_picture(
            scope, *overlay, **whose, kind="overlay", derived_from=image.id, patient_id=image.patient_id
        )
        said = replace(said, document={**said.document, _OVERLAY: picture.id})
    case = cases.find(scope, image.case_key) if image.case_key is not None else None
    return keep_answer(
        scope, gateway.policy, said, image_id=image.id, case_id=case.id if case is not None else None
    )


async def _keep(gateway: Gateway, who: Identity, picture: Picture | None) -> tuple[Kept, Picture] | None:
    return (await keep_picture(gateway, who.tenant, picture), picture) if picture is not None else None


async def _keep_overlay(gateway: Gateway, who: Identity, said: Said) -> tuple[Kept, Picture] | None:
    return await _keep(gateway, who, await checked(gateway, said.overlay) if said.overlay else None)


def _given(scope: Scope, prediction_id: str) -> Row:
    """A prediction that somebody was given: a challenger's in the shadow is shown to nobody."""
    row = predictions.get(scope, prediction_id)
    if not row.returned:
        raise NotFound("Prediction not found")
    return row


def _one(gateway: Gateway, who: Identity, prediction_id: str) -> Prediction:
    with gateway.store.read(who.tenant, who.actor) as scope:
        row = _given(scope, prediction_id)
        image = seen_image(scope, who, row.image_id)
        drawn = row.answer.get(_OVERLAY)
        overlay = images.get(scope, drawn) if drawn is not None else None
    return _shown(gateway, row, image, overlay)


def _shown(gateway: Gateway, row: Row, image: ImageRow, overlay: ImageRow | None) -> Prediction:
    expires = gateway.store.clock() + dt.timedelta(seconds=gateway.settings.url_expires_s)
    return Prediction(
        id=uuid.UUID(row.id),
        created_at=row.created_at,
        image_id=uuid.UUID(row.image_id),
        patient_id=uuid.UUID(image.patient_id) if image.patient_id is not None else None,
        task=row.task,
        quality=Quality(verdict=row.verdict, reasons=row.reasons),
        heads={name: Head.model_validate(head) for name, head in row.answer.get("heads", {}).items()},
        anomaly=Anomaly.model_validate(row.answer["anomaly"]) if "anomaly" in row.answer else None,
        uncertain=row.uncertain or row.verdict != "gradable",
        overlay=Overlay(image_id=uuid.UUID(overlay.id), url=url_of(gateway, overlay), url_expires_at=expires)
        if overlay is not None
        else None,
        model=AnsweringModel(
            task=row.task,
            name=row.model_name,
            version=row.model_version,
            precision=row.precision,
            digest=row.bundle_digest,
            dataset_digest=row.dataset_digest,
            code_digest=row.code_digest,
        ),
        trace=f"/v1/predictions/{row.id}/trace",
    )


def _text(found: uuid.UUID | None) -> str | None:
    return str(found) if found is not None else None
