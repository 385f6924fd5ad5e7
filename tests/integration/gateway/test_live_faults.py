"""A running gateway whose neighbours, disk or self go away: what it says meanwhile, what is there after."""

from __future__ import annotations

import threading
import time
from collections import Counter
from pathlib import Path

import httpx
import pytest

from serving.gateway.store import unscoped
from serving.gateway.store.tables import Image
from tests.gateway_live import Live, form_of, live_gateway, live_models, photograph
from tests.gateway_servers import BUCKET, KEY, SECRET, new_database, postgres, s3
from tests.integration.gateway.test_faults import Gap

#: Servers of their own for every fault.
pytestmark = pytest.mark.slow

JPEG = {"content-type": "image/jpeg"}
NOWHERE = "http://127.0.0.1:9"


def rows_without_bytes(live: Live) -> tuple[set[str], int]:
    """The ids of every image's row, and how many of them have no whole bytes."""
    from sqlalchemy import select

    with live.settings() as settings:
        store, blobs = settings.open_store(), settings.open_blobs()
        tenant = unscoped.find_tenant(store, "default").id
        with store.read(tenant) as scope:
            rows = list(scope.session.scalars(select(Image)))
        missing = sum(blobs.size(tenant, row.sha256) != row.bytes for row in rows)
        store.close()
    return {row.id for row in rows}, missing


def test_kill_9_in_the_middle_of_uploads(tmp_path: Path) -> None:
    with live_gateway(tmp_path, NOWHERE, GATEWAY_SYSTEMS="s0") as live:
        token, url = live.token(), live.url
        acknowledged: list[str] = []
        seen = threading.Event()

        def send(worker: int) -> None:
            with httpx.Client(
                base_url=url, headers={"x-api-key": token}, trust_env=False, timeout=60
            ) as client:
                for n in range(10_000):
                    try:
                        response = client.post(
                            "/upload", content=photograph(1000 * worker + n, size=64), headers=JPEG
                        )
                    except httpx.HTTPError:
                        return
                    acknowledged.append(response.json()["image_id"])
                    if len(acknowledged) > 40:
                        seen.set()

        workers = [threading.Thread(target=send, args=(n,)) for n in range(4)]
        for worker in workers:
            worker.start()
        assert seen.wait(180)
        live.kill()
        for worker in workers:
            worker.join()
        there, missing = rows_without_bytes(live)
        assert set(acknowledged) <= there
        assert missing == 0
        # It starts again on what is left, and goes on.
        live.start()
        with live.client(token) as client:
            again = client.post("/upload", content=photograph(7), headers=JPEG)
            assert again.status_code == 200, again.text


def test_a_predictor_that_is_killed_takes_only_its_own_routes_along(tmp_path: Path) -> None:
    with (
        live_models(tmp_path / "models") as servers,
        live_gateway(tmp_path / "gateway", servers.url, GATEWAY_SYSTEMS="s0,s2") as live,
        live.client(live.token()) as client,
    ):
        check = lambda n: client.post("/check-image", content=photograph(n), headers=JPEG)  # noqa: E731
        assert check(0).status_code == 200
        servers.predictor.kill()
        away = check(1)
        assert away.status_code == 503, away.text
        assert int(away.headers["retry-after"]) >= 1
        assert "label" not in away.text
        assert client.post("/upload", content=photograph(2), headers=JPEG).status_code == 200
        assert client.post("/patients/", json={"name": "Ada"}).status_code == 200
        assert client.get("/s2/health").json()["model_loaded"] is False
        assert client.get("/readyz").json()["status"] == "degraded"
        assert client.get("/readyz/s0").status_code == 503
        servers.predictor.start()
        deadline = time.monotonic() + 180
        # The one that is asked here may be there before the others, and what is ready is asked once a second.
        while check(3).status_code != 200 or client.get("/readyz").json()["status"] != "ready":
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_postgresql_is_restarted_under_it(tmp_path: Path) -> None:
    with (
        live_gateway(tmp_path, NOWHERE, GATEWAY_SYSTEMS="s0,s2", DATABASE_URL=new_database()) as live,
        live.client(live.token()) as client,
    ):
        statuses: Counter[int] = Counter()
        stop = threading.Event()
        token = client.headers["x-api-key"]

        def work() -> None:
            with live.client(token) as own:
                while not stop.is_set():
                    statuses[own.post("/patients/", json={"name": "Ada"}).status_code] += 1

        workers = [threading.Thread(target=work) for _ in range(3)]
        for worker in workers:
            worker.start()
        while statuses[200] < 20:
            time.sleep(0.01)
        postgres().restart()
        wanted = statuses[200] + 20
        while statuses[200] < wanted:
            time.sleep(0.01)
        stop.set()
        for worker in workers:
            worker.join()
        assert set(statuses) <= {200, 503}, statuses


def test_s3_is_unreachable_and_comes_back(tmp_path: Path) -> None:
    server = s3()
    gap = Gap(server.port)
    environment = {
        "GATEWAY_SYSTEMS": "s0,s2",
        "STORAGE_DIR": f"s3://{BUCKET}/{server.new_prefix()}",
        "GATEWAY_S3_ENDPOINT": f"http://127.0.0.1:{gap.port}",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
    }
    with live_gateway(tmp_path, NOWHERE, **environment) as live, live.client(live.token()) as client:
        assert client.post("/upload", content=photograph(0), headers=JPEG).status_code == 200
        gap.close()
        away = client.post("/upload", content=photograph(1), headers=JPEG)
        assert away.status_code == 503, away.text
        assert KEY not in away.text
        assert client.post("/patients/", json={"name": "Ada"}).status_code == 200
        assert client.get("/readyz").status_code == 503
        gap.open()
        back = client.post("/upload", content=photograph(1), headers=JPEG)
        assert back.status_code == 200, back.text
        # What is ready is asked once a second.
        while client.get("/readyz").json()["store"] is not True:
            time.sleep(0.1)
    gap.end()


def test_a_full_disk_is_said_and_nothing_is_half_kept(tmp_path: Path, small_disk: Path) -> None:
    with (
        live_gateway(
            tmp_path / "gateway", NOWHERE, GATEWAY_SYSTEMS="s0", STORAGE_DIR=str(small_disk / "images")
        ) as live,
        live.client(live.token()) as client,
    ):
        kept = []
        for n in range(200):
            answer = client.post("/upload", files=form_of(photograph(n, size=640, kind=".png")))
            if answer.status_code != 200:
                break
            kept.append(answer.json()["image_id"])
        assert answer.status_code == 507, answer.text
        assert str(small_disk) not in answer.text
        there, missing = rows_without_bytes(live)
        assert there == set(kept)
        assert missing == 0
        assert not list(small_disk.rglob("*.part"))
