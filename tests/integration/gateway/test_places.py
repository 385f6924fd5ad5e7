"""Clients that are slow, or many at once: others are answered all the same."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from data.errors import Overloaded
from serving.gateway import routing
from serving.gateway.access import Role, create
from serving.gateway.app import create_app
from serving.gateway.gateway import Gateway
from serving.gateway.rates import Places
from serving.gateway.server import quick_to_ask
from serving.gateway.settings import Settings
from serving.gateway.store import open_store
from tests.gateway_rows import folder_blobs

PAGE = {"x-retiderm-page": "1"}


def test_a_client_has_so_many_places() -> None:
    places = Places(2)
    with places.hold("a"), places.hold("a"), places.hold("b"), pytest.raises(Overloaded), places.hold("a"):
        pass
    with pytest.raises(ValueError, match="x"), places.hold("a"):
        raise ValueError("x")
    with places.hold("a"), places.hold("a"):
        pass


@contextlib.contextmanager
def served(app: Any, seconds: float = 0.4) -> Iterator[tuple[str, int]]:
    config = uvicorn.Config(
        app, port=0, log_config=None, http=quick_to_ask(seconds), lifespan="on", timeout_keep_alive=600
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield server.servers[0].sockets[0].getsockname()
    finally:
        server.should_exit = True
        thread.join()


def closed(connection: socket.socket) -> bool:
    connection.settimeout(120)
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:  # it was closed before something that was on its way to it came
        return True


def test_headers_come_in_time_and_bodies_may_take_theirs() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for kind in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{kind}.complete"})
            return
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    # A machine that is held up for longer than the limit sends even whole headers too late: then with more.
    for seconds in (0.4, 4.0, 20.0):
        with served(app, seconds) as place, contextlib.ExitStack() as open_:
            again, silent, half = (
                open_.enter_context(socket.create_connection(place, timeout=120)) for _ in range(3)
            )
            with contextlib.suppress(ConnectionError):
                again.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n")
                half.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n")
            # Longer than headers may take, and all the same an answer.
            time.sleep(2 * seconds)
            said = b""
            with contextlib.suppress(ConnectionError):
                again.sendall(b"ab")
                said = again.recv(1000)
            assert closed(silent)
            assert closed(half)
            if said:
                # The second request of a connection has no longer for its headers.
                again.sendall(b"GET / HTTP/1.1\r\n")
                while again.recv(1000):
                    pass
                break
    assert said.startswith(b"HTTP/1.1 200")


def test_who_shows_no_token_takes_nobodys_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Who is slow keeps the place that is tried here, however long the others take to come.
    monkeypatch.setattr(routing, "_STRANGERS_S", 600.0)
    store = open_store(f"sqlite:///{tmp_path / 'x.db'}")
    settings = Settings(models_url="http://127.0.0.1:9", systems=("s2", "review"), drift_minutes=0)
    gateway = Gateway(settings, store=store, blobs=folder_blobs(tmp_path / "images"))
    with store.write(gateway.tenant, "test") as scope:
        token = create(scope, role=Role.APP, name="app").text
    with served(create_app(gateway=gateway), 300) as place:
        url = "http://{}:{}".format(*place[:2])
        slow = b"POST /review/api/session HTTP/1.1\r\nHost: x\r\nContent-Length: 9000\r\n\r\n{"
        held = [socket.create_connection(place) for _ in range(20)]
        for connection in held:
            connection.sendall(slow)
        with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
            refused = 0
            while refused < 4:  # four of the twenty have no place
                refused = sum(_answered(connection) for connection in held)
            assert client.get("/patients/", headers={"x-api-key": token}).status_code == 200
            assert client.get("/livez").status_code == 200
            large = client.post("/review/api/session", headers=PAGE, content=b"x" * 20_000)
            assert large.status_code in (413, 503)
        for connection in held:
            connection.close()


def _answered(connection: socket.socket) -> bool:
    connection.settimeout(0.05)
    try:
        return b" 503 " in connection.recv(1000, socket.MSG_PEEK)
    except TimeoutError:
        return False
