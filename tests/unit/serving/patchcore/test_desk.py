from __future__ import annotations

import asyncio
import contextlib
import threading

import pytest

from serving.patchcore.desk import Deadline, Desk
from serving.patchcore.errors import Busy, TooSlow
from tests.garbage import Large, freed_at_once


def test_as_many_as_may_be_and_no_more() -> None:
    desk = Desk("unit", workers=1, waiting=1)
    with desk.admit(), desk.admit():
        with pytest.raises(Busy) as caught, desk.admit():
            pass
        assert caught.value.retry_after >= 1
    with desk.admit():
        pass
    desk.close()


def test_work_runs_off_the_loop_and_gives_its_value() -> None:
    desk = Desk("unit", workers=1, waiting=1)

    async def ask() -> tuple[int, str]:
        return await desk.run(lambda _, n: (n + 1, threading.current_thread().name), Deadline(30), 4)

    value, thread = asyncio.run(ask())
    assert value == 5
    assert thread.startswith("patchcore-unit")
    desk.close()


def test_images_that_fail_are_let_go_at_once() -> None:
    def fail(_: Deadline, images: Large) -> None:
        raise ValueError

    async def ask(images: Large) -> None:
        with contextlib.suppress(ValueError):
            await desk.run(fail, Deadline(60), images)

    desk = Desk("unit", workers=1, waiting=1)
    with freed_at_once() as images:
        asyncio.run(ask(images))
        del images
    desk.close()


def test_work_that_comes_too_late_is_not_begun() -> None:
    desk = Desk("unit", workers=1, waiting=1)
    begun = []
    with pytest.raises(TooSlow):
        asyncio.run(desk.run(lambda _: begun.append(1), Deadline(0)))
    assert begun == []
    desk.close()


def test_who_gives_up_ends_the_work() -> None:
    desk = Desk("unit", workers=1, waiting=1)
    begun, ended = threading.Event(), threading.Event()

    def work(deadline: Deadline) -> None:
        begun.set()
        try:
            while True:
                deadline.check()
        except TooSlow:
            ended.set()
            raise

    async def ask() -> None:
        task = asyncio.create_task(desk.run(work, Deadline(600)))
        # What is given up before its turn is not worked on, and could not be ended.
        assert await asyncio.to_thread(begun.wait, 120)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(ask())
    assert ended.wait(120)
    desk.close()
