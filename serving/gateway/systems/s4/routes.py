"""The four routes of contract S4. Who may use them is decided here; the place behind them does the rest."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from serving.gateway.access import Role
from serving.gateway.routing import Who, allow, public
from serving.gateway.systems.s4.place import Place
from serving.patchcore.openapi import CALIBRATE, FIT, HEALTH, INFER


def add_routes(router: APIRouter, place: Place) -> None:
    """Add them."""

    @router.get("/health", **HEALTH)
    @public
    async def health(request: Request) -> Response:
        """What serves, and on what device; 503 where nothing does."""
        return await place.answer(request, "/health", None)

    @router.head("/health", include_in_schema=False)
    @public
    async def alive(request: Request) -> Response:
        return await place.answer(request, "/health", None)

    @router.post("/fit_ok", **FIT)
    @allow(Role.APP)
    async def fit_ok(request: Request, who: Who) -> Response:
        """The new memory begins uncalibrated. Memories belong to the token's tenant."""
        return await place.answer(request, "/fit_ok", who.tenant)

    @router.post("/calibrate_ng", **CALIBRATE)
    @allow(Role.APP)
    async def calibrate_ng(request: Request, who: Who) -> Response:
        """The 99th percentile of the OK scores; with NG scores, the middle between both."""
        return await place.answer(request, "/calibrate_ng", who.tenant)

    @router.post("/infer", **INFER)
    @allow(Role.APP)
    async def infer(request: Request, who: Who) -> Response:
        """Before a calibration the threshold is null and there are no regions."""
        return await place.answer(request, "/infer", who.tenant)
