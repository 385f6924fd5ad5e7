"""The application: the chosen systems' routes, each with its own errors and access, on one port.

A path that two systems have (``/health``) is reached by their prefixes only, ``/s0/health``; every other one
has both addresses.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import compile_path
from starlette.types import ASGIApp

from data.errors import UsageError
from serving.gateway import docs_page
from serving.gateway.front import Front
from serving.gateway.gateway import VERSION, Gateway
from serving.gateway.once import HEADER as IDEMPOTENCY
from serving.gateway.openapi import finish
from serving.gateway.routing import Owner, System
from serving.gateway.settings import Settings
from serving.gateway.systems import all_systems, base


def create_app(
    settings: Settings | None = None,
    *,
    systems: Iterable[str] | None = None,
    gateway: Gateway | None = None,
) -> FastAPI:
    """The gateway as an ASGI application; ``app.state.gateway`` is what its routes share.

    ``systems`` are names (``s0`` to ``s4``, ``v1``), by default the settings'. Without a ``gateway`` one is
    opened by ``settings`` (by default the environment's); either way the application's end closes it.

    Raises:
        UsageError: there is no such system.
        StoreError: the database or the image store can't be reached.
    """
    known = all_systems()
    opened = gateway or Gateway(settings or Settings.from_env())
    names = tuple(dict.fromkeys(systems or opened.settings.systems))
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise UsageError(
            f"There is no system {', '.join(unknown) or '(none was named)'}.",
            hint=f"Known: {', '.join(known)}.",
        )
    served = {name: known[name] for name in names}

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await opened.start()
        try:
            yield
        finally:
            await opened.stop()

    app = FastAPI(
        title="retiderm gateway",
        description="Retina and skin models over the REST that apps know. docs/gateway.md says more.",
        version=VERSION,
        lifespan=lifespan,
        # docs_page.py has them, behind the same door as every other route.
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        # A redirect would send a form again to an address with another meaning.
        redirect_slashes=False,
    )
    app.state.gateway = opened
    app.state.systems = served
    _include(app, opened, served)
    _catch(app, served)
    app.openapi = lambda: _document(app)  # type: ignore[method-assign]
    return app


def _include(app: FastAPI, gateway: Gateway, served: Mapping[str, System]) -> None:
    app.include_router(base.build(gateway, served))
    app.include_router(docs_page.build(gateway, app))
    routers = {name: system.build(gateway) for name, system in served.items()}
    routes = {name: [r for r in router.routes if isinstance(r, APIRoute)] for name, router in routers.items()}
    paths = Counter(path for found in routes.values() for path in {route.path for route in found})
    for name in routers:
        shared = {route.path for route in routes[name] if paths[route.path] > 1}
        by_prefix, by_both = APIRouter(), APIRouter()
        for route in routes[name]:
            (by_prefix if route.path in shared else by_both).routes.append(route)
        # In the document a route stands once, by its shorter address.
        app.router.routes.extend(by_both.routes)
        app.include_router(by_prefix, prefix=f"/{name}")
        app.include_router(by_both, prefix=f"/{name}", include_in_schema=False)


def _catch(app: FastAPI, served: Mapping[str, System]) -> None:
    def owner_of(request: Request) -> Owner:
        """Whose errors a request that reached no route gets: by its prefix; the only system's; our own."""
        first = request.url.path.split("/", 2)[1] if request.url.path.startswith("/") else ""
        if first in served:
            return served[first]
        return next(iter(served.values())) if len(served) == 1 else base.BASE

    def answer(error: Exception, request: Request) -> Response:
        return owner_of(request).answer(error, request)

    methods = _methods_by_path(app)

    async def handle(request: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException) and error.status_code == 405:
            # Starlette names the methods of one route; a path may have several.
            path = request.scope["path"]
            allowed = {m for regex, found in methods if regex.match(path) for m in found}
            error = HTTPException(405, error.detail, {"Allow": ", ".join(sorted(allowed))})
        return answer(error, request)

    app.add_exception_handler(HTTPException, handle)
    origins = list(app.state.gateway.settings.allowed_origins)
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=["authorization", "content-type", "x-api-key", "x-request-id", IDEMPOTENCY],
            expose_headers=["x-request-id", "retry-after"],
            max_age=600,
        )
    seconds = app.state.gateway.settings.request_s
    inner = app.build_middleware_stack

    def stack() -> ASGIApp:
        # Outside of Starlette's own, whose last resort would answer in words of its own.
        return Front(inner(), answer=answer, seconds=seconds)

    app.build_middleware_stack = stack  # type: ignore[method-assign]


def _methods_by_path(app: FastAPI) -> list[tuple[re.Pattern[str], set[str]]]:
    found = []
    for context in iter_route_contexts(app.routes):
        if isinstance(context.original_route, APIRoute):
            regex, _, _ = compile_path(str(context.path))
            found.append((regex, set(context.original_route.methods or ())))
    return found


def _document(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        app.openapi_schema = finish(document, {**app.state.systems, base.BASE.name: base.BASE})
    return app.openapi_schema
