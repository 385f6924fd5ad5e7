"""``serve`` and ``predict`` as a person types them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from serving.core.bundle import Bundle
from tests.bundles import tiny_bundle
from tests.integration.serving import pictures
from tests.integration.serving.harness import PATIENCE_S, free_port, get, promote

CLI = [sys.executable, "-m", "serving.cli"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("bundle") / "b", quality="photo")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "eye.jpg"
    path.write_bytes(pictures.file(pictures.sharp(), "jpeg"))
    return path


@contextlib.contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    server = subprocess.Popen(
        [*CLI, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    try:
        yield server
    finally:
        if server.poll() is None:
            server.terminate()
            server.communicate(timeout=PATIENCE_S)


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*CLI, *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        env={**os.environ, **environment},
        check=False,
    )


def wait_file(path: Path, process: subprocess.Popen[str]) -> dict[str, Any]:
    deadline = time.monotonic() + PATIENCE_S
    while not path.exists():
        assert process.poll() is None, process.communicate()[1][-2000:]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    document: dict[str, Any] = json.loads(path.read_text())
    return document


def children(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children()


def test_serve_one_bundle_ask_it_and_stop_it(bundle: Bundle, image: Path, tmp_path: Path) -> None:
    port, ready = free_port(), tmp_path / "ready.json"
    with started(
        "serve", "--no-gateway", "--bundle", str(bundle.root), "--port", str(port), "--ready-file", str(ready)
    ) as server:
        where = wait_file(ready, server)
        assert where["url"] == f"http://127.0.0.1:{port}"
        assert where["models"] == ["dr_grading"]
        assert get(f"{where['url']}/v2/health/ready").json() == {"ready": True}
        both = children(server)
        assert len(both) == 2
        for child in both:
            mine = [c for c in psutil.net_connections("tcp") if c.pid == child.pid]
            listening = {c.laddr.ip.removeprefix("::ffff:") for c in mine if c.status == "LISTEN"}
            assert listening == {"127.0.0.1"}

        picture = tmp_path / "why.png"
        asked = run(
            "predict",
            str(image),
            "--task",
            "dr_grading",
            "--url",
            where["url"],
            "--json",
            "--explain",
            str(picture),
        )
        other = tmp_path / "o.png"
        offline = run(
            "predict",
            str(image),
            "--bundle",
            str(bundle.root),
            "--json",
            "--explain",
            str(other),
        )
        online, here = json.loads(asked.stdout), json.loads(offline.stdout)
        assert online["heads"] == here["heads"]
        assert online["model"] == here["model"]
        assert picture.read_bytes().startswith(b"\x89PNG")
        assert picture.read_bytes() == other.read_bytes()

        server.send_signal(signal.SIGINT)
        out, _ = server.communicate(timeout=PATIENCE_S)
        assert server.returncode == 0
        assert f"http://127.0.0.1:{port}/v2/models/dr_grading/infer" in out
        assert not any(child.is_running() for child in both)
        assert not ready.exists()


def test_predict_prints_a_table(bundle: Bundle, image: Path) -> None:
    shown = run("predict", str(image), "--bundle", str(bundle.root))
    assert shown.returncode == 0
    assert "gradable" in shown.stdout
    assert "proliferative" in shown.stdout
    assert bundle.digest[:19] in shown.stdout


def test_predict_uses_what_is_promoted(bundle: Bundle, image: Path, tmp_path: Path) -> None:
    promote(tmp_path / "serving", bundle, "4")
    shown = run("predict", str(image), "--json", RETIDERM_HOME=str(tmp_path))
    assert json.loads(shown.stdout)["model"]["version"] == "4"
    other = run("predict", str(image), "--task", "acne", RETIDERM_HOME=str(tmp_path))
    assert other.returncode == 2
    assert "Served here: dr_grading" in other.stderr


def test_predict_says_what_is_wrong_with_a_file(bundle: Bundle, tmp_path: Path) -> None:
    text = tmp_path / "fake.jpg"
    text.write_text("no photograph")
    shown = run("predict", str(text), "--bundle", str(bundle.root))
    assert shown.returncode == 1
    assert "not a JPEG" in shown.stderr
    assert "Traceback" not in shown.stderr
    gone = run("predict", str(tmp_path / "gone.jpg"), "--bundle", str(bundle.root))
    assert gone.returncode == 2
    away = run("predict", str(text), "--task", "dr_grading", "--url", f"http://127.0.0.1:{free_port()}")
    assert away.returncode == 1
    assert "retiderm serve" in away.stderr


def test_a_dead_child_ends_it_with_the_reason(bundle: Bundle, tmp_path: Path) -> None:
    ready = tmp_path / "ready.json"
    with started(
        "serve",
        "--no-gateway",
        "--bundle",
        str(bundle.root),
        "--port",
        str(free_port()),
        "--ready-file",
        str(ready),
    ) as server:
        wait_file(ready, server)
        both = children(server)
        both[0].kill()
        _, said = server.communicate(timeout=PATIENCE_S)
        assert server.returncode == 1
        assert "was killed by signal 9" in said
        assert not any(child.is_running() for child in both)


def test_a_bundle_that_may_not_serve_ends_it_with_the_reason(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "b", quality="photo")
    model = bundle.root / "model.onnx"
    content = bytearray(model.read_bytes())
    content[100] ^= 1
    model.write_bytes(content)
    with started("serve", "--no-gateway", "--bundle", str(bundle.root), "--port", str(free_port())) as server:
        _, said = server.communicate(timeout=PATIENCE_S)
        assert server.returncode == 1
        assert "error: The predictor ended with code 1" in said
        assert "is not the file that was exported" in said


def test_a_taken_port_and_an_empty_root_are_said_at_once(bundle: Bundle, tmp_path: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        shown = run("serve", "--no-gateway", "--bundle", str(bundle.root), "--port", str(port))
    assert shown.returncode == 1
    assert f"Port {port} is taken" in shown.stderr
    empty = run("serve", "--no-gateway", RETIDERM_HOME=str(tmp_path))
    assert empty.returncode == 1
    assert "Nothing is promoted" in empty.stderr


def test_children_end_with_a_killed_parent(bundle: Bundle, tmp_path: Path) -> None:
    ready = tmp_path / "ready.json"
    with started(
        "serve",
        "--no-gateway",
        "--bundle",
        str(bundle.root),
        "--port",
        str(free_port()),
        "--ready-file",
        str(ready),
    ) as server:
        wait_file(ready, server)
        both = children(server)
        server.kill()
        server.communicate()
        _, alive = psutil.wait_procs(both, timeout=PATIENCE_S)
        assert not alive


def test_the_servers_need_no_torch() -> None:
    script = (
        "import sys, serving.predictor.app, serving.transformer.app, serving.cli, serving.offline\n"
        "print([m for m in ('torch', 'kfp', 'mlflow', 'timm', 'scipy') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
