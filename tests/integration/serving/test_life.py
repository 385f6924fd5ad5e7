"""What happens to requests when versions change, processes die and disks lie."""

from __future__ import annotations

import json
import operator
import re
import shutil
import socket
import threading
from collections import Counter
from collections.abc import Iterator
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
from tests.integration.serving.harness import PATIENCE_S, WIRES, Reply, Servers, ask, get, promote, until

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
    forever = ("--predictor-timeout-s", str(10 * PATIENCE_S))
    with Servers(root, root / "servers", poll_s=0.05, transformer_options=forever).running() as running:
        yield running


def version(reply: Reply) -> str:
    return str(reply.documents[0]["model"]["version"])


def complaints(servers: Servers) -> list[int]:
    """How often each of the two refused a pointer: it has looked, for certain, when that changes."""
    logs = [process.log.read_text() for process in (servers.predictor, servers.transformer)]
    return [text.count("pointer of dr_grading ignored") for text in logs]


def is_ready(servers: Servers) -> bool:
    return get(f"{servers.url}/v2/health/ready").status_code == 200


def test_a_promotion_under_load_loses_no_request(living: Servers, versions: dict[str, Bundle]) -> None:
    stop, seen = threading.Event(), Counter[str]()

    def keep_asking(wire: str) -> list[Reply]:
        replies = []
        while not stop.is_set():
            replies.append(ask(living, wire, [GOOD]))
            if replies[-1].ok:
                seen[version(replies[-1])] += 1
        return replies

    with ThreadPoolExecutor(len(WIRES)) as pool:
        asking = [pool.submit(keep_asking, wire) for wire in WIRES]
        try:
            for name in ("2", "3", "1", "3", "2", "1"):
                promote(living.root, versions[name], name)
                until(lambda name=name: version(ask(living, "v2 binary", [GOOD])) == name)  # type: ignore[misc]
                # Not before those who go on asking have met it as well.
                before = seen[name]
                until(lambda name=name, before=before: seen[name] > before)  # type: ignore[misc]
        finally:
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
    assert get(f"{living.predictor_url}/v2/models/dr_grading").json()["versions"] == [before]
    promote(living.root, versions["1"], "1")
    until(lambda: version(ask(living, "v1", [GOOD])) == "1")


@pytest.mark.parametrize("text", ["", '{"format": 1, "task": "dr_gr', "null", '{"format": 99}', "[]"])
def test_a_half_written_pointer_is_ignored(living: Servers, text: str) -> None:
    whole = read_pointer(living.root, "dr_grading")
    assert whole is not None
    try:
        # The same complaint twice is said once: another one in between, whatever was wrong before.
        for written in ('{"', text):
            before = complaints(living)
            # In one step, or what is read in the middle of it is complained of as well.
            new = living.root / "new"
            new.write_text(written)
            new.replace(pointer_file(living.root, "dr_grading"))
            until(lambda before=before: all(map(operator.gt, complaints(living), before)))  # type: ignore[misc]
        assert version(ask(living, "v2 json", [GOOD])) == whole.version
        until(lambda: is_ready(living))
    finally:
        write_pointer(living.root, whole)


def test_a_pointer_to_nothing_is_ignored(living: Servers) -> None:
    path = pointer_file(living.root, "dr_grading")
    whole = read_pointer(living.root, "dr_grading")
    assert whole is not None
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": "77", "path": "versions/77-gone"}))
    try:
        for process in (living.predictor, living.transformer):
            until(lambda log=process.log: "version 77 may not serve" in log.read_text())  # type: ignore[misc]
        assert version(ask(living, "grpc", [GOOD])) == whole.version
    finally:
        write_pointer(living.root, whole)


def test_a_new_task_is_served_when_it_is_promoted(living: Servers, tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "acne", task="acne", quality="photo")
    assert ask(living, "v1", [GOOD], task="acne").status == 404
    promote(living.root, bundle, "1")
    until(lambda: ask(living, "v1", [GOOD], task="acne").ok)
    assert "acne" in get(f"{living.url}/v2/models").json()["models"]
    assert read_pointer(living.root, "acne") is not None


