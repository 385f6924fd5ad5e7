"""Where errors are caught: in each route, in the application, and outermost."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from data.errors import RetidermError
from serving.patchcore.body import drain
from serving.patchcore.errors import Reporter


def route_class(reporter: Reporter) -> type[APIRoute]:
    """A kind of route that answers its own errors in this shape, in whatever application it is mounted."""

    class Route(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            inner = super().get_route_handler()

            async def handle(request: Request) -> Response:
                try:
                    return await inner(request)
                except Exception as error:
                    await drain(request)
                    return reporter.response(error)

            return handle

    return Route


def install(app: FastAPI, reporter: Reporter) -> None:
    """Answer what never reaches a route (404, 405) in this shape as well."""

    async def handle(request: Request, error: Exception) -> JSONResponse:
        await drain(request)
        return reporter.response(error)

    for kind in (HTTPException, RequestValidationError, RetidermError):
        app.add_exception_handler(kind, handle)


class CatchAll:
    """Outermost: let no exception reach the server, which would drop the connection and log paths."""

    def __init__(self, app: ASGIApp, reporter: Reporter) -> None:
        self._app, self._reporter = app, reporter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application; answer 500 where it raised before it answered."""
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:
            if scope["type"] != "http":
                raise
            answer = self._reporter.response(error)
            if not started:
                await answer(scope, receive, send)
