"""A real HTTP server that speaks the few routes of Kubeflow Pipelines' API that ``submit`` uses."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Kubeflow:
    """What the server holds and was sent."""

    url: str = ""
    token: str | None = None
    experiments: list[dict[str, Any]] = field(default_factory=list)
    runs: list[dict[str, Any]] = field(default_factory=list)
    recurring: list[dict[str, Any]] = field(default_factory=list)


class _Handler(BaseHTTPRequestHandler):
    state: Kubeflow

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _let_in(self) -> bool:
        wanted = f"Bearer {self.state.token}"
        if self.state.token and self.headers.get("authorization") != wanted:
            self._answer(401, {"error": "who are you?"})
            return False
        return True

    def do_GET(self) -> None:
        if not self._let_in():
            return
        path = self.path.partition("?")[0]
        if path == "/apis/v2beta1/healthz":
            self._answer(200, {"multi_user": False})
        elif path == "/apis/v2beta1/experiments":
            self._answer(200, {"experiments": self.state.experiments})
        else:
            self._answer(404, {"error": f"no route {path}"})

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        body = json.loads(self.rfile.read(length))
        if not self._let_in():
            return
        kinds = {
            "/apis/v2beta1/experiments": (self.state.experiments, "experiment_id", "e"),
            "/apis/v2beta1/runs": (self.state.runs, "run_id", "r"),
            "/apis/v2beta1/recurringruns": (self.state.recurring, "recurring_run_id", "j"),
        }
        path = self.path.partition("?")[0]
        if path not in kinds:
            self._answer(404, {"error": f"no route {path}"})
            return
        kept, key, letter = kinds[path]
        kept.append({**body, key: f"{letter}{len(kept)}"})
        self._answer(200, kept[-1])


@contextlib.contextmanager
def kubeflow(token: str | None = None) -> Iterator[Kubeflow]:
    """The server, on a free port of loopback."""
    state = Kubeflow(token=token)
    handler = type("Handler", (_Handler,), {"state": state})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
