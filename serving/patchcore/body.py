"""Reading a request's body: counted, timed, and read to its end before an error is answered."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from starlette.requests import ClientDisconnect, Request

from serving.patchcore.errors import BodyTimeout, TooLarge

# What is read on and thrown away, so that a client that is still sending sees the answer instead of a reset.
_DRAIN_BYTES = 64 * 2**20
_DRAIN_S = 5.0
# How far a request's body has been read. A server's ``receive`` after the end waits for the next request.
_STATE = "retiderm.body"


async def chunks(request: Request, limit: int, seconds: float) -> AsyncIterator[bytes]:
    """The body, piece by piece, whether its length is declared or it comes in chunks.

    Raises:
        ClientDisconnect: the client has gone.
        TooLarge: it is over ``limit`` bytes.
        BodyTimeout: it has not ended after ``seconds``.
    """
    too_large = TooLarge(
        f"The request is over the limit of {limit:,} bytes.", hint="Send fewer or smaller images at once."
    )
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise too_large
    seen = 0
    end = asyncio.get_running_loop().time() + seconds
    request.scope[_STATE] = "begun"
    more = True
    while more:
        try:
            async with asyncio.timeout_at(end):
                message = await request.receive()
        except TimeoutError:
            request.scope[_STATE] = "ended"  # what has not come by now isn't waited for again
            raise BodyTimeout(
                f"The request's body did not arrive within {seconds:g} s.", hint="Send it again, faster."
            ) from None
        if message["type"] == "http.disconnect":
            request.scope[_STATE] = "ended"
            raise ClientDisconnect
        piece, more = message.get("body", b""), message.get("more_body", False)
        if not more:
            request.scope[_STATE] = "ended"
        seen += len(piece)
        if seen > limit:
            raise too_large
        if piece:
            yield piece


async def drain(request: Request) -> None:
    """Read what is left of a body and throw it away, up to a bound.

    A client that waits for ``100 Continue`` and was not told to continue is sending nothing.
    """
    state, headers = request.scope.get(_STATE), request.headers
    has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
    waits = headers.get("expect", "").lower() == "100-continue"
    if state == "ended" or (state is None and (waits or not has_body)):
        return
    seen = 0
    with contextlib.suppress(TimeoutError, RuntimeError):
        async with asyncio.timeout(_DRAIN_S):
            while seen <= _DRAIN_BYTES:
                message = await request.receive()
                if message["type"] != "http.request" or not message.get("more_body", False):
                    break
                seen += len(message.get("body", b""))
    request.scope[_STATE] = "ended"
