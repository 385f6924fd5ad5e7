"""S4, the PatchCore service, behind the gateway's door (contract S4)."""

from __future__ import annotations

from fastapi import APIRouter

from serving.gateway.errors import Wire, trace_shape
from serving.gateway.gateway import Gateway
from serving.gateway.routing import System, new_router
from serving.gateway.systems.s4 import routes
from serving.gateway.systems.s4.place import Place, Remote
from serving.gateway.systems.s4.service import Local

__all__ = ["SYSTEM"]

_PART = "s4"


def _build(gateway: Gateway) -> APIRouter:
    url = gateway.settings.anomaly_url
    place: Place = Remote(url, gateway) if url else Local(gateway)
    gateway.parts[_PART] = place
    router = new_router(gateway, SYSTEM)
    routes.add_routes(router, place)
    return router


async def _ready(gateway: Gateway) -> bool:
    place = gateway.parts.get(_PART)
    return isinstance(place, Place) and await place.ready()


def _translate(error: Exception, wire: Wire) -> Wire | None:
    # Its clients know 400 for everything that is wrong with a request.
    return Wire(400, wire.code, wire.message, wire.hint) if wire.status in (415, 422) else None


SYSTEM = System(
    "s4",
    "PatchCore anomaly service",
    _build,
    lambda _: (),
    shape=trace_shape,
    translate=_translate,
    limits_itself=True,
    ready=_ready,
)
