"""``/health``, ``/predict/`` and a patient's history."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from data.errors import NotFound, NotGradable
from data.files import sha256_bytes
from serving.gateway.access import Role
from serving.gateway.access.gate import Identity
from serving.gateway.blobs.base import Kept as Bytes
from serving.gateway.errors import Gone
from serving.gateway.gateway import VERSION, Gateway
from serving.gateway.loop.challenge import Kept
from serving.gateway.loop.keep import glance_at, keep_answer
from serving.gateway.models import Answer
from serving.gateway.once import Once
from serving.gateway.openapi import KEYED, MODEL, ONCE, errors
from serving.gateway.pictures import add_picture, checked, keep_picture, url_of
from serving.gateway.routing import Who, allow, public
from serving.gateway.store.repositories import images, patients, scans
from serving.gateway.store.repositories.idempotency import Answer as Said
from serving.gateway.store.scope import Scope
from serving.gateway.store.tables import Image, Scan
from serving.gateway.store.types import about
from serving.gateway.systems.s2.grade import SEVERITIES, TASK, grade
from serving.gateway.systems.s2.patients import Moment, PatientId
from serving.gateway.systems.s2.request import FORM, Asked, read_asked
from serving.gateway.uploads import Picture, read_upload

_SYSTEM = "s2"
_ALL = 1000


class Health(BaseModel):
    """``degraded`` where no model answers; patients and histories are there all the same."""

    status: str
    version: str
    model_loaded: bool


class Graded(BaseModel):
    """An examination. ``image_url`` and ``heatmap_url`` work with a plain GET until they expire."""

    scan_id: str
    patient_id: str
    dr_severity: str
    confidence_score: float
    heatmap_url: str | None
    image_url: str
    scan_timestamp: Moment
    visit_type: str
    grade: int
    probabilities: dict[str, float]
    uncertain: bool
    notes: str | None


class Past(BaseModel):
    """An examination in a history."""

    id: str
    patient_id: str
    dr_severity: str
    confidence_score: float
    scan_timestamp: Moment
    visit_type: str
    image_url: str
    heatmap_url: str | None
    grade: int
    uncertain: bool
    notes: str | None


def add_routes(router: APIRouter, gateway: Gateway) -> None:
    """Add them."""
    hours = gateway.settings.idempotency_hours

    @router.get("/health")
    @public
    async def health() -> Health:
        """Whether photographs are graded now."""
        loaded = await gateway.models.ready(TASK)
        return Health(status="healthy" if loaded else "degraded", version=VERSION, model_loaded=loaded)

    @router.post("/predict", include_in_schema=False)
    @router.post(
        "/predict/",
        response_model=Graded,
        responses=errors(404, *ONCE, *MODEL),
        openapi_extra={**FORM, **KEYED},
    )
    @allow(Role.APP)
    async def predict(request: Request, who: Who) -> Response:
        """Grade a fundus photograph of a patient.

        `patient_id`, `visit_type` and `notes` may be query parameters instead of form fields; the image may
        then be the body itself, with its own Content-Type. A photograph that can't be graded is 400, and the
        detail says why; it is not kept, nor whose it was.
        """
        sent = await read_upload(request)
        asked = read_asked(request.query_params, sent.fields)
        picture = await checked(gateway, sent.data)
        said = [sha256_bytes(picture.data), asked.patient_id, asked.visit_type, asked.notes]
        once = Once.of(request, who, said, hours=hours)

        def look() -> tuple[str, Said | None]:
            """The patient's id as we write it, before a model takes its time; and an earlier answer."""
            with gateway.store.read(who.tenant, who.actor) as scope:
                return patients.get(scope, asked.patient_id).id, once.find(scope)

        patient_id, earlier = await gateway.run(look)
        done = earlier or await _examine(gateway, who, once, asked, patient_id, picture)
        if done.body is None:
            raise Gone("What this request made was erased since.", hint="Use another Idempotency-Key.")
        # The answer is put together anew, so that a repeated request gets addresses that still work.
        shown = await gateway.run(_one, gateway, who.tenant, done.body["scan_id"])
        return JSONResponse(shown, status_code=done.status)

    @router.get("/predict/patient/{patient_id}/history/", include_in_schema=False)
    @router.get("/predict/patient/{patient_id}/history", response_model=list[Past], responses=errors(404))
    @allow(Role.APP)
    async def history(
        who: Who,
        patient_id: PatientId,
        skip: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
        limit: Annotated[int, Query(ge=0, le=_ALL)] = _ALL,
    ) -> Response:
        """A patient's examinations, newest first."""
        return JSONResponse(await gateway.run(_past, gateway, who.tenant, patient_id, skip, limit))


