"""An HTTP server of ours as a process: its socket, when it is ready, and an orderly end."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import uvicorn

from data.errors import ServingError
from data.files import write_json


class Server(uvicorn.Server):
    """Says when it answers, and ends with exit code 0 when it is told to.

    ``ready_file`` gets ``{"url", "pid"}``. The caller removes it at the end.
    """

    def __init__(
        self, config: uvicorn.Config, url: str, ready_file: Path | None, say: Callable[[str], None]
    ) -> None:
        super().__init__(config)
        self._url, self._ready_file, self._say = url, ready_file, say

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
            self._say(f"ready: {self._url}")
            if self._ready_file is not None:
                write_json(self._ready_file, {"url": self._url, "pid": os.getpid()})


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to an address; port 0 is a free one.

    Raises:
        ServingError: the address is taken or can't be had.
    """
    try:
        # With its protocol: asyncio switches the delay of small packets off only where it sees TCP named.
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


def url_of(listening: socket.socket) -> str:
    """Where a client of this machine finds it."""
    host, port = listening.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
