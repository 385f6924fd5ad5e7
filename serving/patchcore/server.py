"""The service's own process: one address, one process, an orderly stop."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from data.errors import ServingError
from data.files import write_json
from serving.patchcore.settings import Settings

_LOG = logging.getLogger("retiderm.patchcore")
_GRACE_S = 30


def serve(settings: Settings, make: Callable[[Settings], FastAPI], ready_file: Path | None = None) -> None:
    """Serve until SIGTERM or SIGINT; what is in flight then gets half a minute.

    ``ready_file`` gets ``{"url": …}`` when requests are answered, and goes at the stop. Port 0 is any free
    one.

    Raises:
        ServingError: the address is taken, can't be had, or is open to others without leave.
    """
    _check_access(settings)
    listening = _listen(settings.host, settings.port)
    try:
        app = make(settings)
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=65,
            timeout_graceful_shutdown=_GRACE_S,
        )
        host, port = listening.getsockname()[:2]
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        _Server(config, url, ready_file).run(sockets=[listening])
    finally:
        listening.close()
        if ready_file is not None:
            ready_file.unlink(missing_ok=True)


class _Server(uvicorn.Server):
    """Says when it answers."""

    def __init__(self, config: uvicorn.Config, url: str, ready_file: Path | None) -> None:
        super().__init__(config)
        self._url, self._ready_file = url, ready_file

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's, without raising the signal again at the end: an orderly stop exits with 0."""
        before = {
            number: signal.signal(number, self.handle_exit) for number in (signal.SIGTERM, signal.SIGINT)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, and then announce it."""
        await super().startup(sockets)
        if self.started:
            _LOG.info("ready: %s", self._url)
            if self._ready_file is not None:
                write_json(self._ready_file, {"url": self._url})


def _check_access(settings: Settings) -> None:
    try:
        near = ipaddress.ip_address(settings.host).is_loopback
    except ValueError:
        near = settings.host == "localhost"
    if not (near or settings.open_access):
        raise ServingError(
            f"The service asks nobody who they are, so it does not listen on {settings.host}.",
            hint="Listen on 127.0.0.1, or open it by name: --open-access (PATCHCORE_OPEN_ACCESS=1), behind "
            "something that checks who calls.",
        )


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
        except OSError:
            listening.close()
            raise
    except OSError as error:
        raise ServingError(
            f"Can't listen on {host}:{port} ({error.strerror or error}).",
            hint="Another program has this port, or the address is not this machine's: choose with "
            "--port and --host.",
        ) from None
    listening.set_inheritable(True)
    return listening
