"""``retiderm serve``: the models and the gateway by one command, a token that works, and an orderly end."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.bundles import tiny_bundle
from tests.gateway_live import GRADES, LESIONS, form_of, photograph
from tests.integration.serving.harness import free_port, promote

SYSTEMS = "s0,s2"


@pytest.fixture(scope="module")
def promoted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A serving root with two of the tasks."""
    folder = tmp_path_factory.mktemp("promoted")
    for task, heads in (("dr_grading", {"grade": GRADES}), ("skin_lesion", {"lesion": LESIONS})):
        promote(folder / "serving", tiny_bundle(folder / task, task=task, heads=heads, quality="photo"), "1")
    return folder / "serving"


class Served:
    """``retiderm serve`` on ports of its own."""

    def __init__(self, folder: Path, root: Path, **environment: str) -> None:
        self.ready = folder / "ready.json"
        self.ports = [free_port() for _ in range(4)]
        rest, grpc, inner, gateway = map(str, self.ports)
        command = [
            sys.executable, "-m", "pipelines.cli", "serve", "--root", str(root), "--port", rest,
            "--grpc-port", grpc, "--predictor-port", inner, "--gateway-port", gateway,
            "--ready-file", str(self.ready),
        ]  # fmt: skip
        told = {
            "RETIDERM_HOME": str(folder / "home"),
            "GATEWAY_SYSTEMS": SYSTEMS,
            "CHECK_IMAGE_TASKS": "skin_lesion",
            "OMP_NUM_THREADS": "1",
        }
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **told, **environment},
        )

    def wait(self) -> dict[str, Any]:
        deadline = time.monotonic() + 180
        while not self.ready.exists():
            assert self.process.poll() is None, self.process.communicate()[1][-3000:]
            assert time.monotonic() < deadline
            time.sleep(0.05)
        found: dict[str, Any] = json.loads(self.ready.read_text())
        return found

    @property
    def children(self) -> dict[str, psutil.Process]:
        names = ("predictor", "transformer", "gateway")
        return {
            next(name for name in names if f"serving.{name}" in child.cmdline()): child
            for child in psutil.Process(self.process.pid).children()
        }

    def stop(self, how: int = signal.SIGTERM) -> tuple[str, str]:
        self.process.send_signal(how)
        return self.process.communicate(timeout=120)


@contextlib.contextmanager
def serving(folder: Path, root: Path, **environment: str) -> Iterator[Served]:
    served = Served(folder, root, **environment)
    try:
        yield served
    finally:
        if served.process.poll() is None:
            served.stop()


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def test_one_command_serves_apps_with_the_token_that_it_prints(promoted: Path, tmp_path: Path) -> None:
    with serving(tmp_path, promoted) as served:
        where = served.wait()
        assert where["gateway"] == f"http://127.0.0.1:{served.ports[3]}"
        children = served.children
        assert set(children) == {"predictor", "transformer", "gateway"}
        for child in children.values():
            mine = [c for c in psutil.net_connections("tcp") if c.pid == child.pid and c.status == "LISTEN"]
            assert {c.laddr.ip.removeprefix("::ffff:") for c in mine} == {"127.0.0.1"}
        with httpx.Client(base_url=where["gateway"], trust_env=False, timeout=60) as client:
            assert client.get("/readyz").json() == {
                "status": "ready", "store": True, "systems": {"s0": True, "s2": True},
            }  # fmt: skip
            assert client.get("/s0/health").json()["models_loaded"] == ["skin_lesion"]
            assert client.get("/s2/health").json()["model_loaded"] is True
            assert client.post("/upload").status_code == 401

        # A second start, while the token can't be told a second time.
        out, _ = served.stop(signal.SIGINT)
        assert served.process.returncode == 0
        assert f"gateway  {where['gateway']}\n" in out
        assert f"docs     {where['gateway']}/docs\n" in out
        assert "/review/" not in out  # which is not among the systems asked for
        (token,) = re.findall(r"^token    (rtb_\S+)$", out, re.MULTILINE)
        assert not any(child.is_running() for child in children.values())
        assert all(is_free(port) for port in served.ports)
        assert not served.ready.exists()

    with serving(tmp_path, promoted) as again:
        where = again.wait()
        headers = {"x-api-key": token}
        with httpx.Client(base_url=where["gateway"], headers=headers, trust_env=False, timeout=60) as client:
            checked = client.post("/check-image", files=form_of(photograph(3, size=480)))
            assert checked.status_code == 200, checked.text
            assert checked.json()["predictions"]
        out, log = again.stop()
        assert again.process.returncode == 0
        assert "rtb_" not in out + log
        assert "there are some already" in out
        assert all(is_free(port) for port in again.ports)


