"""The servers that are measured, and the leanest client for them."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Running:
    """The servers that are measured."""

    url: str
    grpc: str
    predictor_grpc: str
    pids: dict[str, int]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def served(bundle: Path) -> Iterator[Running]:
    """``retiderm serve`` of one bundle."""
    import psutil

    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "ready.json"
        inner = free_port()
        arguments = ["--bundle", str(bundle), "--port", str(free_port()), "--predictor-port", str(inner)]
        with (Path(folder) / "log").open("wb") as log:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "serving.cli",
                    "serve",
                    "--no-gateway",
                    *arguments,
                    "--ready-file",
                    str(ready),
                ],
                stdout=log,
                stderr=log,
            )
        try:
            while not ready.exists():
                if process.poll() is not None:
                    sys.exit((Path(folder) / "log").read_text())
                time.sleep(0.05)
            where = json.loads(ready.read_text())
            pids = {
                next(p for p in ("predictor", "transformer") if f"serving.{p}" in child.cmdline()): child.pid
                for child in psutil.Process(process.pid).children()
            }
            yield Running(where["url"], where["grpc"], f"127.0.0.1:{inner}", pids)
        finally:
            process.terminate()
            process.wait(60)


@contextlib.contextmanager
def plain_kserve(bundle: Path) -> Iterator[str]:
    """The same model behind KServe's default route."""
    import httpx

    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.kserve_default", str(bundle / "model.onnx"), str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{url}/v2/health/ready").status_code == 200:
                    break
            time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait(60)


def connect(address: str) -> http.client.HTTPConnection:
    """The leanest client, kept open: a general one adds a millisecond of its own."""
    connection = http.client.HTTPConnection(address, timeout=60)
    connection.connect()
    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection
