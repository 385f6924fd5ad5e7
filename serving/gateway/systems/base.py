"""The gateway's own routes: is it alive, what is ready, its counts, and images behind signed addresses."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from data.errors import NotFound, RetidermError
from serving.gateway.blobs.folder import FolderBlobs
from serving.gateway.gateway import Gateway
from serving.gateway.routing import System, new_router, public


def build(gateway: Gateway, systems: Mapping[str, System]) -> APIRouter:
    """The routes beside the systems'."""
    router = new_router(gateway, BASE)

    @router.get("/livez", summary="Is the process alive?")
    @public
    async def livez() -> dict[str, str]:
        return {"status": "alive"}

    @router.get("/readyz", summary="What is ready?", responses={503: {"description": "Nothing is."}})
    @public
    async def readyz() -> Response:
        """The store and the images, then each system: one whose models are away is unready by itself."""
        store = await _store_ready(gateway)
        ready = await asyncio.gather(*(_ready(gateway, system) for system in systems.values()))
        found = dict(zip(systems, ready, strict=True))
        status = "unready" if not store else "ready" if all(found.values()) else "degraded"
        document: dict[str, Any] = {"status": status, "store": store, "systems": found}
        return JSONResponse(document, status_code=200 if store else 503)

    @router.get(
        "/readyz/{system}",
        summary="Is one system ready?",
        responses={404: {"description": "It is not served here."}, 503: {"description": "It is not."}},
    )
    @public
    async def readyz_of(system: str) -> Response:
        if system not in systems:
            raise NotFound("This gateway has no such system.")
        ready = await _store_ready(gateway) and await _ready(gateway, systems[system])
        return JSONResponse({"status": "ready" if ready else "unready"}, status_code=200 if ready else 503)

    @router.get("/metrics", include_in_schema=False)
    @public
    async def metrics() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    @router.get("/files/{tenant}/{sha256}", include_in_schema=False)
    @public
    async def files(tenant: str, sha256: str, request: Request) -> Response:
        return await gateway.run_images(_file, gateway, tenant, sha256, dict(request.query_params))

    return router


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


def _never(gateway: Gateway) -> APIRouter:
    raise NotImplementedError("build() makes these routes, with the systems")


#: The gateway itself, for its errors and its counts.
BASE = System("gateway", "The gateway itself", _never, lambda _: ())
