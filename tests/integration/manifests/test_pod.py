"""The pod of the manifests as processes: its rendered arguments, environment, probes, order of stopping.

Only what the serving image copies can be imported, so this is also the proof that the image's code is whole.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest

from serving.client import ask
from tests.bundles import tiny_bundle
from tests.unit.manifests.rendering import MANIFESTS, REPOSITORY, kustomize, of_kind

# What the image must do without.
REFUSED = "torch torchvision timm kfp mlflow scipy great_expectations training components pipelines"


@dataclass
class Container:
    """A container's process and its REST address on this machine."""

    process: subprocess.Popen[bytes]
    url: str
    spec: dict[str, Any]

    def probe(self, name: str) -> bool:
        """Ask as the kubelet would."""
        get = self.spec[f"{name}Probe"]["httpGet"]
        try:
            return httpx.get(self.url + get["path"], timeout=60).status_code == 200
        except httpx.HTTPError:
            return False


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[dict[str, Container]]:
    bundle = tiny_bundle(tmp_path / "bundle")
    image = tmp_path / "app"
    image.mkdir()
    for folder in ("data", "serving"):
        (image / folder).symlink_to(REPOSITORY / folder)
    (image / "sitecustomize.py").write_text(
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] in {set(REFUSED.split())!r}:\n"
        "            raise ModuleNotFoundError(f'{name} is not in the serving image')\n"
        "sys.meta_path.insert(0, Refuse())\n"
    )
    runtime = of_kind(kustomize(MANIFESTS / "overlays" / "production"), "ServingRuntime")[
        "retiderm-classifier"
    ]
    specs = runtime["spec"]["containers"]
    ports = _free_ports(specs)
    containers = {}
    try:
        for spec in specs:
            containers[spec["name"]] = _start(spec, ports, bundle.root, image, tmp_path)
        yield containers
    finally:
        for container in containers.values():
            container.process.kill()
            container.process.wait()


@pytest.mark.slow
def test_pod_answers_and_stops_in_order(pod: dict[str, Container]) -> None:
    predictor, transformer = pod["kserve-container"], pod["transformer-container"]
    for container in (predictor, transformer):
        for name in ("startup", "readiness"):
            _wait(lambda container=container, name=name: container.probe(name), container)
        assert container.probe("liveness")

    noise = np.random.default_rng(0).integers(0, 255, (256, 256, 3), dtype=np.uint8)
    picture = cv2.imencode(".png", noise)[1].tobytes()
    reply = ask(transformer.url, "dr_grading", [picture])
    assert reply.outputs["verdict"][0] in {b"gradable", b"retake", b"ungradable"}
    # The version that a promotion wrote on the service reaches the answer.
    assert reply.parameters["version"] == "7"
    # Prometheus finds both.
    for container in (predictor, transformer):
        metrics = httpx.get(container.url + "/metrics", timeout=60)
        assert metrics.status_code == 200
        assert "retiderm_" in metrics.text

    # As in a pod that is told to go: the transformer's pause is the shorter, so it ends first, and cleanly.
    for container in (transformer, predictor):
        container.process.send_signal(signal.SIGTERM)
        assert container.process.wait(timeout=180) == 0


def _start(
    spec: dict[str, Any], ports: dict[int, int], bundle: Path, image: Path, temporary: Path
) -> Container:
    _, _, module = spec["command"]
    arguments = [
        _moved(argument, ports).replace("/mnt/models", str(bundle)).replace("0.0.0.0", "127.0.0.1")
        for argument in spec["args"]
    ]
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(image),
        **{variable["name"]: _value(variable) for variable in spec["env"]},
    }
    with (temporary / f"{spec['name']}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments], cwd=image, env=environment, stdout=log, stderr=log
        )
    return Container(process, f"http://127.0.0.1:{ports[spec['ports'][0]['containerPort']]}", spec)


def _value(variable: dict[str, Any]) -> str:
    """A variable as the kubelet would set it: of a champion's annotations there is the version alone."""
    if "value" in variable:
        return str(variable["value"])
    path = variable["valueFrom"]["fieldRef"]["fieldPath"]
    return "7" if "retiderm.io/version" in path else ""


def _free_ports(specs: list[dict[str, Any]]) -> dict[int, int]:
    """Ports of this machine that are free, for each of the pod's."""
    sockets = {}
    for spec in specs:
        for port in spec["ports"]:
            sockets[port["containerPort"]] = listening = socket.socket()
            listening.bind(("127.0.0.1", 0))
    found = {port: listening.getsockname()[1] for port, listening in sockets.items()}
    for listening in sockets.values():
        listening.close()
    return found


def _moved(argument: str, ports: dict[int, int]) -> str:
    for port, free in ports.items():
        if argument.endswith((f"={port}", f":{port}")):
            return f"{argument[: -len(str(port))]}{free}"
    return argument


def _wait(ready: Any, container: Container) -> None:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        assert container.process.poll() is None, f"{container.spec['name']} ended"
        if ready():
            return
        time.sleep(0.1)
    raise AssertionError(f"{container.spec['name']} was not ready in time")
