"""Servers that go and come back, and disks that are full."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import socket
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from data.errors import StoreError, StoreFull
from serving.gateway.blobs import keep
from serving.gateway.blobs.s3 import S3Blobs, S3Place
from serving.gateway.store import Store, open_store
from serving.gateway.store.repositories import audit, cases, images, patients
from serving.gateway.store.types import new_id
from tests.gateway_rows import folder_blobs, image_of, tenant_of
from tests.gateway_servers import BUCKET, KEY, SECRET, new_database, postgres, s3


def test_postgresql_is_restarted() -> None:
    store = Store(new_database())
    tenant = tenant_of(store, "clinic")
    with store.write(tenant, "test") as scope:
        patients.add(scope, name="before")
        scope.audit("patient.add", "patient:1")
    # A transaction that the crash cuts off is told, and leaves nothing.
    with pytest.raises(StoreError), store.write(tenant, "test") as scope:  # noqa: PT012
        patients.add(scope, name="cut off")
        postgres().restart()
        patients.add(scope, name="too late")
    # The next ones don't notice: dead connections are found before their use.
    for _ in range(3):
        with store.write(tenant, "test") as scope:
            patients.add(scope, name="after")
    with store.read(tenant) as scope:
        assert [row.name for row in patients.listed(scope)] == ["before", "after", "after", "after"]
        assert audit.verify(scope) == []
    store.close()


def test_many_threads_while_postgresql_is_restarted() -> None:
    store = Store(new_database())
    tenant = tenant_of(store, "clinic")
    acknowledged: list[str] = []
    unexpected: list[BaseException] = []
    stop = threading.Event()

    def work(worker: int) -> None:
        n = 0
        while not stop.is_set():
            n += 1
            try:
                with store.write(tenant, "test") as scope:
                    cases.log(scope, f"{worker}-{n}", {}, by="me")
                acknowledged.append(f"{worker}-{n}")
            except StoreError:
                continue
            except BaseException as error:
                unexpected.append(error)
                return

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    while len(acknowledged) < 20 and not unexpected:
        stop.wait(0.01)
    postgres().restart()
    wanted = len(acknowledged) + 20
    while len(acknowledged) < wanted and not unexpected:
        stop.wait(0.01)
    stop.set()
    for thread in threads:
        thread.join()
    assert unexpected == []
    with store.read(tenant) as scope:
        found: list[str] = []
        page = cases.listed(scope, limit=1000)
        while page:
            found += [case.key for case in page]
            page = cases.listed(scope, after=page[-1].number, limit=1000)
    # A commit whose answer the crash swallowed may be there too; none that was acknowledged is missing.
    assert set(acknowledged) <= set(found)
    assert len(set(found)) == len(found)
    store.close()


class Gap:
    """A way to a server that can be closed and opened."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._open = True
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._open = False

    def open(self) -> None:
        self._open = True

    def end(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                here, _ = self._listener.accept()
            except OSError:
                return
            if not self._open:
                here.close()
                continue
            there = socket.create_connection(("127.0.0.1", self._to))
            for one, other in ((here, there), (there, here)):
                threading.Thread(target=self._pump, args=(one, other), daemon=True).start()

    def _pump(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while self._open and (data := one.recv(65536)):
                if not self._open:
                    break
                other.sendall(data)
        for end in (one, other):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


def test_s3_goes_and_comes_back(store: Store, tenant: str) -> None:
    server = s3()
    gap = Gap(server.port)
    at = S3Place(BUCKET, server.new_prefix(), server.endpoint, None, "us-east-1", KEY, SECRET)
    blobs = S3Blobs(replace(at, endpoint=f"http://127.0.0.1:{gap.port}"))
    kept, gone = (keep(blobs, tenant, data, "image/png") for data in (b"before", b"doubts"))
    with store.write(tenant, "test") as scope:
        first = image_of(scope, kept).id
    gap.close()
    for call in (lambda: keep(blobs, tenant, b"during", "image/png"), blobs.check):
        with pytest.raises(StoreError, match="reached"):
            call()
    # It goes between the bytes and the row: it had said that they are safe, and no clean-up came since.
    with store.write(tenant, "test") as scope:
        image_of(scope, kept)
    # Where one came, nobody can say that they are there, and the client is told.
    with store.write(tenant, "test") as scope:
        images.lock_content(scope, gone.sha256)
        images.forget_content(scope, gone.sha256)
    with pytest.raises(StoreError), store.write(tenant, "test") as scope:
        image_of(scope, gone)
    gap.open()
    kept = keep(blobs, tenant, b"during", "image/png")
    with store.write(tenant, "test") as scope:
        image_of(scope, kept)
        assert images.get(scope, first).sha256
    assert {item.bytes for item in blobs.listed(tenant)} == {6}
    assert len(list(blobs.listed(tenant))) == 3
    gap.end()


def test_a_full_disk_of_images(store: Store, tenant: str, small_disk: Path) -> None:
    blobs = folder_blobs(small_disk / "images")
    acknowledged = []
    for _ in range(100):
        data = os.urandom(100_000)
        try:
            kept = keep(blobs, tenant, data, "image/png")
        except StoreFull:
            break
        with store.write(tenant, "test") as scope:
            image_of(scope, kept)
        acknowledged.append((kept.sha256, data))
    assert 20 <= len(acknowledged) < 100
    for sha256, data in acknowledged:
        assert blobs.get(tenant, sha256) == data
    assert not list(blobs.root.rglob("*.part"))
    blobs.delete(tenant, acknowledged[0][0])
    keep(blobs, tenant, data, "image/png")


def test_a_full_disk_of_rows(small_disk: Path) -> None:
    store = open_store(f"sqlite:///{small_disk / 'gateway.db'}")
    tenant = tenant_of(store, "clinic")
    acknowledged: list[str] = []
    with pytest.raises(StoreFull):  # noqa: PT012
        for n in range(1000):
            with store.write(tenant, "test") as scope:
                cases.log(scope, str(n), {"x": "y" * 20_000}, by="me")
                scope.audit("case.log", f"case:{n}")
            acknowledged.append(str(n))
    with store.read(tenant) as scope:
        assert [case.key for case in cases.listed(scope)] == acknowledged
        assert audit.verify(scope) == []
    assert acknowledged
    store.close()


def test_a_clock_that_moves(store: Store, tenant: str) -> None:
    """Order and audit log under a clock that goes a year back, a year on, and home again."""
    now = dt.datetime.now(dt.UTC)
    for n, days in enumerate((0, -365, 365, 0)):
        store.clock = lambda days=days: now + dt.timedelta(days=days)
        with store.write(tenant, "test") as scope:
            cases.log(scope, new_id(), {"n": n}, by="me")
            scope.audit("case.log", f"case:{n}")
    with store.read(tenant) as scope:
        assert [case.payload["n"] for case in cases.listed(scope)] == [0, 1, 2, 3]
        assert audit.verify(scope) == []
