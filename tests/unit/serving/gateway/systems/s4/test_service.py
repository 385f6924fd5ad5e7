"""The anomaly service in the gateway's own process, where it can't be opened."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace
from typing import Any

import pytest

from data.errors import UsageError
from serving.gateway.systems.s4 import service
from serving.gateway.systems.s4.service import Local


def test_what_is_missing_is_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(debug: bool) -> Any:
        raise UsageError("There is no extractor.", hint="Make one first.")

    monkeypatch.setattr(service, "_open", fail)
    gateway: Any = SimpleNamespace(tenant="t", settings=SimpleNamespace(debug=False))

    async def begin() -> bool:
        place = Local(gateway)
        await place.start()
        return await place.ready()

    with caplog.at_level(logging.WARNING):
        assert not asyncio.run(begin())
    assert [record.getMessage() for record in caplog.records] == [
        "S4 is not ready: There is no extractor. Make one first."
    ]
