"""Predictor, transformer and gateway as processes of this machine: started together, stopped in order.

The gateway is started by its module's name and imported nowhere here: models answer without it.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from types import FrameType

from data.errors import ServingError
from data.files import write_json
from serving.source import champions, open_source

_TAIL = 40


@dataclass(frozen=True, slots=True)
class GatewayPlan:
    """Where the gateway listens; port 0 is any free one. The rest is its environment's."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class ServePlan:
    """What to serve and where. A port of None is chosen: gRPC beside ``port`` where that is free.

    ``gateway`` is None for the models alone.
    """

    root: Path | None = None
    bundle: Path | None = None
    model_version: str | None = None
    host: str = "127.0.0.1"
    port: int = 8080
    grpc_port: int | None = None
    predictor_port: int | None = None
    precision: str = "auto"
    threads: int | None = None
    grace_s: float = 30.0
    ready_file: Path | None = None
    start_timeout_s: float = 120.0
    gateway: GatewayPlan | None = None


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where they listen."""

    url: str
    grpc: str
    predictor: str
    models: tuple[str, ...]
    gateway: str | None = None

    def to_dict(self) -> dict[str, object]:
        """Plain values, for a ready file."""
        return {
            "url": self.url,
            "grpc": self.grpc,
            "predictor": self.predictor,
            "models": list(self.models),
            **({"gateway": self.gateway} if self.gateway is not None else {}),
        }


class _Child:
    """A process whose standard error is passed on, and remembered for the case that it dies."""

    def __init__(
        self, name: str, module: str, arguments: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self._tail: deque[str] = deque(maxlen=_TAIL)
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments, "--die-with-parent"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env={**os.environ, **(environment or {})},
            # A terminal's Ctrl-C is for us: we stop the children in order.
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, name=f"{name}-log", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._tail.append(line.rstrip())
            print(f"{self.name:11} | {line.rstrip()}", file=sys.stderr, flush=True)

    def reason(self) -> str:
        """What it said last that sounds like a reason."""
        self._reader.join(timeout=2)
        said = [line.removeprefix("error: ") for line in self._tail if line.startswith("error: ")]
        return said[-1] if said else (self._tail[-1] if self._tail else "it said nothing")

    def stop(self, grace_s: float) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(grace_s)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def serve(
    plan: ServePlan,
    on_ready: Callable[[Endpoints], None],
    on_token: Callable[[str | None], None] = lambda _: None,
) -> None:
    """Serve until SIGINT or SIGTERM; returns after an orderly stop.

    ``on_token`` gets the gateway's first token, once, whatever happens after its making; None where the
    gateway has tokens already.

    Raises:
        ServingError: nothing to serve, a port is taken, or a process died; with its own reason.
    """
    # In this process as well, so that the reason comes at once and not after two starts.
    named = open_source(plan.root, plan.bundle, plan.model_version).scan()
    if not named:
        raise ServingError(
            f"Nothing is promoted in {plan.root} yet, so there is nothing to serve.",
            hint="Train and promote one (retiderm run TASK --data SOURCE), or name one with --bundle.",
        )
    _require_free(plan.host, plan.port, "--port")
    if plan.gateway is not None:
        _check_gateway(plan.gateway)
    if plan.grpc_port is not None:
        _require_free(plan.host, plan.grpc_port, "--grpc-port")
    grpc_port = plan.grpc_port or _next_free(plan.host, plan.port + 1, set())
    inner = plan.predictor_port or _next_free("127.0.0.1", grpc_port + 1, {plan.port, grpc_port})
    inner_http = _next_free("127.0.0.1", inner + 1, {plan.port, grpc_port, inner})
    stop = threading.Event()

    def ask_to_stop(number: int, frame: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, ask_to_stop) for number in (signal.SIGINT, signal.SIGTERM)}
    children: list[_Child] = []
    own = tempfile.TemporaryDirectory(prefix="retiderm-serve-")
    token: str | None = None
    try:
        what = _what(plan)
        tuning = ["--precision", plan.precision, *(["--threads", str(plan.threads)] if plan.threads else [])]
        ports = ["--http-port", str(inner_http), "--grpc-port", str(inner)]
        children.append(_Child("predictor", "serving.predictor", [*what, *ports, *tuning]))
        outer = ["--host", plan.host, "--http-port", str(plan.port), "--grpc-port", str(grpc_port)]
        hop = ["--predictor", f"127.0.0.1:{inner}"]
        children.append(_Child("transformer", "serving.transformer", [*what, *outer, *hop]))
        local = "127.0.0.1" if plan.host in ("0.0.0.0", "::") else plan.host
        endpoints = Endpoints(
            url=f"http://{local}:{plan.port}",
            grpc=f"{local}:{grpc_port}",
            predictor=f"http://127.0.0.1:{inner_http}",
            models=tuple(sorted(champions(named) or named)),
        )
        until = time.monotonic() + plan.start_timeout_s
        if plan.gateway is not None:
            ready = Path(own.name) / "gateway.json"
            environment = _gateway_environment(plan.gateway, endpoints.url)
            token = _first_token(environment, stop, until)
            children.append(
                _Child("gateway", "serving.gateway", ["--ready-file", str(ready)], environment=environment)
            )
            if _wait(ready.exists, children, stop, until):
                endpoints = replace(endpoints, gateway=json.loads(ready.read_text())["url"])
        if _wait(lambda: _is_ready(endpoints.url), children, stop, until):
            if plan.ready_file is not None:
                write_json(plan.ready_file, endpoints.to_dict())
            on_ready(endpoints)
            if plan.gateway is not None:
                on_token(token)
                token = None
        while not stop.wait(0.2):
            _require_alive(children)
    finally:
        # The gateway first, then the transformer: what is in flight still finds what is behind it.
        for child in reversed(children):
            child.stop(plan.grace_s + 5)
        for number, handler in before.items():
            signal.signal(number, handler)
        if token is not None:
            # It is in the store: nobody could ever use it if it weren't told.
            on_token(token)
        own.cleanup()
        if plan.ready_file is not None:
            plan.ready_file.unlink(missing_ok=True)


def _check_gateway(plan: GatewayPlan) -> None:
    if find_spec("sqlalchemy") is None:
        raise ServingError(
            "The gateway is not installed here.",
            hint="pip install 'retiderm[gateway]', or serve the models alone: --no-gateway.",
        )
    if plan.port:
        _require_free(plan.host, plan.port, "--gateway-port")


def _gateway_environment(plan: GatewayPlan, models: str) -> dict[str, str]:
    return {
        "GATEWAY_MODELS_URL": models,
        "BACKSERVER_HOST": plan.host,
        "BACKSERVER_PORT": str(plan.port),
    }


def _first_token(environment: Mapping[str, str], stop: threading.Event, until: float) -> str | None:
    """A token, where the gateway's store has none yet; made by a process of its own, as all that is there."""
    made = subprocess.Popen(
        [sys.executable, "-m", "serving.gateway.cli", "first"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
        # A terminal's Ctrl-C is for us.
        start_new_session=True,
    )
    while made.poll() is None and time.monotonic() < until and not stop.wait(0.05):
        pass
    if made.poll() is None:
        made.terminate()
    out, err = made.communicate()
    if made.returncode != 0 and not stop.is_set():
        said = [line for line in err.splitlines() if line.strip()]
        wrong = [line.removeprefix("error: ") for line in said if line.startswith("error: ")]
        hints = [line.removeprefix("hint: ") for line in said if line.startswith("hint: ")]
        raise ServingError(
            f"The gateway can't start: {(wrong or said or ['it said nothing'])[-1]}",
            hint=hints[-1] if hints else None,
        )
    return out.strip() or None


def _what(plan: ServePlan) -> list[str]:
    what = ["--root", str(plan.root)] if plan.root is not None else ["--bundle", str(plan.bundle)]
    if plan.model_version:
        what += ["--model-version", plan.model_version]
    return [*what, "--grace-s", str(plan.grace_s)]


def _wait(ready: Callable[[], bool], children: Sequence[_Child], stop: threading.Event, until: float) -> bool:
    while not stop.wait(0.05):
        _require_alive(children)
        if ready():
            return True
        if time.monotonic() > until:
            raise ServingError("Not ready in time.", hint="See the log above for why.")
    return False


def _is_ready(url: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{url}/v2/health/ready", timeout=5) as answer:
            return bool(json.load(answer).get("ready"))
    except (OSError, ValueError):
        return False


def _require_alive(children: Sequence[_Child]) -> None:
    for child in children:
        code = child.process.poll()
        if code is not None:
            how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
            raise ServingError(f"The {child.name} {how}: {child.reason()}")


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def _require_free(host: str, port: int, option: str) -> None:
    if not _is_free(host, port):
        raise ServingError(f"Port {port} is taken by another program.", hint=f"Choose another with {option}.")


def _next_free(host: str, wish: int, taken: set[int]) -> int:
    for port in range(wish, min(wish + 20, 65536)):
        if port not in taken and _is_free(host, port):
            return port
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
