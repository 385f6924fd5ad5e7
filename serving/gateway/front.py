"""What every request passes first: an id, a place, a time limit, headers, counts, a log line.

Pure ASGI, so that nothing is buffered on the way. The log line has the route's template and never the path
itself, which may name a patient; no header, no query, no body.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Callable

from prometheus_client import Counter, Gauge, Histogram
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from data.errors import Overloaded
from serving.gateway.errors import Unanswered
from serving.gateway.held import Claim
from serving.metrics import BUCKETS

_LOG = logging.getLogger("retiderm.gateway.access")
_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_PLACES = 256
#: Answered however busy it is: a process that is full is alive, and must not be ended for it.
_ALWAYS = ("/livez", "/metrics")
_LIMIT = "retiderm.limit"
#: Where a request's scope has what it holds.
CLAIM = "retiderm.claim"

REQUESTS = Counter("retiderm_gateway_requests", "Answers by route and status", ["system", "route", "status"])
SECONDS = Histogram("retiderm_gateway_seconds", "Time to an answer", ["system", "route"], buckets=BUCKETS)
IN_FLIGHT = Gauge("retiderm_gateway_in_flight", "Requests that are being answered")

_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=()"),
]
_POLICY = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
_NO_STORE = (b"cache-control", b"no-store")


class Front:
    """The outermost layer. ``answer`` turns an error into the response of the system that was asked."""

    def __init__(
        self, app: ASGIApp, *, answer: Callable[[Exception, Request], Response], seconds: float
    ) -> None:
        self._app = app
        self._answer = answer
        # A body may take as long as its own limit says; the work after it has the rest.
        self._seconds = 2 * seconds
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, whatever happens."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope["retiderm.request_id"] = request_id
        started, status = time.perf_counter(), 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = _with_ours(message.get("headers", []), request_id)
            await send(message)

        self._in_flight += 1
        IN_FLIGHT.set(self._in_flight)
        try:
            if self._in_flight > _PLACES and scope["path"] not in _ALWAYS:
                raise Overloaded("The gateway has no place now.")
            async with asyncio.timeout(self._seconds) as limit:
                scope[_LIMIT] = limit
                await self._app(scope, receive, watched)
        except Exception as error:
            if status == 0:
                # Under no name of this frame: the error holds it, and with it all that the request held.
                await self._answer(_told(error), Request(scope))(scope, receive, watched)
        finally:
            if isinstance(claim := scope.get(CLAIM), Claim):
                claim.release()
            self._in_flight -= 1
            IN_FLIGHT.set(self._in_flight)
            _note(scope, status, time.perf_counter() - started, request_id)


def _told(error: Exception) -> Exception:
    return Unanswered("The work took too long.") if isinstance(error, TimeoutError) else error


def take_time(scope: Scope) -> None:
    """Let a request take as long as it does: its route ends it by limits of its own."""
    limit = scope.get(_LIMIT)
    if isinstance(limit, asyncio.Timeout):
        limit.reschedule(None)


def _request_id(scope: Scope) -> str:
    given = next((value for key, value in scope["headers"] if key == b"x-request-id"), b"")
    return given.decode() if _ID.fullmatch(given) else uuid.uuid4().hex


def _with_ours(headers: list[tuple[bytes, bytes]], request_id: str) -> list[tuple[bytes, bytes]]:
    there = {key.lower() for key, _ in headers}
    ours = [item for item in (*_HEADERS, _POLICY, _NO_STORE) if item[0] not in there]
    return [*headers, *ours, (b"x-request-id", request_id.encode())]


def _note(scope: Scope, status: int, seconds: float, request_id: str) -> None:
    system, route = scope.get("retiderm.route", ("", "unmatched"))
    REQUESTS.labels(system, route, str(status or "gone")).inc()
    SECONDS.labels(system, route).observe(seconds)
    _LOG.info(
        "%s %s %s %d %.1f ms %s",
        system or "-",
        scope["method"] if scope["method"] in _METHODS else "?",
        route,
        status,
        1000 * seconds,
        request_id,
    )


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
