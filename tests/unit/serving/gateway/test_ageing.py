"""What grows too old is erased, by one gateway at a time."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from data.errors import UsageError
from serving.gateway.blobs.folder import FolderBlobs
from serving.gateway.retention import Eraser
from serving.gateway.store import Store
from serving.gateway.store.repositories import cases, erasures
from tests.gateway_rows import World, bystander, fill


def test_what_is_too_old(store: Store, blobs: FolderBlobs, tenant: str, eraser: Eraser) -> None:
    now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    store.clock = lambda: now
    world = fill(store, blobs, tenant)
    now += dt.timedelta(days=40)
    bystander(store, blobs, tenant)
    assert eraser.older(tenant, 60) == []
    # Somebody wrote to the case yesterday: what belongs to it stays with it.
    with store.write(tenant, "test") as scope:
        cases.get(scope, world.case).updated_at = now - dt.timedelta(days=1)
    assert eraser.older(tenant, 30) == []
    with store.write(tenant, "test") as scope:
        cases.get(scope, world.case).updated_at = now - dt.timedelta(days=40)
    (report,) = eraser.older(tenant, 30)
    assert report.erased == tuple(sorted([world.sha256, world.overlay_sha256]))
    with store.read(tenant) as scope:
        assert [case.key for case in cases.listed(scope)] == ["other-case"]
        # Nobody asked for it: datasets keep what they have of it.
        assert erasures.excluded(scope) == []
    with pytest.raises(UsageError):
        eraser.older(tenant, 0)


def test_of_several_gateways_one_erases_what_is_old(
    store: Store, blobs: FolderBlobs, tenant: str, world: World, eraser: Eraser
) -> None:
    later = dt.datetime.now(dt.UTC) + dt.timedelta(days=40)
    with store.write(tenant, "test") as scope:
        cases.get(scope, world.case).updated_at = scope.now - dt.timedelta(days=40)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from serving.gateway.store import Store\n"
        "with Store(sys.argv[2]).alone('older-' + sys.argv[3]) as alone:\n"
        "    print(alone, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    url = store.url.render_as_string(hide_password=False)
    root = str(Path(__file__).resolve().parents[4])
    command = [sys.executable, "-c", code, root, url, tenant]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdin is not None
    assert other.stdout is not None
    assert other.stdout.readline() == "True\n"
    store.clock = lambda: later
    assert eraser.older(tenant, 30) == []
    # Another tenant's is another matter.
    with store.alone(f"older-{uuid.uuid4()}") as alone:
        assert alone
    # A process that dies holds nothing.
    other.kill()
    other.communicate()
    while not (reports := eraser.older(tenant, 30)):
        time.sleep(0.05)
    assert [report.counts["images"] for report in reports] == [2]
    with store.alone(f"older-{tenant}") as first, store.alone(f"older-{tenant}") as second:
        assert (first, second) == (True, False)
    with store.alone(f"older-{tenant}") as again:
        assert again
