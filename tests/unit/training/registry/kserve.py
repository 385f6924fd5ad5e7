"""KServe's part of the Kubernetes API behind a small server, and controllers that behave or don't.

The exchange is real (the kubernetes client, HTTP, JSON merge patch by RFC 7386); the controller behind it is
played: it moves ``status`` as KServe does.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ROUTE = "/apis/serving.kserve.io/v1beta1/namespaces/models/inferenceservices/dr-grading"


def merge(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


class Cluster:
    """InferenceServices behind HTTP. ``react`` plays the controller, at each change and each look.

    ``service`` is the champion's; ``add_challenger`` applies the component with the other one.
    """

    def __init__(self) -> None:
        self.service: dict[str, Any] = _service("dr-grading")
        self.challenger: dict[str, Any] | None = None
        self.patches: list[tuple[str, dict[str, Any]]] = []
        self.answers: dict[str, int] = {}
        self.react: Callable[[Cluster], None] = ready
        cluster = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer("GET")

            def do_PATCH(self) -> None:
                patch = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                which = self._which()
                if getattr(cluster, which, None) and "PATCH" not in cluster.answers:
                    cluster.patches.append((self.headers["Content-Type"], patch))
                    setattr(cluster, which, merge(getattr(cluster, which), patch))
                    getattr(cluster, which)["metadata"]["generation"] += 1
                self._answer("PATCH")

            def _which(self) -> str:
                return {ROUTE: "service", f"{ROUTE}-challenger": "challenger"}.get(self.path, "")

            def _answer(self, method: str) -> None:
                there = getattr(cluster, self._which(), None) is not None
                code = cluster.answers.get(method, 200 if there else 404)
                cluster.react(cluster)
                body = json.dumps(
                    getattr(cluster, self._which()) if code == 200 else {"kind": "Status", "code": code}
                ).encode()
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    @property
    def uri(self) -> str | None:
        return self.service["spec"]["predictor"]["model"].get("storageUri")

    def add_challenger(self) -> None:
        self.challenger = _service("dr-grading-challenger")
        self.challenger["metadata"]["annotations"] = {"serving.kserve.io/stop": "true"}

    def close(self) -> None:
        if self.thread.is_alive():
            self.server.shutdown()
            self.server.server_close()
            self.thread.join()


def _service(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": name, "generation": 1},
        "spec": {"predictor": {"model": {"modelFormat": {"name": "retiderm-bundle"}}}},
        "status": {},
    }


def ready(cluster: Cluster) -> None:
    for service in (cluster.service, cluster.challenger):
        if service is not None:
            notes = service["metadata"].get("annotations", {})
            stopped = notes.get("serving.kserve.io/stop") == "true"
            service["status"] = {
                "observedGeneration": service["metadata"]["generation"],
                "modelStatus": {"transitionStatus": "UpToDate"},
                "conditions": [{"type": "Ready", "status": "False" if stopped else "True"}],
            }


def ready_on_third_look(cluster: Cluster) -> None:
    """Sees the change late, loads, and is ready at last."""
    generation = cluster.service["metadata"]["generation"]
    looks = cluster.service.setdefault("looks", {})
    looks[str(generation)] = looks.get(str(generation), 0) + 1
    status = cluster.service["status"]
    if looks[str(generation)] == 3:
        status["observedGeneration"] = generation
        status["modelStatus"] = {"transitionStatus": "InProgress"}
        status["conditions"] = [{"type": "Ready", "status": "False", "message": "pulling"}]
    if looks[str(generation)] >= 5:
        ready(cluster)


def broken(cluster: Cluster) -> None:
    cluster.service["status"] = {
        "observedGeneration": cluster.service["metadata"]["generation"],
        "modelStatus": {
            "transitionStatus": "BlockedByFailedLoad",
            "lastFailureInfo": {"reason": "ModelLoadFailed", "message": "no such bucket"},
        },
        "conditions": [{"type": "Ready", "status": "True"}],
    }
