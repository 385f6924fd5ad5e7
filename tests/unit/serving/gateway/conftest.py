"""A store on each database, and tenants in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.gateway.blobs.folder import FolderBlobs
from serving.gateway.retention import Eraser
from serving.gateway.store import Store, engine
from tests.gateway_rows import World, databases, fill, folder_blobs, tenant_of


@pytest.fixture(autouse=True)
def patient_writers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many writers at once: on a busy machine they may wait for each other longer than a client should."""
    monkeypatch.setattr(engine, "_WAIT_S", 240.0)


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    yield from databases(tmp_path, request.param)


@pytest.fixture
def sqlite_store(tmp_path: Path) -> Iterator[Store]:
    yield from databases(tmp_path, "sqlite")


@pytest.fixture
def blobs(tmp_path: Path) -> FolderBlobs:
    return folder_blobs(tmp_path / "images")


@pytest.fixture
def tenant(store: Store) -> str:
    return tenant_of(store, "clinic")


@pytest.fixture
def other(store: Store) -> str:
    return tenant_of(store, "another clinic")


@pytest.fixture
def eraser(store: Store, blobs: FolderBlobs) -> Eraser:
    return Eraser(store, blobs)


@pytest.fixture
def world(store: Store, blobs: FolderBlobs, tenant: str) -> World:
    return fill(store, blobs, tenant)
