"""serving/gateway/held.py: who gets bytes to hold, who waits, and that nobody waits in a circle."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from data.errors import Overloaded
from serving.gateway.body import Bodies, read_body
from serving.gateway.errors import TooLarge, TooSlow
from serving.gateway.front import Front
from serving.gateway.gateway import Gateway
from serving.gateway.held import FREE, Claim, Full, Held
from serving.gateway.settings import Settings
from serving.gateway.store import Store
from tests.garbage import Large, freed_at_once
from tests.gateway_rows import folder_blobs

MB = 2**20


def ran(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run it; a mistake of ours ends it instead of waiting for ever."""

    async def bounded() -> None:
        async with asyncio.timeout(240):
            await work()

    asyncio.run(bounded())


async def turns() -> None:
    """Let everybody go on who can."""
    for _ in range(10):
        await asyncio.sleep(0)


def test_who_comes_when_it_is_spent_waits_and_gets_it_in_order() -> None:
    async def work() -> None:
        held = Held(10 * MB, 10 * MB, wait_s=20)
        first, *others = (held.claim(f"client {n}") for n in range(4))
        await first.take(8 * MB)
        order: list[int] = []

        async def wait(n: int, size: int) -> None:
            await others[n].take(size)
            order.append(n)

        tasks = [asyncio.create_task(wait(n, size)) for n, size in enumerate((6 * MB, 4 * MB, MB))]
        await turns()
        # The last would fit, and would go before the others for ever.
        assert (order, held.held) == ([], 8 * MB)
        first.release()
        await turns()
        assert (order, held.held) == ([0, 1], 10 * MB)
        others[1].release()
        await asyncio.gather(*tasks)
        assert (order, held.held) == ([0, 1, 2], 7 * MB)
        for claim in (first, *others):
            claim.release()
        assert held.held == 0

    ran(work)


def test_who_waits_too_long_is_told_when_to_come_again_and_is_in_nobodys_way() -> None:
    async def work() -> None:
        held = Held(10 * MB, 10 * MB, wait_s=0.05)
        holder, large, small = (held.claim(name) for name in "abc")
        await holder.take(8 * MB)
        asking = asyncio.create_task(large.take(6 * MB))
        await turns()
        # Who follows waits for the one before, however late the machine lets the one before be refused.
        held._wait_s = 240
        following = asyncio.create_task(small.take(MB))
        with pytest.raises(Full) as refused:
            await asking
        assert refused.value.retry_after >= 1
        await following
        assert (held.held, large.size, small.size) == (9 * MB, 0, MB)

    ran(work)


def test_one_client_has_its_share_and_does_not_hold_up_the_others() -> None:
    async def work() -> None:
        held = Held(10 * MB, 5 * MB, wait_s=20)
        mine, more, other = held.claim("a"), held.claim("a"), held.claim("b")
        await mine.take(4 * MB)
        waiting = asyncio.create_task(more.take(3 * MB))
        await turns()
        await other.take(5 * MB)
        assert not waiting.done()
        mine.release()
        await waiting
        assert held.held == 8 * MB

    ran(work)


def test_who_holds_something_never_waits_for_more() -> None:
    """Two that each hold half and need more would wait for one another."""

    async def work() -> None:
        held = Held(4 * MB, 4 * MB, wait_s=20)
        one, two = held.claim("a"), held.claim("b")
        await one.take(2 * MB)
        await two.take(2 * MB)
        with pytest.raises(Full):
            await one.take(MB)
        assert not two.take_now(MB)
        two.release()
        await one.take(MB)
        # What isn't a file is nobody's concern.
        await one.take(FREE)
        assert held.held == one.size == 3 * MB

    ran(work)


def test_who_goes_away_while_waiting_leaves_nothing_behind() -> None:
    async def asked(claim: Claim) -> str:
        # As a request does: what it was given in its last moment goes with it.
        with claim:
            await claim.take(2 * MB)
            return "given"

    async def work() -> None:
        held = Held(4 * MB, 4 * MB, wait_s=240)
        holder = held.claim("a")
        await holder.take(4 * MB)
        claims = [held.claim(str(n)) for n in range(3)]
        waiting = [asyncio.create_task(asked(claim)) for claim in claims]
        await turns()
        waiting[0].cancel()
        holder.release()
        # Given in this moment, and cancelled before it could go on.
        waiting[1].cancel()
        ends = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(end) for end in ends[:2]] == [asyncio.CancelledError] * 2
        assert ends[2] == "given"
        for claim in claims:
            claim.release()
        assert held.held == 0
        await holder.take(4 * MB)

    ran(work)


