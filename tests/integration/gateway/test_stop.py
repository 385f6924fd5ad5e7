"""A gateway that is told to stop: requests are answered, what waits for nothing is not waited for."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from tests.gateway_live import Live, live_gateway, photograph
from tests.integration.serving.harness import free_port

NOWHERE = "http://127.0.0.1:9"


class SlowModels(ThreadingHTTPServer):
    """Models that answer, badly, when they may."""

    daemon_threads = True

    def __init__(self) -> None:
        self.asked, self.go_on = threading.Event(), threading.Event()
        super().__init__(("127.0.0.1", 0), _SlowAnswer)


class _SlowAnswer(BaseHTTPRequestHandler):
    server: SlowModels

    def do_GET(self) -> None:
        self._answer(404)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.server.asked.set()
        self.server.go_on.wait(120)
        self._answer(500)

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")


@contextlib.contextmanager
def slow_models() -> Iterator[tuple[SlowModels, str]]:
    server = SlowModels()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.go_on.set()
        server.shutdown()
        thread.join()
        server.server_close()


def told_to_stop(live: Live) -> None:
    assert live.process is not None
    assert live.process.process is not None
    live.process.process.send_signal(signal.SIGTERM)


def connected(live: Live) -> socket.socket:
    host, port = live.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=60)


def in_flight(live: Live) -> float:
    lines = httpx.get(f"{live.url}/metrics", trust_env=False, timeout=60).text.splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("retiderm_gateway_in_flight ")))


def read_all(connection: socket.socket) -> bytes:
    said = b""
    while piece := connection.recv(65536):
        said += piece
    return said


@pytest.mark.slow
def test_what_is_in_work_is_answered_and_what_is_stuck_is_not_waited_for(tmp_path: Path) -> None:
    with slow_models() as (models, url), ExitStack() as open_:
        live = open_.enter_context(live_gateway(tmp_path, url, GATEWAY_SYSTEMS="v1"))
        token = live.token()
        answers: list[int] = []

        def ask() -> None:
            with live.client(token) as client:
                given = {"content-type": "image/jpeg"}
                query = {"task": "dr_grading"}
                sent = client.post("/v1/predictions", params=query, content=photograph(1), headers=given)
                answers.append(sent.status_code)

        asking = threading.Thread(target=ask)
        asking.start()
        assert models.asked.wait(60)
        idle, silent, half = (open_.enter_context(connected(live)) for _ in range(3))
        idle.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        while b"alive" not in idle.recv(65536):
            pass
        head = f"POST /v1/images HTTP/1.1\r\nHost: x\r\nx-api-key: {token}\r\nContent-Type: image/jpeg\r\n"
        half.sendall(head.encode() + b"Content-Length: 100000\r\n\r\n" + b"x" * 1000)
        while in_flight(live) < 3:  # the question, the half body, and this one
            time.sleep(0.05)
        told_to_stop(live)
        # Who asks nothing is let go at once, whatever others do.
        assert (read_all(idle), read_all(silent)) == (b"", b"")
        assert not answers
        stuck = read_all(half)
        assert b" 503 " in stuck.splitlines()[0]
        assert b"retry-after" in stuck.lower()
        models.go_on.set()
        asking.join()
        # The model's answer was none, and that is told.
        assert answers == [502]
        assert live.stop() == 0


@pytest.mark.slow  # what is in work has 20 s
def test_an_image_store_that_hangs_keeps_no_process(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = {
            "STORAGE_DIR": "s3://bucket/x",
            "GATEWAY_S3_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}",
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "x",
            "AWS_REGION": "us-east-1",
        }
        with live_gateway(tmp_path, NOWHERE, GATEWAY_SYSTEMS="v1", **place) as live:
            token = live.token()

            def send() -> None:
                with contextlib.suppress(httpx.HTTPError), live.client(token) as client:
                    client.post("/v1/images", content=photograph(1), headers={"content-type": "image/jpeg"})

            sending = threading.Thread(target=send)
            sending.start()
            held, _ = silent.accept()
            # boto3 would wait for 20 s, and then once more.
            assert live.stop() == 0
            sending.join()
            held.close()


def test_counts_have_a_port_of_their_own(tmp_path: Path) -> None:
    port = free_port()
    with live_gateway(tmp_path, NOWHERE, GATEWAY_SYSTEMS="v1", GATEWAY_METRICS_PORT=str(port)) as live:
        assert httpx.get(f"{live.url}/metrics", trust_env=False, timeout=60).status_code == 404
        there = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False, timeout=60)
        assert "retiderm_gateway_requests_total" in there.text
        assert json.loads(live.ready_file.read_text())["url"] == live.url
        assert live.stop() == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False, timeout=60)
