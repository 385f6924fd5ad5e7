"""kill -9, at every place: what was acknowledged is there, and no row is without its bytes."""

from __future__ import annotations

import datetime as dt
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import inspect

from serving.gateway.blobs.folder import FolderBlobs
from serving.gateway.retention import Eraser
from serving.gateway.store import Store, migrate, open_store
from serving.gateway.store.repositories import audit, images
from serving.gateway.store.tables import Image
from tests.gateway_servers import new_database

ROOT = Path(__file__).resolve().parents[3]


def start(module: str, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", f"tests.integration.gateway.{module}", *words],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def address(store: Store) -> str:
    return store.url.render_as_string(hide_password=False)


def every_image(store: Store, tenant: str) -> list[Image]:
    from sqlalchemy import select

    with store.read(tenant) as scope:
        return list(scope.session.scalars(select(Image)))


def check(store: Store, blobs: FolderBlobs, tenant: str, acknowledged: list[str]) -> None:
    rows = every_image(store, tenant)
    for row in rows:
        blobs.get(tenant, row.sha256)  # raises where the bytes are missing or not whole
    assert set(acknowledged) <= {row.id for row in rows}
    with store.read(tenant) as scope:
        assert audit.verify(scope) == []
        assert audit.head(scope).seq == len(rows)
    # What has bytes and no row is an unfinished upload: a day later it is swept.
    store.clock = lambda: dt.datetime.now(dt.UTC) + dt.timedelta(days=2)
    Eraser(store, blobs).sweep(tenant)
    assert {item.sha256 for item in blobs.listed(tenant)} == {row.sha256 for row in rows}
    left = list(blobs.root.rglob("*.part"))
    assert len(left) <= 2  # cut off in the middle of writing; cleared after an hour


def test_killed_in_the_middle_of_uploads(store: Store, blobs: FolderBlobs, tenant: str) -> None:
    workers = [start("uploader", address(store), str(blobs.root), tenant) for _ in range(2)]
    acknowledged = []
    for worker in workers:
        assert worker.stdout is not None
        acknowledged += [worker.stdout.readline().strip() for _ in range(10)]
    for worker in workers:
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
        assert worker.stdout is not None
        # A line that the kill cut off was not acknowledged.
        acknowledged += [line.strip() for line in worker.stdout.readlines() if line.endswith("\n")]
        worker.stdout.close()
    assert len(acknowledged) >= 20
    check(store, blobs, tenant, acknowledged)


@pytest.mark.parametrize(("where", "rows", "contents"), [("bytes", 0, 1), ("row", 0, 1), ("commit", 1, 1)])
def test_killed_at_a_place(
    store: Store, blobs: FolderBlobs, tenant: str, where: str, rows: int, contents: int
) -> None:
    worker = start("uploader", address(store), str(blobs.root), tenant, where)
    said, _ = worker.communicate()
    assert (worker.returncode, said) == (-signal.SIGKILL, "")
    assert len(every_image(store, tenant)) == rows
    assert len(list(blobs.listed(tenant))) == contents
    check(store, blobs, tenant, [])


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
@pytest.mark.parametrize(
    "statements", [pytest.param(1, marks=pytest.mark.slow), 25, pytest.param(50, marks=pytest.mark.slow)]
)
def test_a_migration_that_is_killed_leaves_the_database_as_it_was(
    tmp_path: Path, kind: str, statements: int
) -> None:
    url = f"sqlite:///{tmp_path / 'x.db'}" if kind == "sqlite" else new_database(empty=True)
    worker = start("migrator", url, str(statements))
    said, _ = worker.communicate()
    assert worker.returncode == -signal.SIGKILL, said
    store = Store(url)
    assert inspect(store.engine).get_table_names() == []
    store.close()
    again = open_store(url)
    assert migrate.current(again) == migrate.newest()
    again.check()
    again.close()


@pytest.mark.slow
def test_several_processes_that_migrate_at_once(tmp_path: Path) -> None:
    for url in (f"sqlite:///{tmp_path / 'x.db'}", new_database(empty=True)):
        workers = [start("migrator", url, "-1") for _ in range(3)]
        said = sorted(worker.communicate()[0].strip() for worker in workers)
        assert [worker.returncode for worker in workers] == [0, 0, 0]
        # One did it all; the others found it done.
        assert said[:2] == ["whole after 0"] * 2


@pytest.mark.slow
def test_images_of_killed_uploads_can_be_sent_again(store: Store, blobs: FolderBlobs, tenant: str) -> None:
    from serving.gateway.blobs import keep
    from tests.gateway_rows import image_of

    worker = start("uploader", address(store), str(blobs.root), tenant, "row")
    worker.communicate()
    (left,) = list(blobs.listed(tenant))
    kept = keep(blobs, tenant, blobs.get(tenant, left.sha256), "image/png")
    with store.write(tenant, "test") as scope:
        image_of(scope, kept)
        assert images.known(scope, [left.sha256]) == {left.sha256}
