"""Reading a request's body: whole, within its limits, before anything parses it."""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect, Request

from serving.gateway.errors import TooLarge, TooSlow


async def read_body(request: Request, limit: int, seconds: float) -> bytes:
    """The body, which the request then remembers: forms and JSON are read from it.

    Raises:
        TooLarge: it is, or says that it is, over ``limit`` bytes.
        TooSlow: it did not arrive within ``seconds``.
    """
    said = request.headers.get("content-length", "")
    if said.isascii() and said.isdigit() and (len(said) > 15 or int(said) > limit):
        raise _too_large(limit)
    pieces: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(seconds):
            async for piece in request.stream():
                size += len(piece)
                if size > limit:
                    raise _too_large(limit)
                pieces.append(piece)
    except TimeoutError:
        raise TooSlow(f"The body did not arrive within {seconds:g} s.") from None
    except ClientDisconnect:
        raise TooSlow("The client went away before its body was here.") from None
    body = b"".join(pieces)
    # What request.body(), form() and json() use from now on.
    request._body = body
    return body


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The request has more than {limit:,} bytes.")