async def _examine(
    gateway: Gateway, who: Identity, once: Once, asked: Asked, patient_id: str, picture: Picture
) -> Said:
    """Have the photograph graded, and keep it with everything that was said of it."""
    answer = await gateway.challengers.ask(TASK, picture.data, key=patient_id, explain="overlay")
    try:
        result = grade(answer)
    except NotGradable:
        await gateway.run(glance_at, gateway.store, who.tenant, who.actor, answer)
        raise
    kept, overlay = await asyncio.gather(
        keep_picture(gateway, who.tenant, picture), _keep_overlay(gateway, who.tenant, answer)
    )

    def write() -> tuple[Said, Kept | None]:
        with gateway.store.write(who.tenant, who.actor) as scope:
            if (before := once.claim(scope)) is not None:
                return before, None
            whose: dict[str, Any] = {"system": _SYSTEM, "owner": who.subject, "patient_id": patient_id}
            image = add_picture(scope, kept, picture, **whose)
            heat = None
            if overlay is not None:
                heat = add_picture(scope, *overlay, kind="overlay", derived_from=image.id, **whose)
            scan = _add(scope, asked, image, heat, result)
            row = keep_answer(scope, gateway.policy, answer, image_id=image.id, scan_id=scan.id)
            said = once.answer(scope, 200, {"scan_id": scan.id}, about=about("scan", scan.id))
            return said, Kept(who.tenant, TASK, image.id, row.id, answer)

    said, to_compare = await gateway.run(write)
    if to_compare is not None:
        gateway.challengers.shadow(to_compare, picture.data)
    return said


def _add(scope: Scope, asked: Asked, image: Image, heat: Image | None, result: dict[str, Any]) -> Scan:
    return scans.add(
        scope,
        system=_SYSTEM,
        owner=image.owner,
        patient_id=image.patient_id,
        image_id=image.id,
        overlay_id=heat.id if heat is not None else None,
        status="completed",
        visit_type=asked.visit_type,
        notes=asked.notes,
        result=result,
    )


async def _keep_overlay(gateway: Gateway, tenant: str, answer: Answer) -> tuple[Bytes, Picture] | None:
    """The heatmap over the photograph, as the model's server drew it; None where it draws none."""
    if not answer.overlay:
        return None
    picture = await checked(gateway, answer.overlay)
    return await keep_picture(gateway, tenant, picture), picture


def _one(gateway: Gateway, tenant: str, scan_id: str) -> dict[str, Any]:
    with gateway.store.read(tenant) as scope:
        scan = scans.get(scope, scan_id)
        found = _images(scope, [scan])
    shown = _shown(gateway, scan, found)
    if shown is None:
        raise NotFound("Scan not found")
    shown["scan_id"] = shown.pop("id")
    # PostgreSQL keeps a document's keys in an order of its own.
    kept = dict(scan.result or {})["probabilities"]
    return {**shown, "probabilities": {name: kept[name] for name in SEVERITIES}}


def _past(gateway: Gateway, tenant: str, patient_id: str, skip: int, limit: int) -> list[dict[str, Any]]:
    with gateway.store.read(tenant) as scope:
        rows = scans.history(scope, patient_id=patient_id, system=_SYSTEM, skip=skip, limit=limit)
        found = _images(scope, rows)
    # Addresses are made outside of the transaction, though S3's need no request.
    told = (_shown(gateway, scan, found) for scan in rows)
    return [shown for shown in told if shown is not None]


def _images(scope: Scope, rows: Sequence[Scan]) -> dict[str, Image]:
    # Halves, since a query asks for a thousand ids at most and a scan has two.
    originals = images.by_id(scope, [row.image_id for row in rows if row.image_id is not None])
    return originals | images.by_id(scope, [row.overlay_id for row in rows if row.overlay_id is not None])


def _shown(gateway: Gateway, scan: Scan, found: dict[str, Image]) -> dict[str, Any] | None:
    """A scan as a history shows it; None where an erasure took it between two looks."""
    image, heat = found.get(scan.image_id or ""), found.get(scan.overlay_id or "")
    if image is None or scan.result is None:
        return None
    return {
        "id": scan.id,
        "patient_id": scan.patient_id,
        "dr_severity": scan.result["dr_severity"],
        "confidence_score": scan.result["confidence_score"],
        "scan_timestamp": scan.created_at.isoformat(),
        "visit_type": scan.visit_type,
        "image_url": url_of(gateway, image),
        "heatmap_url": url_of(gateway, heat) if heat is not None else None,
        "grade": scan.result["grade"],
        "uncertain": scan.result["uncertain"],
        "notes": scan.notes,
    }
