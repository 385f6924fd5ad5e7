"""The service's own process: one address, one process, an orderly stop."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Callable
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from data.errors import ServingError
from serving.listening import Server, listen, url_of
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
    listening = listen(settings.host, settings.port)
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
        Server(config, url_of(listening), ready_file, _LOG.info).run(sockets=[listening])
    finally:
        listening.close()
        if ready_file is not None:
            ready_file.unlink(missing_ok=True)


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
