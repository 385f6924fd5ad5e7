"""The service as an application of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.responses import Response

from serving.patchcore.answers import CatchAll, install
from serving.patchcore.router import build_router
from serving.patchcore.service import Service
from serving.patchcore.settings import Settings


def create_app(settings: Settings | None = None, service: Service | None = None) -> FastAPI:
    """The routes of contract S4, their errors on every path, ``/metrics`` and ``/docs``.

    Without a ``service`` one is opened by ``settings`` (by default the environment's), and closed when the
    application stops; one that is given stays the caller's. Mounted inside another application it keeps its
    error shape; the router alone (``build_router``) leaves 404 and 405 to the application that includes it.

    Raises:
        ServingError: there is no extractor, or it isn't the one that the settings name.
    """
    opened = service or Service.open(settings or Settings.from_env())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        if service is None:
            opened.close()

    app = FastAPI(
        title="PatchCore anomaly service",
        description="Fit on OK images, calibrate, score. Contract S4; docs/s4.md says more.",
        version=opened.version,
        lifespan=lifespan,
    )
    app.state.patchcore = opened
    app.add_middleware(CatchAll, reporter=opened.reporter)
    install(app, opened.reporter)
    app.include_router(build_router(opened))

    @app.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return app