@pytest.mark.slow
def test_who_dies_is_named_and_nothing_goes_on(promoted: Path, tmp_path: Path) -> None:
    with serving(tmp_path, promoted, API_KEY="an-old-services-key") as served:
        where = served.wait()
        with httpx.Client(base_url=where["gateway"], trust_env=False, timeout=60) as client:
            assert client.post("/upload", headers={"x-api-key": "an-old-services-key"}).status_code == 415
        children = served.children
        children["gateway"].kill()
        out, log = served.process.communicate(timeout=120)
        assert served.process.returncode == 1
        assert "The gateway was killed by signal 9" in log
        # The old service's key is one: no other was made.
        assert "rtb_" not in out
        assert not any(child.is_running() for child in children.values())


def test_what_keeps_the_gateway_from_starting_is_said(promoted: Path, tmp_path: Path) -> None:
    with serving(tmp_path, promoted, DATABASE_URL="postgresql://127.0.0.1:9/none") as served:
        _, log = served.process.communicate(timeout=180)
        assert served.process.returncode == 1
        assert "The gateway can't start" in log
        assert "Traceback" not in log
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        shown = subprocess.run(
            [sys.executable, "-m", "pipelines.cli", "serve", "--root", str(promoted), "--port",
             str(free_port()), "--gateway-port", port],
            capture_output=True, text=True, timeout=180, check=False,
        )  # fmt: skip
    assert shown.returncode == 1
    assert f"Port {port} is taken" in shown.stderr
    assert "--gateway-port" in shown.stderr


def test_the_gateway_alone_and_its_tokens(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "RETIDERM_HOME": str(tmp_path),
        "GATEWAY_SYSTEMS": "s0",
        "GATEWAY_MODELS_URL": "http://127.0.0.1:9",
    }
    cli = [sys.executable, "-m", "pipelines.cli"]
    made = subprocess.run(
        [*cli, "token", "first"], env=environment, capture_output=True, text=True, check=True
    )
    token = made.stdout.strip()
    assert re.fullmatch(r"rtb_\S+", token)
    again = subprocess.run(
        [*cli, "token", "first"], env=environment, capture_output=True, text=True, check=True
    )
    assert again.stdout == ""
    ready = tmp_path / "ready.json"
    gateway = subprocess.Popen(
        [*cli, "gateway", "--port", "0", "--ready-file", str(ready)],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 180
        while not ready.exists():
            assert gateway.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        url = json.loads(ready.read_text())["url"]
        headers = {"x-api-key": token}
        answer = httpx.post(
            f"{url}/upload", headers=headers, files=form_of(photograph()), trust_env=False, timeout=60
        )
        assert answer.status_code == 200
    finally:
        gateway.send_signal(signal.SIGINT)
        _, said = gateway.communicate(timeout=120)
    assert gateway.returncode == 0
    assert "Traceback" not in said
    assert not ready.exists()


def test_a_token_that_was_made_is_told_even_if_nothing_starts(promoted: Path, tmp_path: Path) -> None:
    with serving(tmp_path, promoted, GATEWAY_SIGNING_KEY="zz") as served:
        out, log = served.process.communicate(timeout=180)
    assert served.process.returncode == 1
    assert "The gateway can't start: GATEWAY_SIGNING_KEY can't be read." in log
    assert "rtb_" not in out
    # The token is in the store before the images turn out to have no place.
    with serving(tmp_path, promoted, STORAGE_DIR="/proc/no/images") as served:
        out, log = served.process.communicate(timeout=180)
    assert served.process.returncode == 1
    assert "The gateway ended with code" in log
    assert re.search(r"^token    rtb_\S+$", out, re.MULTILINE)
