"""The registry through a real MLflow server: a process of its own, with artifacts that it proxies."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from data.errors import IntegrityError, ParityError, RegistryError
from data.paths import Home
from serving.core.pointer import read_pointer
from tests.bundles import tiny_bundle
from training.registry.client import Registry
from training.registry.gate import GateRules, judge
from training.registry.ledger import Ledger
from training.registry.promotion import promote, rollback
from training.registry.verify import verify

#: Each needs a start of MLflow's server.
pytestmark = pytest.mark.slow

PROVED = {name: {"passed": True} for name in ("onnx", "cam", "served")}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
    }
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'server.db'}", "--workers", "1"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        url = f"http://127.0.0.1:{port}"
        try:
            _wait(url, process, folder / "log.txt")
            yield url, folder / "artifacts"
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise AssertionError(log.read_text()[-3000:])
        try:
            with urllib.request.urlopen(url + "/health", timeout=30) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("the server did not start: " + log.read_text()[-3000:])


def test_the_whole_life_of_two_versions(server: tuple[str, Path], home: Home, tmp_path: Path) -> None:
    url, _ = server
    registry = Registry(url)
    first = tiny_bundle(tmp_path / "a", seed=1, parity=PROVED)
    version = registry.register(first)
    assert registry.register(first) == version  # the same again is the same version
    assert registry.artifact_uri(version).startswith("mlflow-artifacts:/")
    assert judge(registry, version, GateRules(floors={"auc": 0.7})).accepted
    promote(registry, version)
    second = registry.register(
        tiny_bundle(tmp_path / "b", seed=2, test_digest="sha256:" + "1" * 64, parity=PROVED)
    )
    judge(registry, second, GateRules(floors={"auc": 0.7}))
    promote(registry, second)
    rollback(registry, "dr_grading", why="to see that it goes")
    pointer = read_pointer(home.serving, "dr_grading")
    assert pointer is not None
    assert (pointer.version, pointer.digest) == ("1", first.digest)
    assert [v.version for v in registry.versions("dr_grading")] == ["2", "1"]
    assert registry.champion("dr_grading") == registry.get("dr_grading", "@champion")
    assert registry.get("dr_grading", first.digest[:20]).aliases == ("champion",)
    assert "## Gate: accepted" in registry.page(version)
    assert verify(registry) == []
    head = Ledger().head()
    assert head is not None
    assert registry.ledger_heads() == {"dr_grading": head.to_json()}


def test_altered_artifacts_are_refused(server: tuple[str, Path], home: Home, tmp_path: Path) -> None:
    url, artifacts = server
    registry = Registry(url)
    version = registry.register(tiny_bundle(tmp_path / "a", task="skin_lesion", seed=3, parity=PROVED))
    (model,) = artifacts.glob(f"*/{version.run_id}/artifacts/versions/*/bundle/model.onnx")
    model.write_bytes(model.read_bytes()[:-3] + b"xyz")
    with pytest.raises(IntegrityError, match="not the file that was exported"):
        registry.bundle(version)
    assert not list((home.root / "cache" / "bundles").glob("[!.]*"))


def test_a_bundle_without_proofs_is_no_version(server: tuple[str, Path], home: Home, tmp_path: Path) -> None:
    registry = Registry(server[0])
    parity = {"onnx": {"passed": True}, "cam": {"passed": False}}
    with pytest.raises(ParityError, match=r"'cam' failed\. The proof of parity 'served' is missing"):
        registry.register(tiny_bundle(tmp_path / "a", task="unproved", parity=parity))
    assert registry.versions("unproved") == []


def test_a_server_that_is_away_says_so(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    # Ours, so that nobody else listens there, and nobody does.
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        with pytest.raises(RegistryError, match="listing the tasks"):
            Registry(f"http://127.0.0.1:{port}").tasks()
