"""S3's routes. The analysis itself is a job: see ``work.py``."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from data.errors import Conflict, ImageTooLarge, NotAllowed, NotAnImage, NotFound, RequestError
from serving.gateway.access import Role
from serving.gateway.blobs.base import Kept
from serving.gateway.gateway import Gateway
from serving.gateway.once import Once, respond
from serving.gateway.openapi import KEYED, ONCE, errors
from serving.gateway.pictures import add_picture, checked, keep_picture
from serving.gateway.routing import Who, allow
from serving.gateway.store.repositories import jobs, scans
from serving.gateway.store.repositories.idempotency import Answer
from serving.gateway.store.scope import Scope
from serving.gateway.store.tables import Job, Scan
from serving.gateway.store.types import about, as_id, new_id
from serving.gateway.systems.s3.document import (
    Begun,
    History,
    NoResults,
    Results,
    State,
    Uploaded,
    results_of,
    state_of,
)
from serving.gateway.uploads import Picture, read_upload, upload_body

_FORMATS = ("jpeg", "png", "webp")
_MOST_BYTES = 5 * 2**20
_FILE = upload_body("The photograph of one face: JPEG, PNG or WebP, at most 5 MB.")
_FAILED = (400, 403, 404)
_UUID = "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"
#: Only said, and not held here: what is none is 400 to this service's clients, and would be 422.
_SHOWN = {"format": "uuid", "pattern": _UUID}
ScanId = Annotated[str, Path(description="The id that init gave.", json_schema_extra=_SHOWN)]
Skip = Annotated[int, Query(ge=0, le=2**31 - 1)]
Limit = Annotated[int, Query(ge=1, le=1000)]


def add_routes(router: APIRouter, gateway: Gateway, kind: str) -> None:
    """Add them. ``kind`` is the analysis's, as a job."""
    settings = gateway.settings

    @router.post(
        "/api/v1/scan/init",
        status_code=201,
        response_model=Begun,
        responses=errors(*ONCE),
        openapi_extra=KEYED,
    )
    @allow(Role.APP)
    async def init(request: Request, who: Who) -> Response:
        """Begin a scan."""
        once = Once.of(request, who, {}, hours=settings.idempotency_hours)

        def write() -> Answer:
            with gateway.store.write(who.tenant, who.actor) as scope:
                if (earlier := once.claim(scope)) is not None:
                    return earlier
                scan = scans.add(scope, system="s3", owner=who.subject)
                body = {
                    "scan_id": scan.id,
                    "status": scan.status,
                    "created_at": scan.created_at.isoformat(),
                }
                return once.answer(scope, 201, body, about=about("scan", scan.id))

        return respond(await gateway.run(write))

    @router.post(
        "/api/v1/scan/{scan_id}/upload",
        response_model=Uploaded,
        responses=errors(*_FAILED, *ONCE),
        openapi_extra={**_FILE, **KEYED},
    )
    @allow(Role.APP)
    async def upload(scan_id: ScanId, request: Request, who: Who) -> Response:
        """Send the photograph of a scan that is pending, or failed and is tried again; the analysis runs."""
        key = _id(scan_id)
        await gateway.run(_read, gateway, key, who)
        picture = await _picture(gateway, request)
        kept = await keep_picture(gateway, who.tenant, picture)
        image_id = new_id()
        url = await gateway.run(_url, gateway, kept, picture, image_id)
        once = Once.of(request, who, {"sha256": kept.sha256}, hours=settings.idempotency_hours)

        def write() -> tuple[Answer, Job | None]:
            with gateway.store.write(who.tenant, who.actor) as scope:
                scan = _own(scope, key, who)
                if (earlier := once.claim(scope)) is not None:
                    return earlier, None
                row = {"system": "s3", "owner": who.subject, "image_id": image_id}
                image = add_picture(scope, kept, picture, **row)
                try:
                    scan = scans.start(scope, scan.id, image.id)
                except Conflict:
                    raise RequestError(
                        f"The scan is {scan.status}; a photograph is taken while it is pending or failed.",
                        hint="Begin another scan: POST /api/v1/scan/init.",
                    ) from None
                name = about("scan", scan.id)
                job = jobs.add(scope, kind, name, {"scan_id": scan.id, "image_id": image.id})
                body = {
                    "scan_id": scan.id,
                    "status": scan.status,
                    "image_url": url,
                    "message": "The photograph is kept; its analysis runs.",
                }
                return once.answer(scope, 200, body, about=name), job

        answer, job = await gateway.run(write)
        if job is not None:
            gateway.jobs.submit(who.tenant, job)
        return respond(answer)

    @router.get("/api/v1/scan/history", response_model=History, response_model_exclude_none=True)
    @allow(Role.APP)
    async def history(who: Who, skip: Skip = 0, limit: Limit = 1000) -> dict[str, Any]:
        """One's own scans, newest first."""

        def read() -> list[dict[str, Any]]:
            with gateway.store.read(who.tenant, who.actor) as scope:
                found = scans.history(scope, owner=who.subject, system="s3", skip=skip, limit=limit)
                return [state_of(scan) for scan in found]

        return {"scans": await gateway.run(read)}

    @router.get(
        "/api/v1/scan/{scan_id}/status",
        response_model=State,
        response_model_exclude_none=True,
        responses=errors(*_FAILED),
    )
    @allow(Role.APP)
    async def status(scan_id: ScanId, who: Who) -> dict[str, Any]:
        """Where the scan is; why it failed."""
        return state_of(await gateway.run(_read, gateway, _id(scan_id), who))

    @router.get(
        "/api/v1/scan/{scan_id}/results",
        response_model=Results,
        responses={**errors(403, 404), 400: {"description": "There is no result.", "model": NoResults}},
    )
    @allow(Role.APP)
    async def results(scan_id: ScanId, who: Who) -> Response:
        """The result of a completed scan; 400 while there is none, and where it failed, with the reason."""
        scan = await gateway.run(_read, gateway, _id(scan_id), who)
        if scan.status != "completed":
            return JSONResponse(_no_result(scan), status_code=400)
        return JSONResponse(results_of(scan))


