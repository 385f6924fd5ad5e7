"""S0, the camera app: an image's check, cases, rejections, and their export (contract S0)."""

from __future__ import annotations

from fastapi import APIRouter

from data.errors import ImageError
from serving.gateway.errors import Wire
from serving.gateway.gateway import Gateway
from serving.gateway.routing import System, new_router
from serving.gateway.systems.s0 import cases, check, export

__all__ = ["SYSTEM"]


def _build(gateway: Gateway) -> APIRouter:
    # Old clients' JSON may come without a Content-Type. Who may send it is decided at the door all the same.
    router = new_router(gateway, SYSTEM, strict_content_type=False)
    for part in (check, cases, export):
        part.add_routes(router, gateway)
    return router


def _translate(error: Exception, wire: Wire) -> Wire | None:
    # The app knows one word for every image that can't be used.
    return Wire(400, wire.code, "Invalid image file") if isinstance(error, ImageError) else None


SYSTEM = System(
    "s0",
    "Camera app: image check, cases, rejections",
    _build,
    lambda gateway: gateway.settings.check_image_tasks,
    headers=("x-api-key", "authorization"),
    refusal="Invalid API key",
    translate=_translate,
)
