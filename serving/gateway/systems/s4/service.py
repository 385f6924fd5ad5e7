"""The service in the gateway's own process: one extractor, and a folder of memories for each tenant.

The gateway's tenant has ``MODELS_DIR`` itself, where an older service's files are; another one's memories lie
in ``MODELS_DIR/.tenants/<id>``, which is no role's name.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from data.errors import RetidermError
from serving.gateway.errors import ModelAway

if TYPE_CHECKING:
    from serving.gateway.gateway import Gateway
    from serving.patchcore.service import Service

_LOG = logging.getLogger("retiderm.gateway")
_AGAIN_S = 10.0
_KEPT = ("type", "asgi", "http_version", "method", "scheme", "query_string", "headers", "client", "server")


class Local:
    """Opened beside the gateway's start, so that nothing waits for an extractor; again where it failed."""

    def __init__(self, gateway: Gateway) -> None:
        self._tenant = gateway.tenant
        self._debug = gateway.settings.debug
        self._opening: asyncio.Task[Service] | None = None
        self._failed = 0.0
        self._apps: dict[str, ASGIApp] = {}

    async def start(self) -> None:
        """Begin to open it."""
        self._begin()

    async def stop(self) -> None:
        """Finish what runs."""
        if self._opening is None:
            return
        found = (await asyncio.gather(self._opening, return_exceptions=True))[0]
        if not isinstance(found, BaseException):
            await asyncio.to_thread(found.close)

    async def ready(self) -> bool:
        """Whether there is an extractor that works."""
        try:
            await self._service()
        except ModelAway:
            return False
        return True

    async def answer(self, request: Request, path: str, tenant: str | None) -> Response:
        """The service's answer: it reads the body itself, within its own limits.

        Raises:
            ModelAway: there is no extractor, or it can't be used; the message says why.
        """
        service = await self._service()
        app = self._app(service, tenant or self._tenant)
        scope = {key: request.scope[key] for key in _KEPT if key in request.scope}
        return _Handed(app, {**scope, "path": path, "raw_path": path.encode(), "root_path": ""})

    def _app(self, service: Service, tenant: str) -> ASGIApp:
        if tenant not in self._apps:
            from serving.patchcore.app import create_app

            own = service if tenant == self._tenant else service.over(_folder(service, tenant))
            self._apps[tenant] = create_app(service=own)
        return self._apps[tenant]

    async def _service(self) -> Service:
        opening = self._opening
        if opening is None or (
            opening.done() and _error(opening) is not None and time.monotonic() - self._failed > _AGAIN_S
        ):
            opening = self._begin()
        try:
            # Shielded: a client that goes away must not end it for the others.
            return await asyncio.shield(opening)
        except (RetidermError, OSError) as error:
            from serving.patchcore.errors import without_paths

            raise ModelAway(
                f"The anomaly service has no extractor: {without_paths(str(error))}",
                retry_after=int(_AGAIN_S),
            ) from error

    def _begin(self) -> asyncio.Task[Service]:
        self._opening = asyncio.create_task(asyncio.to_thread(_open, self._debug))
        self._opening.add_done_callback(self._note)
        return self._opening

    def _note(self, opening: asyncio.Task[Service]) -> None:
        self._failed = time.monotonic()
        if (error := _error(opening)) is not None:
            _LOG.warning("S4 is not ready: %s", error)


def _open(debug: bool) -> Service:
    from serving.patchcore.service import Service
    from serving.patchcore.settings import Settings

    settings = Settings.from_env()
    return Service.open(replace(settings, debug=settings.debug and debug))


def _folder(service: Service, tenant: str) -> Path:
    return service.settings.models_dir / ".tenants" / tenant


def _error(opening: asyncio.Task[Service]) -> BaseException | None:
    return None if opening.cancelled() else opening.exception()


class _Handed(Response):
    """A response that another application gives, from a body that it reads itself."""

    def __init__(self, app: ASGIApp, scope: Scope) -> None:
        super().__init__()
        self._app, self._scope = app, scope

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let it answer."""
        await self._app(self._scope, receive, send)
