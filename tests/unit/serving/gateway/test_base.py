"""serving/gateway/systems/base.py: what is ready is asked once a second, and counts are told to few."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from data.errors import StoreError, UsageError
from serving.gateway.app import create_app
from serving.gateway.blobs.folder import FolderBlobs
from serving.gateway.blobs.signing import Signer
from serving.gateway.gateway import Gateway
from serving.gateway.settings import Settings
from serving.gateway.store import Store
from serving.gateway.systems import base
from serving.gateway.systems.base import Fresh

NOWHERE = "http://127.0.0.1:9"


class Counted(FolderBlobs):
    """Counts how often it is asked whether it works."""

    asked = 0

    def check(self) -> None:
        self.asked += 1
        super().check()


@pytest.fixture
def counted(tmp_path: Path) -> Counted:
    return Counted(tmp_path / "images", Signer([b"k" * 32]))


@pytest.fixture
def client(sqlite_store: Store, counted: Counted) -> Iterator[TestClient]:
    settings = Settings(models_url=NOWHERE, systems=("v1", "s2"), drift_minutes=0)
    app = create_app(gateway=Gateway(settings, store=sqlite_store, blobs=counted))
    with TestClient(app) as found:
        yield found


def test_who_asks_at_once_waits_for_one_answer() -> None:
    asked: list[int] = []
    now = [100.0]

    async def work() -> None:
        go_on = asyncio.Event()

        async def ask() -> bool:
            asked.append(1)
            await go_on.wait()
            if len(asked) == 2:
                raise StoreError("away")
            return True

        fresh = Fresh(ask)
        waiting = [asyncio.create_task(fresh.get()) for _ in range(50)]
        await asyncio.sleep(0)
        # One that goes away takes nobody's answer along.
        waiting[0].cancel()
        go_on.set()
        assert await asyncio.gather(*waiting[1:]) == [True] * 49
        assert (len(asked), await fresh.get(), len(asked)) == (1, True, 1)
        now[0] += 1.01
        with pytest.raises(StoreError):
            await fresh.get()
        # What failed is no answer, and is not kept.
        assert await fresh.get()
        assert len(asked) == 3

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "_now", lambda: now[0])
        asyncio.run(work())


def test_probes_ask_the_stores_once_a_second(
    client: TestClient, counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "_now", lambda: 100.0)
    answers = [client.get("/readyz") for _ in range(5)]
    assert {(a.status_code, a.json()["status"]) for a in answers} == {(200, "degraded")}
    assert client.get("/readyz/v1").status_code == 200
    assert client.get("/readyz/s2").status_code == 503
    assert client.get("/readyz/s9").status_code == 404
    assert counted.asked == 1
    monkeypatch.setattr(base, "_now", lambda: 101.1)
    assert client.get("/readyz/v1").status_code == 200
    assert counted.asked == 2


@pytest.mark.parametrize(
    ("told", "status"),
    [
        ({}, 200),
        ({"host": "0.0.0.0"}, 404),
        ({"metrics_port": 9090}, 404),
        ({"host": "0.0.0.0", "metrics_port": 9090}, 404),
    ],
)
def test_counts_are_not_for_everybody(
    sqlite_store: Store, counted: Counted, told: dict[str, int], status: int
) -> None:
    settings = Settings(models_url=NOWHERE, systems=("v1",), drift_minutes=0, **told)
    app = create_app(gateway=Gateway(settings, store=sqlite_store, blobs=counted))
    with TestClient(app) as client:
        answer = client.get("/metrics")
        assert answer.status_code == status
        assert ("retiderm_gateway" in answer.text) == (status == 200)


def test_the_counts_port_is_another() -> None:
    with pytest.raises(UsageError, match="8000"):
        Settings(port=8000, metrics_port=8000)
    with pytest.raises(UsageError, match="70000"):
        Settings(metrics_port=70_000)
