"""A store on each database, and tenants in it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.gateway.blobs.folder import FolderBlobs
from serving.gateway.store import Store
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
