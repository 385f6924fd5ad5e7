"""S1, the skin and hair profile of one photograph (contract S1)."""

from __future__ import annotations

from fastapi import APIRouter

from data.errors import ImageError, NotGradable
from serving.gateway.errors import Wire, WrongType
from serving.gateway.gateway import Gateway
from serving.gateway.routing import System, new_router
from serving.gateway.systems.s1 import analyze
from serving.profile import TASK

__all__ = ["SYSTEM"]


def _build(gateway: Gateway) -> APIRouter:
    router = new_router(gateway, SYSTEM)
    analyze.add_routes(router, gateway)
    return router


def _translate(error: Exception, wire: Wire) -> Wire | None:
    # Its clients know 400 for every file that isn't a good image. One that is, and too poor for an answer,
    # keeps 422: sending it again, in another format for instance, would not help.
    if isinstance(error, NotGradable):
        return None
    if isinstance(error, ImageError | WrongType) and wire.status != 413:
        return Wire(400, wire.code, wire.message, wire.hint)
    return None


SYSTEM = System("s1", "Skin and hair profile", _build, lambda _: (TASK,), translate=_translate)
