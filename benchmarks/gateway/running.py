"""The servers that are measured: a gateway over a store of its own, and a predictor that does nothing."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.serving.servers import free_port
from serving.gateway.access import Role
from serving.gateway.access import create as make_token
from serving.gateway.settings import Settings
from serving.gateway.store import unscoped


@dataclass(frozen=True)
class Gateway:
    """A gateway that runs: its address, a token for it, and what it was told."""

    url: str
    token: str
    environment: dict[str, str]
    pid: int


@contextlib.contextmanager
def null_model() -> Iterator[str]:
    """The predictor that does nothing."""
    port = free_port()
    with _process(["-m", "benchmarks.gateway.null_model", "--port", str(port)], {}):
        url = f"http://127.0.0.1:{port}"
        while True:
            with contextlib.suppress(httpx.HTTPError):
                httpx.get(f"{url}/v2/models/any/ready", trust_env=False)
                break
            time.sleep(0.05)
        yield url


@contextlib.contextmanager
def gateway(
    folder: Path,
    models_url: str,
    task: str,
    database: str | None = None,
    *,
    systems: str = "s0",
    told: Mapping[str, str] | None = None,
) -> Iterator[Gateway]:
    """``python -m serving.gateway`` with S0, which asks one task; ``told`` is more of its environment."""
    folder.mkdir(parents=True, exist_ok=True)
    ready = folder / "ready.json"
    environment = {
        "DATABASE_URL": database or f"sqlite:///{folder / 'gateway.db'}",
        "STORAGE_DIR": str(folder / "images"),
        "BACKSERVER_PORT": "0",
        "GATEWAY_SYSTEMS": systems,
        "GATEWAY_MODELS_URL": models_url,
        "GATEWAY_REQUESTS_PER_MINUTE": "10000000",
        "CHECK_IMAGE_TASKS": task,
        "BLUR_THRESHOLD": "1",
        "RETIDERM_HOME": str(folder),
        **(told or {}),
    }
    token = _token(environment)
    with _process(["-m", "serving.gateway", "--ready-file", str(ready)], environment) as process:
        while not ready.exists():
            if process.poll() is not None:
                sys.exit("the gateway did not start")
            time.sleep(0.05)
        yield Gateway(json.loads(ready.read_text())["url"], token, environment, process.pid)


@contextlib.contextmanager
def postgresql(folder: Path) -> Iterator[str]:
    """A PostgreSQL of its own, with fsync on; its URL."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a library of its tells that XDG_RUNTIME_DIR isn't set
        import pgserver
    server = pgserver.get_server(folder / "postgresql", cleanup_mode="delete")
    try:
        yield str(server.get_uri("postgres"))
    finally:
        server.cleanup()


def tokens(running: Gateway, count: int) -> list[str]:
    """Tokens of so many clients of their own."""
    return [_token(running.environment, f"client {number}") for number in range(count)]


def _token(environment: dict[str, str], subject: str | None = None) -> str:
    store = Settings.from_env(environment).open_store()
    try:
        tenant = unscoped.ensure_tenant(store, "default")
        with store.write(tenant.id, "benchmark") as scope:
            return make_token(scope, role=Role.APP, name="benchmark", subject=subject).text
    finally:
        store.close()


@contextlib.contextmanager
def _process(arguments: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, *arguments],
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)