def request(pieces: list[bytes], length: int | None, pause: asyncio.Event | None = None) -> Request:
    """A request whose body comes in pieces; ``pause`` is waited for before the last."""
    headers = [] if length is None else [(b"content-length", str(length).encode())]
    left = list(pieces)

    async def receive() -> dict[str, Any]:
        if pause is not None and len(left) == 1:
            await pause.wait()
        piece = left.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(left)}

    return Request({"type": "http", "method": "POST", "headers": headers}, receive)


def test_a_body_claims_what_it_says_before_it_is_read() -> None:
    async def work() -> None:
        held, pause = Held(4 * MB, 4 * MB, wait_s=0.05), asyncio.Event()
        claim = held.claim("a")
        body = [b"x" * MB] * 3
        reading = asyncio.create_task(read_body(request(body, 3 * MB, pause), 25 * MB, 20, claim, Bodies()))
        await turns()
        assert held.held == 3 * MB
        unread = request([b""], 2 * MB)
        with pytest.raises(Full):
            await read_body(unread, 25 * MB, 20, held.claim("b"), Bodies())
        pause.set()
        assert await reading == b"".join(body)

    ran(work)


def test_a_body_that_says_nothing_is_counted_as_it_comes() -> None:
    async def work() -> None:
        held = Held(4 * MB, 4 * MB, wait_s=0.05)
        claim, other = held.claim("a"), held.claim("b")
        piece = b"x" * 2**16
        assert len(await read_body(request([piece] * 40, None), 25 * MB, 20, claim, Bodies())) == 40 * 2**16
        assert 40 * 2**16 - FREE <= held.held <= 40 * 2**16 + MB
        with pytest.raises(Full):
            await read_body(request([piece] * 64, None), 25 * MB, 20, other, Bodies())
        other.release()
        with pytest.raises(TooLarge):
            await read_body(request([piece] * 64, None), MB, 20, other, Bodies())
        claim.release()
        other.release()
        await read_body(request([piece], None), MB, 20, other, Bodies())
        assert held.held == 0

    ran(work)


def test_a_stop_waits_for_bodies_as_long_as_it_says() -> None:
    async def work() -> None:
        held, bodies, pause = Held(4 * MB, 4 * MB), Bodies(), asyncio.Event()
        late = request([b"x", b"y"], 2, pause)
        reading = asyncio.create_task(read_body(late, MB, 1000, held.claim("a"), bodies))
        await turns()
        bodies.end(0.01)
        with pytest.raises(Overloaded, match="stops"):
            await reading
        # One that comes yet is read.
        assert await read_body(request([b"x"], 1), MB, 1000, held.claim("a"), bodies) == b"x"
        slow = request([b"x", b"y"], 2, asyncio.Event())
        with pytest.raises(TooSlow):
            await read_body(slow, MB, 0.01, held.claim("a"), Bodies())

    ran(work)


def test_a_budget_takes_a_whole_body(sqlite_store: Store, tmp_path: Path) -> None:
    async def work() -> None:
        settings = Settings(max_held_bytes=MB, max_body_bytes=3 * MB, max_image_bytes=4 * MB)
        gateway = Gateway(settings, store=sqlite_store, blobs=folder_blobs(tmp_path / "images"))
        one, other = gateway.held.claim("a"), gateway.held.claim("b")
        await one.take(4 * MB)
        assert not other.take_now(MB)

    ran(work)


@pytest.mark.parametrize("threads", ["run", "run_images"])
def test_a_body_that_is_refused_is_let_go_with_its_claim(
    sqlite_store: Store, tmp_path: Path, threads: str
) -> None:
    """Of sixty-four damaged photographs at once a gateway had a gigabyte more than it counted."""

    def fail(_: Large) -> None:
        raise ValueError

    async def work(body: Large) -> None:
        with contextlib.suppress(ValueError):
            await getattr(gateway, threads)(fail, body)

    gateway = Gateway(Settings(), store=sqlite_store, blobs=folder_blobs(tmp_path / "images"))
    with freed_at_once() as body:
        asyncio.run(work(body))
        del body


@pytest.mark.parametrize("error", [ValueError, TimeoutError])
def test_what_a_request_held_when_it_failed_is_let_go_with_its_answer(error: type[Exception]) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        held = scope["body"]
        raise error(type(held).__name__)

    async def work(scope: Scope) -> None:
        async def receive() -> Message:
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            sent.append(message["type"])

        await front(scope, receive, send)

    def answer(error: Exception, request: Request) -> Response:
        return Response(status_code=500)

    sent: list[str] = []
    front = Front(app, answer=answer, seconds=60)
    with freed_at_once() as body:
        asyncio.run(work({"type": "http", "method": "POST", "path": "/x", "headers": [], "body": body}))
        del body
    assert sent == ["http.response.start", "http.response.body"]
