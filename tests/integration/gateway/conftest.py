"""A store on each database, and tenants in it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from serving.gateway.access import Role, create
from serving.gateway.app import create_app
from serving.gateway.blobs.folder import FolderBlobs
from serving.gateway.gateway import Gateway
from serving.gateway.settings import Settings
from serving.gateway.store import Store, open_store
from tests.gateway_rows import databases, folder_blobs, tenant_of


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
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 3 MB, where this machine lets us mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], capture_output=True
    )
    if done.returncode != 0:
        pytest.skip("no small disk can be mounted here; test_blobs.py injects the error instead")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def settings() -> Settings:
    """Of a gateway for readers, whose predictor is away."""
    return Settings(models_url="http://127.0.0.1:9", systems=("v1", "review"), drift_minutes=0)


@pytest.fixture
def gateway(tmp_path: Path, settings: Settings) -> Gateway:
    return Gateway(
        settings,
        store=open_store(f"sqlite:///{tmp_path / 'x.db'}"),
        blobs=folder_blobs(tmp_path / "images"),
    )


@pytest.fixture
def client(gateway: Gateway) -> Iterator[TestClient]:
    """What the reader Eve asks with."""
    with gateway.store.write(gateway.tenant, "test") as scope:
        token = create(scope, role=Role.REVIEWER, name="eve", subject="eve").text
    with TestClient(create_app(gateway=gateway)) as found:
        found.headers["x-api-key"] = token
        yield found
