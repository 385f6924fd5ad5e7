"""Drift by the clock: gauges of what is promoted and answered, and troubles that are told once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from starlette.testclient import TestClient

from data.errors import UsageError
from serving.core.bundle import Bundle
from serving.core.drift import Settings as DriftSettings
from serving.core.pointer import pointer_file
from serving.gateway.app import create_app
from serving.gateway.blobs.folder import FolderBlobs
from serving.gateway.gateway import Gateway
from serving.gateway.loop.drift import Watch
from serving.gateway.loop.patrol import Patrol
from serving.gateway.settings import Settings
from serving.gateway.store import Store, unscoped
from serving.gateway.systems import all_systems
from tests.drift_answers import TASK, answer
from tests.drift_windows import window
from tests.integration.serving.harness import until

FAST = DriftSettings(draws=1000)


def gauge(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(f"retiderm_drift_{name}", {"model": TASK, "version": "4", **labels})


def patrol(store: Store, root: Path, clinics: list[str], minutes: float = 10) -> Patrol:
    return Patrol(Watch(store, root, FAST), lambda: clinics, minutes)


def test_the_gauges_tell_the_gravest_of_the_tenants(
    sqlite_store: Store, blobs: FolderBlobs, root: Path, bundle: Bundle, clinics: list[str]
) -> None:
    found = patrol(sqlite_store, root, clinics)
    answer(sqlite_store, blobs, clinics[0], bundle, window(120, 5))
    found.look()
    assert (gauge("severity"), gauge("images")) == (0, 120)
    answer(sqlite_store, blobs, clinics[1], bundle, window(100, 6, warmer=40))
    found.look()
    assert (gauge("severity"), gauge("images")) == (3, 100)
    assert gauge("alarm", family="inputs", measure="colour", head="") == 2


def test_the_gauges_say_what_is_answered_to_who_asks(
    sqlite_store: Store, blobs: FolderBlobs, root: Path, bundle: Bundle, clinics: list[str]
) -> None:
    found = patrol(sqlite_store, root, clinics)
    answer(sqlite_store, blobs, clinics[1], bundle, window(60, 5))
    found.look()
    answer(sqlite_store, blobs, clinics[0], bundle, window(60, 6, warmer=40))
    assert gauge("severity") == 0
    said = found.ask(clinics[0], TASK).to_dict()
    assert (said["severity"], said["version"]) == ("critical", "4")
    assert gauge("severity") == 3
    # Another tenant's good news are no reason to drop the first one's alarm.
    assert found.ask(clinics[1], TASK).report.severity == "ok"
    assert gauge("severity") == 3
    found.look()
    assert gauge("severity") == 3


def test_who_asks_before_the_first_look_sets_no_gauge(
    sqlite_store: Store, blobs: FolderBlobs, root: Path, bundle: Bundle, clinics: list[str]
) -> None:
    found = patrol(sqlite_store, root, clinics)
    answer(sqlite_store, blobs, clinics[0], bundle, window(60, 5))
    found.look()
    again = patrol(sqlite_store, root, clinics)
    answer(sqlite_store, blobs, clinics[1], bundle, window(60, 6, warmer=40))
    assert again.ask(clinics[1], TASK).report.alarm
    # Nobody has looked at the other tenants yet.
    assert gauge("severity") == 0


def test_what_nobody_asked_is_not_judged(
    sqlite_store: Store, root: Path, clinics: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    found = patrol(sqlite_store, root, clinics)
    (next((root / TASK / "versions").iterdir()) / "reference.npz").unlink()
    found.look()
    assert caplog.records == []


def test_trouble_is_told_once_and_ends_by_itself(
    sqlite_store: Store,
    blobs: FolderBlobs,
    root: Path,
    bundle: Bundle,
    clinics: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    found = patrol(sqlite_store, root, clinics)
    answer(sqlite_store, blobs, clinics[0], bundle, window(60, 7))
    reference = next((root / TASK / "versions").iterdir()) / "reference.npz"
    good = reference.read_bytes()
    reference.write_bytes(b"not one")
    for _ in range(3):
        found.look()
    assert len(caplog.records) == 1
    assert TASK in caplog.text
    reference.write_bytes(good)
    found.look()
    assert gauge("images") == 60
    pointer_file(root, TASK).write_text("{")
    for _ in range(3):
        found.look()
    assert len(caplog.records) == 2


def test_it_looks_again_and_again_and_survives_what_nobody_foresaw(
    sqlite_store: Store, root: Path, clinics: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    looked = 0

    async def run(work: Callable[[], None]) -> None:
        nonlocal looked
        looked += 1
        if looked < 3:
            raise RuntimeError("the machine is on fire")
        work()

    async def begin() -> None:
        found = patrol(sqlite_store, root, clinics, minutes=1e-6)
        found.start(run)
        while looked < 4:
            await asyncio.sleep(0.001)
        await found.stop()
        await found.stop()

    asyncio.run(begin())
    assert len(caplog.records) == 1
    assert "RuntimeError" in caplog.text


def test_the_gateway_judges_from_its_start(
    sqlite_store: Store, blobs: FolderBlobs, root: Path, bundle: Bundle
) -> None:
    settings = Settings(models_url="http://127.0.0.1:9", serving_root=root, systems=("v1",))
    tenant = unscoped.ensure_tenant(sqlite_store).id
    answer(sqlite_store, blobs, tenant, bundle, window(70, 8))
    gateway = Gateway(settings, store=sqlite_store, blobs=blobs)
    with TestClient(create_app(gateway=gateway, systems=all_systems())) as client:
        judged = f'retiderm_drift_images{{model="{TASK}",version="4"}} 70.0'
        until(lambda: judged in client.get("/metrics").text)


def test_a_negative_time_is_refused() -> None:
    with pytest.raises(UsageError):
        Settings(drift_minutes=-1)