def test_a_killed_predictor_is_a_503_and_its_return_is_noticed(living: Servers) -> None:
    assert ask(living, "v1", [GOOD]).ok
    living.predictor.kill()
    for wire in WIRES:
        # At once: for one that is there and says nothing it would wait longer than we do.
        reply = ask(living, wire, [GOOD])
        assert reply.status == ("UNAVAILABLE" if wire == "grpc" else 503), reply
        assert reply.headers["retry-after"] == "1"
        assert reply.code == "unavailable"
    assert get(f"{living.url}/v2/health/live").status_code == 200
    assert get(f"{living.url}/v2/health/ready").status_code == 503
    # Quality needs no predictor.
    blurred = ask(living, "v1", [pictures.file(pictures.blurred(), "jpeg")])
    assert blurred.documents[0]["quality"]["verdict"] == "retake"
    living.predictor.start()
    living.wait_ready()
    assert ask(living, "v1", [GOOD]).ok


def test_health_answers_while_busy(living: Servers) -> None:
    large = pictures.file(pictures.sharp(2400), "jpeg")
    stop, replies = threading.Event(), list[Reply]()

    def keep_asking() -> None:
        while not stop.is_set():
            replies.append(ask(living, "v2 binary", [large] * 24))

    with (
        ThreadPoolExecutor(1) as pool,
        httpx.Client(base_url=living.url, timeout=PATIENCE_S) as outer,
        httpx.Client(base_url=living.predictor_url, timeout=PATIENCE_S) as inner,
    ):

        def answered_in_a_row() -> bool:
            """Whether both told five times that they live while one and the same request was worked on."""
            before = len(replies)
            if in_flight(living) == 0:
                return False
            for client in (outer, inner) * 5:
                assert client.get("/v2/health/live").status_code == 200
            return in_flight(living) > 0 and len(replies) == before

        asking = pool.submit(keep_asking)
        try:
            # Work on the event loop would hold the first of them up until the request is answered.
            until(answered_in_a_row)
        finally:
            stop.set()
        asking.result()
    assert all(reply.ok for reply in replies)


def test_a_full_queue_says_when_to_come_again(tmp_path: Path, versions: dict[str, Bundle]) -> None:
    promote(tmp_path, versions["1"], "1")
    few = Servers(tmp_path, tmp_path / "few", transformer_options=("--max-requests", "1"))
    with few.running(), ThreadPoolExecutor(1) as pool:
        for wire in WIRES:
            with few.predictor.frozen():
                first = pool.submit(ask, few, wire, [GOOD])
                until(lambda: in_flight(few) == 1)
                refused = [ask(few, wire, [GOOD]) for _ in range(3)]
            assert first.result().ok
            for reply in refused:
                assert reply.status == ("UNAVAILABLE" if wire == "grpc" else 503), reply
                assert reply.code == "overloaded"
                assert int(reply.headers["retry-after"]) >= 1
            assert ask(few, wire, [GOOD]).ok


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
        half.settimeout(PATIENCE_S)
        with servers.predictor.frozen():
            half.sendall(head.encode() + body[:100])
            remote = pool.submit(ask, servers, "grpc", [large] * 16)
            until(lambda: in_flight(servers) >= 1)
            stopped = pool.submit(servers.transformer.terminate)
            until(lambda: not listens(servers))
            half.sendall(body[100:])
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
    text = get(f"{servers.url}/metrics").text
    found = re.search(r'^retiderm_in_flight\{queue="transformer"\} (\S+)', text, re.M)
    return float(found.group(1)) if found else 0.0


def listens(servers: Servers) -> bool:
    try:
        socket.create_connection(("127.0.0.1", servers.ports[0]), timeout=PATIENCE_S).close()
    except ConnectionRefusedError:
        return False
    return True


def test_nothing_promoted_is_said_and_not_served(tmp_path: Path) -> None:
    servers = Servers(tmp_path, tmp_path / "empty")
    servers.predictor.start()
    assert servers.predictor.process is not None
    assert servers.predictor.process.wait(PATIENCE_S) == 1
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
    assert servers.predictor.process.wait(PATIENCE_S) == 1
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
        until(lambda: get(f"{servers.url}/v2/models/dr_grading/ready").status_code == 200)
        assert get(f"{servers.url}/v2/models/other/ready").status_code == 503
