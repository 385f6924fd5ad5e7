"""Reading a request's body: whole, within its limits, before anything parses it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from starlette.requests import ClientDisconnect, Request

from data.errors import Overloaded
from serving.gateway.errors import TooLarge, TooSlow
from serving.gateway.held import FREE, Claim

#: A body that doesn't say how long it is claims so much at a time.
_STEP = 2**20
#: When the server stops, a body has so long to arrive; the work after it needs time too.
_END_S = 5.0


class Bodies:
    """The bodies that are on their way. Of one event loop."""

    def __init__(self) -> None:
        self._limits: set[asyncio.Timeout] = set()
        self.ending = False

    def end(self, seconds: float = _END_S) -> None:
        """The server stops: give those that are on their way so long, and those to come no longer."""
        self.ending = True
        at = asyncio.get_running_loop().time() + seconds
        for limit in self._limits:
            when = limit.when()
            if when is None or when > at:
                limit.reschedule(at)

    @contextlib.asynccontextmanager
    async def within(self, seconds: float) -> AsyncIterator[None]:
        """``TimeoutError`` where the block takes longer than that, or than a stop allows."""
        async with asyncio.timeout(min(seconds, _END_S) if self.ending else seconds) as limit:
            self._limits.add(limit)
            try:
                yield
            finally:
                self._limits.discard(limit)


async def read_body(request: Request, limit: int, seconds: float, claim: Claim, bodies: Bodies) -> bytes:
    """The body, which the request then remembers: forms and JSON are read from it.

    ``claim`` gets its size: before it is read where it says it, and as it comes where it doesn't.

    Raises:
        TooLarge: it is, or says that it is, over ``limit`` bytes.
        TooSlow: it did not arrive within ``seconds``.
        Overloaded: nor before the server stops.
        Full: other requests hold what it would need.
    """
    said = request.headers.get("content-length", "")
    claimed = FREE
    if said.isascii() and said.isdigit():
        if len(said) > 15 or int(said) > limit:
            raise _too_large(limit)
        claimed = max(FREE, int(said))
        await claim.take(int(said))
    pieces: list[bytes] = []
    size = 0
    try:
        async with bodies.within(seconds):
            async for piece in request.stream():
                size += len(piece)
                if size > limit:
                    raise _too_large(limit)
                if size > claimed:
                    # Larger than what is free of claims, or this would be for nothing.
                    step = max(_STEP, size - claimed)
                    await claim.take(step)
                    claimed += step
                pieces.append(piece)
    except TimeoutError:
        if bodies.ending:
            raise Overloaded(
                "The gateway stops.", hint="Send it again: another one is there, or soon."
            ) from None
        raise TooSlow(f"The body did not arrive within {seconds:g} s.") from None
    except ClientDisconnect:
        raise TooSlow("The client went away before its body was here.") from None
    body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    # What request.body(), form() and json() use from now on.
    request._body = body
    return body


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The request has more than {limit:,} bytes.")
