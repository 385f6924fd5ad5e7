"""What is done by the clock, though nobody asks for it."""

from __future__ import annotations

import datetime as dt
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from serving.gateway import upkeep as module
from serving.gateway.blobs import keep
from serving.gateway.blobs.folder import FolderBlobs
from serving.gateway.retention import Eraser, LearnedVersion
from serving.gateway.store import Store
from serving.gateway.store.repositories import erasures, patients
from serving.gateway.upkeep import Upkeep
from tests.gateway_rows import databases, fill, folder_blobs, tenant_of

VERSION = LearnedVersion("dr_grading", "3", "sha256:" + "d" * 64)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    yield from databases(tmp_path, "sqlite")


@pytest.fixture
def blobs(tmp_path: Path) -> FolderBlobs:
    return folder_blobs(tmp_path / "images")


def kept_up(store: Store, blobs: FolderBlobs, tenants: list[str], days: int | None = 30) -> Upkeep:
    def learned(contents: Sequence[str]) -> dict[str, list[LearnedVersion]]:
        return {sha256: [VERSION] for sha256 in contents}

    return Upkeep(Eraser(store, blobs), lambda: tenants, days, learned)


@pytest.fixture(autouse=True)
def tenants(store: Store, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(module, "_FIRST_S", 0.0)
    return [tenant_of(store, name) for name in ("one", "two")]


def test_what_is_too_old_goes_by_itself_and_models_are_named(
    store: Store, blobs: FolderBlobs, tenants: list[str]
) -> None:
    now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    store.clock = lambda: now
    worlds = [fill(store, blobs, tenant, tenant) for tenant in tenants]
    left = keep(blobs, tenants[0], b"left by a killed upload", "image/png").sha256
    path = next(blobs.root.rglob(left))
    os.utime(path, (now.timestamp(),) * 2)
    now += dt.timedelta(days=40)
    looking = kept_up(store, blobs, tenants)
    looking.look()
    for world in worlds:
        assert blobs.size(world.tenant, world.sha256) is None
        with store.read(world.tenant) as scope:
            assert patients.get(scope, world.patient).name == "Ada"
            (erasure,) = erasures.listed(scope)
            assert erasure.finished_at is not None
    assert blobs.size(tenants[0], left) is None
    looking._hourly = time.monotonic()
    looking.look()
    with store.read(tenants[1]) as scope:
        (erasure,) = erasures.listed(scope)
        assert erasure.learned is not None
        assert erasure.learned["versions"][0]["model"] == "dr_grading"


def test_nothing_goes_where_nobody_set_an_age_or_the_clock_was_set(
    store: Store, blobs: FolderBlobs, tenants: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = fill(store, blobs, tenants[0])
    later = dt.datetime.now(dt.UTC) + dt.timedelta(days=40)
    store.clock = lambda: later
    kept_up(store, blobs, tenants, None).look()
    looking = kept_up(store, blobs, tenants)
    with monkeypatch.context() as patch:
        real = time.time
        patch.setattr(module.time, "time", lambda: real() + 40 * 86_400)
        looking.look()
        looking.look()
    assert blobs.size(tenants[0], world.sha256) is not None


def test_one_tenants_trouble_is_not_the_others(
    store: Store, blobs: FolderBlobs, tenants: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    looking = kept_up(store, blobs, tenants)
    tenants.insert(0, "nobody")
    world = fill(store, blobs, tenants[-1])
    later = dt.datetime.now(dt.UTC) + dt.timedelta(days=40)
    store.clock = lambda: later
    looking.look()
    assert blobs.size(world.tenant, world.sha256) is None
    assert "waits, and is tried again" in caplog.text
