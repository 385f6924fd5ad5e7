"""The gateway as a process: ``python -m serving.gateway``, with what its environment says."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from serving.gateway.app import create_app
from serving.gateway.gateway import Gateway, check_exposure
from serving.gateway.settings import Settings
from serving.listening import Server, listen, url_of

_GRACE_S = 20
#: A request's first line and headers have come by then, or the connection is closed.
_HEADERS_S = 15.0


def run(
    settings: Settings,
    *,
    systems: Iterable[str] | None = None,
    ready_file: Path | None = None,
    say: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True),
) -> None:
    """Serve until SIGTERM or SIGINT; what is in flight then is answered, for up to 20 s.

    ``ready_file`` gets ``{"url", "pid"}`` once requests are answered, and is removed at the stop.

    Raises:
        UsageError: nobody has a token and the address is not this machine's.
        ServingError: the address is taken.
        StoreError: the database or the image store can't be reached.
    """
    import uvicorn

    listening = listen(settings.host, settings.port)
    url = url_of(listening)
    port = listening.getsockname()[1]
    settings = dataclasses.replace(settings, port=port, public_url=settings.public_url or url)
    gateway = Gateway(settings)
    if warning := check_exposure(gateway):
        say(warning)
    app = create_app(systems=systems, gateway=gateway)
    config = uvicorn.Config(
        app,
        http=quick_to_ask(),
        log_config=None,
        # Our own line says less: no path, no query.
        access_log=False,
        server_header=False,
        date_header=True,
        timeout_graceful_shutdown=_GRACE_S,
        timeout_keep_alive=30,
        h11_max_incomplete_event_size=64 * 2**10,
    )
    try:
        Server(config, url, ready_file, say).run(sockets=[listening])
    finally:
        listening.close()
        if ready_file is not None:
            ready_file.unlink(missing_ok=True)


def quiet_logs() -> None:
    """Let libraries say warnings only: they name addresses with signatures in them, or say what we say."""
    for name in ("httpx", "httpcore", "botocore", "boto3", "s3transfer", "alembic", "dbos", "uvicorn"):
        logging.getLogger(name).setLevel(logging.WARNING)


def quick_to_ask(seconds: float = _HEADERS_S) -> type[asyncio.Protocol]:
    """uvicorn's HTTP, which by itself waits for a request's headers for ever."""
    from uvicorn.protocols.http.auto import AutoHTTPProtocol

    class QuickToAsk(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
        """Closes a connection on which no request has begun in time."""

        _limit: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            self._wait()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self._asked():
                self._rest()
            elif self._limit is None:
                self._wait()

        def connection_lost(self, exc: Exception | None) -> None:
            self._rest()
            super().connection_lost(exc)

        def _asked(self) -> bool:
            return self.cycle is not None and not self.cycle.response_complete

        def _wait(self) -> None:
            self._limit = asyncio.get_running_loop().call_later(seconds, self._end)

        def _rest(self) -> None:
            if self._limit is not None:
                self._limit.cancel()
                self._limit = None

        def _end(self) -> None:
            self._limit = None
            if not self._asked():
                self.transport.close()

    found: type[asyncio.Protocol] = QuickToAsk
    return found
