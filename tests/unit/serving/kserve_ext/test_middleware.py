"""The outermost layers, with hand-made messages."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from serving.kserve_ext.middleware import BodyLimit, CatchAll, OneParser


def run(
    app: Any, parts: Sequence[bytes], headers: Sequence[tuple[bytes, bytes]] = (), path: str = "/"
) -> list[dict[str, Any]]:
    """Send a request in parts and give what was sent back."""
    waiting = [
        {"type": "http.request", "body": part, "more_body": i < len(parts) - 1}
        for i, part in enumerate(parts)
    ]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return waiting.pop(0) if waiting else {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": path, "headers": list(headers)}
    asyncio.run(app(scope, receive, send))
    return sent


async def reader(scope: Any, receive: Any, send: Any) -> None:
    """An application that reads the whole body and says how long it was."""
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RuntimeError("the client went away")
        size += len(message["body"])
        more = message["more_body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(size).encode()})


def app(limit: int = 100) -> Any:
    return CatchAll(BodyLimit(reader, limit))


@pytest.mark.parametrize("parts", [[b"x" * 100], [b"x" * 50, b"x" * 50], [b""]])
def test_bodies_up_to_the_limit_pass(parts: list[bytes]) -> None:
    sent = run(app(), parts)
    assert sent[0]["status"] == 200
    assert sent[1]["body"] == str(sum(map(len, parts))).encode()


@pytest.mark.parametrize("length", [b"101", b"99999999"])
def test_a_declared_length_over_the_limit_is_refused(length: bytes) -> None:
    sent = run(app(), [b"x" * 60, b"x" * 60], [(b"content-length", length)])
    assert [message.get("status") for message in sent] == [413, None]
    assert (b"connection", b"close") in sent[0]["headers"]


@pytest.mark.parametrize("parts", [[b"x" * 101], [b"x" * 60] * 2, [b"x" * 60] * 50])
def test_chunks_over_the_limit_are_refused_once(parts: list[bytes]) -> None:
    sent = run(app(), parts)
    assert [message.get("status") for message in sent] == [413, None]


def test_a_lying_length_is_counted() -> None:
    assert run(app(), [b"x" * 101], [(b"content-length", b"5")])[0]["status"] == 413


def test_an_exception_is_a_500_with_a_reference_and_no_details() -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError("/srv/secret")

    sent = run(CatchAll(broken), [b""])
    assert sent[0]["status"] == 500
    assert b"Reference" in sent[1]["body"]
    assert b"secret" not in sent[1]["body"]


def test_an_exception_after_the_answer_is_swallowed() -> None:
    async def late(scope: Any, receive: Any, send: Any) -> None:
        await reader(scope, receive, send)
        raise ValueError("late")

    assert run(CatchAll(late), [b"x"])[0]["status"] == 200


def test_every_inference_reaches_the_binary_parser() -> None:
    seen: list[Any] = []

    async def look(scope: Any, receive: Any, send: Any) -> None:
        headers = dict(scope["headers"])
        seen.append((headers[b"content-type"], headers.get(b"inference-header-content-length")))

    def ask(path: str, *headers: tuple[bytes, bytes]) -> tuple[bytes, bytes | None]:
        run(OneParser(look), [b""], headers, path)
        return seen[-1]  # type: ignore[no-any-return]

    infer = "/v2/models/m/infer"
    json = (b"content-type", b"application/json; charset=utf-8")
    octets, length, header = (
        b"application/octet-stream",
        b"content-length",
        b"inference-header-content-length",
    )
    assert ask(infer, json, (header, b"5"), (length, b"9")) == (octets, b"5")
    assert ask(infer, json, (length, b"9")) == (octets, b"9")
    assert ask(infer, json) == (json[1], None)
    assert ask("/v1/models/m:predict", json, (length, b"9")) == (json[1], None)
    assert ask(infer, (b"content-type", b"application/cloudevents+json"), (length, b"9"))[1] is None
