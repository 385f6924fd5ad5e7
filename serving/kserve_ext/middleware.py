"""The outermost layers of the REST server, plain ASGI.

Upstream: there is no limit on a body; an unhandled exception is answered and then raised again, upon which
uvicorn drops the keep-alive connection and the client's next request fails; a binary V2 request that calls
its body ``application/json`` is parsed as JSON whole; a JSON one goes through two slow parsers.
"""

from __future__ import annotations

import logging
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.kserve_ext.errors import TooLarge, response_of

_LOG = logging.getLogger("retiderm.serving")
_BINARY = b"inference-header-content-length"


class CatchAll:
    """Let no exception reach uvicorn; answer 500 where nothing was answered yet."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:
            if started:
                # Starlette's own handler answered and then raised again: it is told and logged already.
                _LOG.debug("raised after the answer", exc_info=error)
            else:
                await response_of(error)(scope, receive, send)


class BodyLimit:
    """Refuse a body over ``limit`` bytes with 413, whether its length is declared or it comes in chunks."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app, self._limit = app, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count what is received."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = _length(scope)
        if declared is not None and declared > self._limit:
            await self._refuse(scope, receive, send, seen=0)
            return
        seen, over, answered = 0, False, False

        async def counted() -> Message:
            nonlocal seen, over
            message = await receive()
            if message["type"] == "http.request":
                seen += len(message.get("body", b""))
                if seen > self._limit:
                    over = True
                    # Whoever reads the body stops here; what it answers is replaced below.
                    return {"type": "http.disconnect"}
            return message

        async def replaced(message: Message) -> None:
            nonlocal answered
            if over:
                if not answered:
                    answered = True
                    await self._refuse(scope, receive, send, seen)
                return
            await send(message)

        try:
            await self._app(scope, counted, replaced)
        except Exception:
            if not over:
                raise
            if not answered:
                await self._refuse(scope, receive, send, seen)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, seen: int) -> None:
        # Read on, up to as much again, and throw it away: a client that is still sending would otherwise see
        # a reset connection instead of the answer.
        message: Message = {"type": "http.request", "more_body": True}
        while message["type"] == "http.request" and message.get("more_body") and seen <= 3 * self._limit:
            message = await receive()
            seen += len(message.get("body", b""))
        error = TooLarge(
            f"The body is over the limit of {self._limit} bytes.", hint="Send fewer images at once."
        )
        response = response_of(error)
        response.headers["Connection"] = "close"
        await response(scope, receive, send)


class OneParser:
    """Let every V2 inference request reach our own parser, as a binary one.

    A binary request does so whatever content type it names. A JSON one is a binary one whose JSON part is the
    whole body; without a length (chunked) it is left to KServe's parser.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Correct the headers."""
        if scope["type"] == "http" and scope["path"].endswith("/infer"):
            headers: list[tuple[bytes, Any]] = list(scope["headers"])
            given = dict(headers)
            length = given.get(b"content-length")
            if _BINARY not in given and length is not None and _is_json(given.get(b"content-type", b"")):
                headers.append((_BINARY, length))
                given[_BINARY] = length
            if _BINARY in given:
                headers = [h for h in headers if h[0] != b"content-type"]
                headers.append((b"content-type", b"application/octet-stream"))
            scope = {**scope, "headers": headers}
        await self._app(scope, receive, send)


def _is_json(content_type: bytes) -> bool:
    return content_type.split(b";")[0].strip().lower() == b"application/json"


def _length(scope: Scope) -> int | None:
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() else None
    return None
