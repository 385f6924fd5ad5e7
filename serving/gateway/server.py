"""The gateway as a process: ``python -m serving.gateway``, with what its environment says."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn
from wsgiref.simple_server import WSGIServer

from data.errors import ServingError
from serving.gateway.app import create_app
from serving.gateway.gateway import Gateway, check_exposure
from serving.gateway.settings import Settings
from serving.listening import Server, listen, url_of

_GRACE_S = 20
#: From a signal to the end of the process, at most. In the cluster a pod has 50 s for it, in compose 40.
_STOP_S = 35.0
#: When all is answered and closed: how long threads may take that can't be told to end.
_LEFT_S = 2.0
#: A request's first line and headers have come by then, or the connection is closed.
_HEADERS_S = 15.0


def run(
    settings: Settings,
    *,
    systems: Iterable[str] | None = None,
    ready_file: Path | None = None,
    say: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True),
) -> int:
    """Serve until SIGTERM or SIGINT; what is in flight then is answered, for up to 20 s.

    Gives how many threads are at work still that can't be ended: an image store may hang for longer than a
    stop may last. Whoever owns the process ends it with :func:`leave`.

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
    counts = _count(settings, say)
    server = _Server(gateway, config, url, ready_file, say)
    try:
        server.run(sockets=[listening])
    finally:
        if not gateway.working:
            server.ended()
        listening.close()
        if counts is not None:
            counts.shutdown()
            counts.server_close()
        if ready_file is not None:
            ready_file.unlink(missing_ok=True)
    return gateway.working


def _count(settings: Settings, say: Callable[[str], None]) -> WSGIServer | None:
    """``/metrics`` on a port of its own, if it has one, on threads that end with the process."""
    if settings.metrics_port is None:
        return None
    from prometheus_client import start_http_server

    try:
        server, _ = start_http_server(settings.metrics_port, settings.host)
    except OSError as error:
        raise ServingError(
            f"Can't listen on {settings.host}:{settings.metrics_port} ({error.strerror or error}).",
            hint="Name another port by GATEWAY_METRICS_PORT.",
        ) from None
    say(f"metrics: {url_of(server.socket)}/metrics")
    return server


def leave(code: int) -> NoReturn:
    """End the process now, whatever its threads do. By itself Python waits for them."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


class _Server(Server):
    """Lets bodies that are on their way come to an end at a stop, and the process too."""

    def __init__(self, gateway: Gateway, *args: Any) -> None:
        super().__init__(*args)
        self._gateway = gateway
        self._timers: list[threading.Timer] = []

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, in bounded time."""
        self._gateway.bodies.end()
        self._end_in(_STOP_S, 1)
        await super().shutdown(sockets)
        # All is answered and closed. Python would wait for the threads of libraries too.
        self._end_in(_LEFT_S, 0)

    def ended(self) -> None:
        """The process may go on, with something else."""
        for timer in self._timers:
            timer.cancel()

    def _end_in(self, seconds: float, code: int) -> None:
        # On another thread than the main one the process isn't ours to end.
        if threading.current_thread() is threading.main_thread():
            timer = threading.Timer(seconds, self._end, (seconds, code))
            timer.daemon = True
            timer.start()
            self._timers.append(timer)

    def _end(self, seconds: float, code: int) -> None:
        logging.getLogger("retiderm.gateway").warning("what goes on after %g s is cut off", seconds)
        if self._ready_file is not None:
            self._ready_file.unlink(missing_ok=True)
        leave(code)


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