def _id(text: str) -> str:
    found = as_id(text)
    if found is None:
        raise RequestError("This is not a scan's id.", hint="It is the UUID that init gave.")
    return found


def _own(scope: Scope, scan_id: str, who: Who) -> Scan:
    scan = scans.get(scope, scan_id)
    if scan.system != "s3":
        raise NotFound("Scan not found")
    if scan.owner != who.subject:
        raise NotAllowed("This scan is another one's.")
    return scan


def _read(gateway: Gateway, scan_id: str, who: Who) -> Scan:
    with gateway.store.read(who.tenant, who.actor) as scope:
        return _own(scope, scan_id, who)


async def _picture(gateway: Gateway, request: Request) -> Picture:
    sent = await read_upload(request)
    if len(sent.data) > _MOST_BYTES:
        raise ImageTooLarge(f"The file has {len(sent.data):,} bytes; the limit is {_MOST_BYTES:,}.")
    picture = await checked(gateway, sent.data)
    if picture.format not in _FORMATS:
        raise NotAnImage(
            f"The image is {picture.format.upper()}; a scan takes JPEG, PNG and WebP.",
            hint="Convert it to JPEG.",
        )
    return picture


def _url(gateway: Gateway, kept: Kept, picture: Picture, image_id: str) -> str:
    """The photograph's address, made before its row: the image store is not asked within a transaction."""
    return gateway.blobs.url(
        kept.tenant,
        kept.sha256,
        media_type=picture.media_type,
        expires_s=gateway.settings.url_expires_s,
        filename=f"{image_id}.{picture.format}",
    )


def _no_result(scan: Scan) -> dict[str, Any]:
    if scan.failure is not None:
        return {
            "detail": f"The scan failed: {scan.failure['message']}",
            "status": scan.status,
            "reason": scan.failure,
        }
    return {"detail": f"The scan is {scan.status}: there is no result yet.", "status": scan.status}
