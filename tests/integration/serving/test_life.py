"""What happens to requests when versions change, processes die and disks lie."""

from __future__ import annotations

import json
import re
import shutil
import socket
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from data.preprocess import Preprocessing
from serving.client import encode
from serving.core.bundle import Bundle
from serving.core.pointer import Pointer, pointer_file, read_pointer, version_path, write_pointer
from tests.bundles import tiny_bundle
from tests.integration.serving import pictures
from tests.integration.serving.harness import WIRES, Reply, Servers, ask, promote

GOOD = pictures.file(pictures.sharp(), "jpeg")


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    """Three versions of one task; the third preprocesses in another way."""
    base = tmp_path_factory.mktemp("versions")
    other = Preprocessing(size=(64, 64), fit="letterbox")
    return {
        "1": tiny_bundle(base / "1", quality="photo", seed=1),
        "2": tiny_bundle(base / "2", quality="photo", seed=2),
        "3": tiny_bundle(
            base / "3",
            quality="photo",
            seed=3,
            preprocessing=other.to_dict(),
            preprocessing_digest=other.digest,
        ),
    }


@pytest.fixture(scope="module")
def living(versions: dict[str, Bundle], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Servers of this module's own: its tests change what serves."""
    root = tmp_path_factory.mktemp("root")
    promote(root, versions["1"], "1")
    with Servers(root, root / "servers", poll_s=0.05).running() as running:
        yield running


def version(reply: Reply) -> str:
    return str(reply.documents[0]["model"]["version"])


def until(condition: Callable[[], bool], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it didn't happen in time"
        time.sleep(0.02)


def test_a_promotion_under_load_loses_no_request(living: Servers, versions: dict[str, Bundle]) -> None:
    stop = threading.Event()

    def keep_asking(wire: str) -> list[Reply]:
        replies = []
        while not stop.is_set():
            replies.append(ask(living, wire, [GOOD]))
        return replies

    with ThreadPoolExecutor(len(WIRES)) as pool:
        asking = [pool.submit(keep_asking, wire) for wire in WIRES]
        for name in ("2", "3", "1", "3", "2", "1"):
            promote(living.root, versions[name], name)
            until(lambda name=name: version(ask(living, "v2 binary", [GOOD])) == name)  # type: ignore[misc]
        stop.set()
        replies = [reply for future in asking for reply in future.result()]
    statuses = Counter(reply.status for reply in replies)
    assert set(statuses) == {200, "OK"}, statuses
    digests = {name: bundle.digest for name, bundle in versions.items()}
    for reply in replies:
        model = reply.documents[0]["model"]
        assert model["digest"] == digests[model["version"]]
    assert {version(reply) for reply in replies} == {"1", "2", "3"}


def test_an_altered_bundle_never_serves(living: Servers, versions: dict[str, Bundle]) -> None:
    before = version(ask(living, "v1", [GOOD]))
    bundle = versions["2"]
    path = version_path("9", bundle.digest)
    folder = living.root / "dr_grading" / path
    shutil.copytree(bundle.root, folder)
    model = folder / "model.onnx"
    altered = bytearray(model.read_bytes())
    altered[len(altered) // 2] ^= 1
    model.write_bytes(altered)
    write_pointer(living.root, Pointer("dr_grading", "9", bundle.digest, path))
    until(lambda: "may not serve" in living.predictor.log.read_text())
    for wire in WIRES:
        model_now = ask(living, wire, [GOOD]).documents[0]["model"]
        assert model_now["version"] == before
        assert model_now["digest"] == versions[before].digest
    assert httpx.get(f"{living.predictor_url}/v2/models/dr_grading").json()["versions"] == [before]
    promote(living.root, versions["1"], "1")
    until(lambda: version(ask(living, "v1", [GOOD])) == "1")


@pytest.mark.parametrize("text", ["", '{"format": 1, "task": "dr_gr', "null", '{"format": 99}', "[]"])
def test_a_half_written_pointer_is_ignored(living: Servers, text: str) -> None:
    path = pointer_file(living.root, "dr_grading")
    whole = path.read_text()
    path.write_text(text)
    time.sleep(0.2)
    try:
        assert version(ask(living, "v2 json", [GOOD])) == json.loads(whole)["version"]
        assert httpx.get(f"{living.url}/v2/health/ready").status_code == 200
    finally:
        path.write_text(whole)


def test_a_pointer_to_nothing_is_ignored(living: Servers) -> None:
    path = pointer_file(living.root, "dr_grading")
    whole = path.read_text()
    path.write_text(json.dumps(json.loads(whole) | {"version": "77", "path": "versions/77-gone"}))
    time.sleep(0.3)
    assert ask(living, "grpc", [GOOD]).ok
    path.write_text(whole)


def test_a_new_task_is_served_when_it_is_promoted(living: Servers, tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "acne", task="acne", quality="photo")
    assert ask(living, "v1", [GOOD], task="acne").status == 404
    promote(living.root, bundle, "1")
    until(lambda: ask(living, "v1", [GOOD], task="acne").ok)
    assert "acne" in httpx.get(f"{living.url}/v2/models").json()["models"]
    assert read_pointer(living.root, "acne") is not None


def test_a_killed_predictor_is_a_503_and_its_return_is_noticed(living: Servers) -> None:
    assert ask(living, "v1", [GOOD]).ok
    living.predictor.kill()
    for wire in WIRES:
        started = time.monotonic()
        reply = ask(living, wire, [GOOD])
        assert reply.status == ("UNAVAILABLE" if wire == "grpc" else 503), reply
        assert reply.headers["retry-after"] == "1"
        assert reply.code == "unavailable"
        assert time.monotonic() - started < 10  # at once, and not after the predictor's timeout of 30 s
    assert httpx.get(f"{living.url}/v2/health/live").status_code == 200
    assert httpx.get(f"{living.url}/v2/health/ready").status_code == 503
    # Quality needs no predictor.
    blurred = ask(living, "v1", [pictures.file(pictures.blurred(), "jpeg")])
    assert blurred.documents[0]["quality"]["verdict"] == "retake"
    living.predictor.start()
    living.wait_ready()
    assert ask(living, "v1", [GOOD]).ok


def test_health_answers_while_busy(living: Servers) -> None:
    large = pictures.file(pictures.sharp(2400), "jpeg")
    seconds = []
    with ThreadPoolExecutor(6) as pool:
        asking = [pool.submit(ask, living, "v2 binary", [large] * 4) for _ in range(12)]
        while not all(future.done() for future in asking):
            for url in (living.url, living.predictor_url):
                started = time.monotonic()
                assert httpx.get(f"{url}/v2/health/live", timeout=5).status_code == 200
                seconds.append(time.monotonic() - started)
    assert all(future.result().ok for future in asking)
    # A predict on the event loop would hold each of these up for seconds.
    assert statistics.median(seconds) < 0.5


def test_a_full_queue_says_when_to_come_again(tmp_path: Path, versions: dict[str, Bundle]) -> None:
    promote(tmp_path, versions["1"], "1")
    few = Servers(tmp_path, tmp_path / "few", transformer_options=("--max-requests", "1"))
    large = pictures.file(pictures.sharp(2000), "jpeg")
    with few.running(), ThreadPoolExecutor(8) as pool:
        for wire in WIRES:
            replies = list(pool.map(lambda _, wire=wire: ask(few, wire, [large] * 2), range(16)))  # type: ignore[misc]
            refused = [reply for reply in replies if not reply.ok]
            assert any(reply.ok for reply in replies)
            assert refused
            for reply in refused:
                assert reply.status == ("UNAVAILABLE" if wire == "grpc" else 503), reply
                assert reply.code == "overloaded"
                assert int(reply.headers["retry-after"]) >= 1


def test_sigterm_finishes_what_is_in_flight(tmp_path: Path, versions: dict[str, Bundle]) -> None:
    promote(tmp_path, versions["1"], "1")
    large = pictures.file(pictures.sharp(2400), "jpeg")
    servers = Servers(tmp_path, tmp_path / "term")
    body, length = encode([GOOD])
    with servers.running(), ThreadPoolExecutor(2) as pool, socket.socket() as half:
        # One that is being sent, and one that is worked on.
        half.connect(("127.0.0.1", servers.ports[0]))
        head = (
            f"POST /v2/models/dr_grading/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
            f"Content-Type: application/octet-stream\r\nInference-Header-Content-Length: {length}\r\n\r\n"
        )
        half.sendall(head.encode() + body[:100])
        remote = pool.submit(ask, servers, "grpc", [large] * 16)
        until(lambda: in_flight(servers) >= 1)
        stopped = pool.submit(servers.transformer.terminate)
        time.sleep(0.2)
        half.sendall(body[100:])
        half.settimeout(20)
        assert half.recv(100).startswith(b"HTTP/1.1 200")
        assert remote.result().ok
        assert stopped.result() == 0


def test_a_stopped_predictor_is_a_503_and_never_a_broken_answer(
    tmp_path: Path, versions: dict[str, Bundle]
) -> None:
    promote(tmp_path, versions["1"], "1")
    servers = Servers(tmp_path, tmp_path / "stop")
    large = pictures.file(pictures.sharp(2400), "jpeg")
    with servers.running(), ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask, servers, wire, [large] * 4) for wire in WIRES]
        assert servers.predictor.terminate() == 0
        assert {future.result().status for future in asking} <= {200, "OK", 503, "UNAVAILABLE"}


def in_flight(servers: Servers) -> float:
    found = re.search(
        r'^retiderm_in_flight\{queue="transformer"\} (\S+)', httpx.get(f"{servers.url}/metrics").text, re.M
    )
    return float(found.group(1)) if found else 0.0


def test_nothing_promoted_is_said_and_not_served(tmp_path: Path) -> None:
    servers = Servers(tmp_path, tmp_path / "empty")
    servers.predictor.start()
    assert servers.predictor.process is not None
    assert servers.predictor.process.wait(30) == 1
    assert "Nothing is promoted yet" in servers.predictor.log.read_text()


def test_a_bundle_that_is_altered_before_the_start_is_said(
    tmp_path: Path, versions: dict[str, Bundle]
) -> None:
    pointer = promote(tmp_path, versions["1"], "1")
    model = pointer.folder(tmp_path) / "model.onnx"
    content = bytearray(model.read_bytes())
    content[100] ^= 1
    model.write_bytes(content)
    servers = Servers(tmp_path, tmp_path / "altered")
    servers.predictor.start()
    assert servers.predictor.process is not None
    assert servers.predictor.process.wait(30) == 1
    assert "is not the file that was exported" in servers.predictor.log.read_text()


def test_a_bundle_that_cannot_be_loaded_leaves_the_others_ready(
    tmp_path: Path, versions: dict[str, Bundle]
) -> None:
    promote(tmp_path, versions["1"], "1")
    other = tiny_bundle(tmp_path.with_name(tmp_path.name + "-other"), task="other", quality="photo")
    pointer = promote(tmp_path, other, "1")
    model = pointer.folder(tmp_path) / "model.onnx"
    content = bytearray(model.read_bytes())
    content[100] ^= 1
    model.write_bytes(content)
    with Servers(tmp_path, tmp_path / "partly").running() as servers:
        assert ask(servers, "v1", [GOOD]).ok
        states = {
            task: httpx.get(f"{servers.url}/v2/models/{task}/ready").status_code
            for task in ("dr_grading", "other")
        }
    assert states == {"dr_grading": 200, "other": 503}
