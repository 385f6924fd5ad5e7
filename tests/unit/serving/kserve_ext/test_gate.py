"""The bounded queue."""

from __future__ import annotations

import asyncio
import contextlib
import threading

import pytest

from serving.kserve_ext.errors import QueueFull
from serving.kserve_ext.gate import Gate, Workers
from tests.garbage import Large, freed_at_once


def test_no_more_than_the_limit_are_inside_and_leaving_makes_room() -> None:
    gate = Gate("test", 2)
    with gate.enter():
        with gate.enter(), pytest.raises(QueueFull) as full, gate.enter():
            pass
        assert full.value.retry_after >= 1
        with gate.enter():
            pass


def test_an_error_leaves_as_well() -> None:
    gate = Gate("test", 1)
    for _ in range(3):
        with pytest.raises(ValueError), gate.enter():
            raise ValueError


def test_an_image_that_fails_is_let_go_at_once() -> None:
    def fail(_: Large) -> None:
        raise ValueError

    async def run(large: Large) -> None:
        with contextlib.suppress(ValueError):
            await workers.run(fail, large)

    workers = Workers("test", 1)
    with freed_at_once() as large:
        asyncio.run(run(large))
        del large
    workers.close()


def test_what_is_given_up_in_the_queue_is_not_worked_on() -> None:
    done: list[str] = []
    held = threading.Event()

    async def run() -> None:
        workers = Workers("test", 1)
        first = asyncio.create_task(workers.run(held.wait, 120))
        await asyncio.sleep(0.05)
        second = asyncio.create_task(workers.run(done.append, "second"))
        await asyncio.sleep(0.05)
        second.cancel()
        await asyncio.sleep(0.05)
        held.set()
        assert await first
        await workers.run(done.append, "third")
        workers.close()

    asyncio.run(run())
    assert done == ["third"]
