"""The routes of contract S4. Mount them in any application: they bring limits and error shape along."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from serving.patchcore.answers import route_class
from serving.patchcore.asked import calibrate_asked, fit_asked, infer_asked
from serving.patchcore.body import chunks
from serving.patchcore.desk import Deadline, Desk
from serving.patchcore.form import Form, read_form
from serving.patchcore.openapi import CALIBRATE, FIT, HEALTH, INFER
from serving.patchcore.service import Service
from serving.patchcore.timing import Stopwatch


def build_router(service: Service) -> APIRouter:
    """``/health``, ``/fit_ok``, ``/calibrate_ng`` and ``/infer`` of one service, which the caller closes."""
    limits = service.settings.limits
    router = APIRouter(route_class=route_class(service.reporter), tags=["patchcore"])

    async def form_of(request: Request, desk: Desk, limit: int) -> Form:
        body = chunks(request, limit, limits.upload_s)
        return await read_form(request.headers.get("content-type", ""), body, limits, desk.offload)

    @router.get("/health", **HEALTH)
    async def health() -> Response:
        return JSONResponse(service.health())

    @router.head("/health", include_in_schema=False)
    async def alive() -> Response:
        return Response()

    @router.post("/fit_ok", **FIT)
    async def fit_ok(request: Request) -> Response:
        desk = service.fits
        with desk.admit():
            watch = Stopwatch()
            with await form_of(request, desk, limits.max_fit_bytes) as form:
                watch.mark("receive")
                asked = fit_asked(form)
                answer = await desk.run(service.fit, Deadline(limits.fit_s), asked, form, watch)
        return JSONResponse(answer)

    @router.post("/calibrate_ng", **CALIBRATE)
    async def calibrate_ng(request: Request) -> Response:
        desk = service.desk
        pieces = [piece async for piece in chunks(request, limits.max_body_bytes, limits.upload_s)]
        with desk.admit():
            answer = await desk.run(_calibrate, Deadline(limits.infer_s), service, b"".join(pieces))
        return JSONResponse(answer)

    @router.post("/infer", **INFER)
    async def infer(request: Request) -> Response:
        desk, watch = service.desk, Stopwatch()
        # A place is taken when the body is here: a client that sends slowly keeps nobody else waiting.
        with await form_of(request, desk, limits.max_body_bytes) as form, desk.admit():
            watch.mark("receive")
            asked = infer_asked(form)
            answer = await desk.run(service.infer, Deadline(limits.infer_s), asked, form, watch)
        return Response(answer, media_type="application/json")

    return router


def _calibrate(deadline: Deadline, service: Service, body: bytes) -> Mapping[str, Any]:
    # A body of megabytes is parsed on the thread as well.
    return service.calibrate(deadline, calibrate_asked(body, service.settings.limits))
