"""The gateway's own routes: is it alive, what is ready, its counts, and images behind signed addresses."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from data.errors import NotFound, RetidermError
from serving.gateway.blobs.folder import FolderBlobs
from serving.gateway.gateway import Gateway
from serving.gateway.routing import Owner, System, claim_of, new_router, public

_FRESH_S = 1.0
_now = time.monotonic


def build(gateway: Gateway, systems: Mapping[str, System]) -> APIRouter:
    """The routes beside the systems'."""
    router = new_router(gateway, BASE)
    settings = gateway.settings
    store = Fresh(lambda: _store_ready(gateway))
    ready = {name: Fresh(partial(_ready, gateway, system)) for name, system in systems.items()}

    @router.get("/livez", summary="Is the process alive?")
    @public
    async def livez() -> dict[str, str]:
        return {"status": "alive"}

    @router.get("/readyz", summary="What is ready?", responses={503: {"description": "Nothing is."}})
    @public
    async def readyz() -> Response:
        """The store and the images, then each system: one whose models are away is unready by itself.

        Asked anew once a second at most, however many ask.
        """
        stored, *answers = await asyncio.gather(store.get(), *(each.get() for each in ready.values()))
        found = dict(zip(ready, answers, strict=True))
        status = "unready" if not stored else "ready" if all(found.values()) else "degraded"
        document: dict[str, Any] = {"status": status, "store": stored, "systems": found}
        return JSONResponse(document, status_code=200 if stored else 503)

    @router.get(
        "/readyz/{system}",
        summary="Is one system ready?",
        responses={404: {"description": "It is not served here."}, 503: {"description": "It is not."}},
    )
    @public
    async def readyz_of(system: str) -> Response:
        if system not in ready:
            raise NotFound("This gateway has no such system.")
        found = all(await asyncio.gather(store.get(), ready[system].get()))
        return JSONResponse({"status": "ready" if found else "unready"}, status_code=200 if found else 503)

    @router.get("/metrics", include_in_schema=False)
    @public
    async def metrics() -> Response:
        if settings.metrics_port is not None or not settings.on_loopback:
            # Whoever may ask for patients' images need not know how many there are.
            raise NotFound("The counts are not here.", hint="GATEWAY_METRICS_PORT says where.")
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    @router.get("/files/{tenant}/{sha256}", include_in_schema=False)
    @public
    async def files(tenant: str, sha256: str, request: Request) -> Response:
        query = dict(request.query_params)
        await claim_of(request).take(await gateway.run_images(_size, gateway, tenant, sha256, query))
        return await gateway.run_images(_file, gateway, tenant, sha256, query)

    return router


class Fresh:
    """An answer that is a second old at most. One asks, and whoever comes meanwhile waits for the same."""

    def __init__(self, ask: Callable[[], Coroutine[Any, Any, bool]], seconds: float = _FRESH_S) -> None:
        self._ask, self._seconds = ask, seconds
        self._asking: asyncio.Task[bool] | None = None
        self._until = 0.0

    async def get(self) -> bool:
        """The answer; what the asking raises."""
        if self._asking is None or (self._asking.done() and _now() >= self._until):
            self._asking = asyncio.create_task(self._once())
        # Shielded: a client that goes away must not end it for the others.
        return await asyncio.shield(self._asking)

    async def _once(self) -> bool:
        self._until = 0.0  # what it raises is nobody's but theirs who wait for it
        found = await self._ask()
        self._until = _now() + self._seconds
        return found


async def _store_ready(gateway: Gateway) -> bool:
    try:
        await gateway.run(gateway.store.check)
        await gateway.run_images(gateway.blobs.check)
    except RetidermError:
        return False
    return True


async def _ready(gateway: Gateway, system: System) -> bool:
    if system.ready is not None:
        return await system.ready(gateway)
    return all(await asyncio.gather(*(gateway.models.ready(task) for task in system.tasks(gateway))))


def _size(gateway: Gateway, tenant: str, sha256: str, query: dict[str, str]) -> int:
    """How much the image of a signed address will take."""
    blobs = gateway.blobs
    if not isinstance(blobs, FolderBlobs):
        return 0
    blobs.granted(tenant, sha256, query)
    return blobs.size(tenant, sha256) or 0


def _file(gateway: Gateway, tenant: str, sha256: str, query: dict[str, str]) -> Response:
    """An image in a folder, for whoever has its signed address. S3 has addresses of its own."""
    blobs = gateway.blobs
    if not isinstance(blobs, FolderBlobs):
        raise NotFound("Images are not here: ask for the scan or image again.")
    data, grant = blobs.opened(tenant, sha256, query)
    headers = {"Content-Security-Policy": "sandbox"}
    if grant.filename is not None:
        headers["Content-Disposition"] = f'inline; filename="{quote(grant.filename)}"'
    return Response(data, media_type=grant.media_type, headers=headers)


#: The gateway itself, for its errors and its counts.
BASE = Owner("gateway", "The gateway itself")
