"""Following a source."""

from __future__ import annotations

import asyncio
import dataclasses
import math
from pathlib import Path

import pytest

from data.errors import BundleError, ServingError
from serving import watch
from serving.source import Served
from serving.watch import Watcher


class Script:
    """A source that names what the test says."""

    def __init__(self, *served: Served) -> None:
        self.named = {item.task: item for item in served}

    def scan(self) -> dict[str, Served]:
        return dict(self.named)


def served(task: str, version: str) -> Served:
    return Served(task, version, "sha256:" + version * 64, Path(task))


def make(source: Script, bad: set[str]) -> tuple[Watcher[str], list[str], list[tuple[str, str]]]:
    published: list[str] = []
    outcomes: list[tuple[str, str]] = []

    def load(item: Served) -> str:
        if item.version in bad:
            raise BundleError("altered")
        return f"{item.task} {item.version}"

    watcher = Watcher(
        source, load, lambda _, text: published.append(text), on_outcome=lambda *what: outcomes.append(what)
    )
    return watcher, published, outcomes


def test_what_changes_is_loaded_once_and_published(  # the same again is nothing new
) -> None:
    source = Script(served("a", "1"))
    watcher, published, outcomes = make(source, set())
    watcher.first()
    asyncio.run(watcher.refresh())
    source.named["a"] = served("a", "2")
    source.named["b"] = served("b", "1")
    for _ in range(2):
        asyncio.run(watcher.refresh())
    assert published == ["a 1", "a 2", "b 1"]
    assert outcomes == [("a", "served"), ("a", "served"), ("b", "served")]


def test_looking_at_the_same_time_publishes_once() -> None:
    source = Script(served("a", "1"))
    watcher, published, _ = make(source, set())
    watcher.first()
    source.named["a"] = served("a", "2")

    async def together() -> None:
        await asyncio.gather(*(watcher.refresh() for _ in range(5)))

    asyncio.run(together())
    assert published == ["a 1", "a 2"]


def test_what_may_not_serve_keeps_the_old_and_is_tried_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_RETRY_S", math.inf)
    source, bad = Script(served("a", "1")), {"2"}
    watcher, published, outcomes = make(source, bad)
    watcher.first()
    source.named["a"] = served("a", "2")
    for _ in range(3):
        asyncio.run(watcher.refresh())
    assert published == ["a 1"]
    assert outcomes[1:] == [("a", "refused")]
    bad.clear()
    monkeypatch.setattr(watch, "_RETRY_S", 0.0)
    asyncio.run(watcher.refresh())
    assert published == ["a 1", "a 2"]


def test_one_that_fails_unforeseen_neither_holds_up_the_others_nor_is_tried_each_second(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_RETRY_S", math.inf)
    source = Script(served("a", "1"), served("b", "1"))
    tried: list[Served] = []
    published: list[str] = []

    def load(item: Served) -> str:
        tried.append(item)
        if item.task == "a":
            raise PermissionError(13, "Permission denied")
        return item.task

    def publish(item: Served, text: str) -> None:
        if item.version == "2":
            raise KeyError("gone")
        published.append(text)

    watcher = Watcher(source, load, publish)
    watcher.first()
    for _ in range(3):
        asyncio.run(watcher.refresh())
    assert published == ["b"]
    assert tried == [served("a", "1"), served("b", "1")]
    assert "PermissionError" in caplog.text
    source.named["b"] = served("b", "2")
    source.named["c"] = served("c", "1")
    for _ in range(3):
        asyncio.run(watcher.refresh())
    assert published == ["b", "c"]
    assert tried[2:] == [served("b", "2"), served("c", "1")]
    with pytest.raises(ServingError, match=r"a version 1 can't be loaded \(PermissionError"):
        Watcher(Script(served("a", "1")), load, publish).first()


def test_at_the_start_one_that_serves_is_enough_and_none_is_an_error() -> None:
    watcher, published, _ = make(Script(served("a", "2"), served("b", "1")), {"2"})
    watcher.first()
    assert published == ["b 1"]
    with pytest.raises(BundleError, match="altered"):
        make(Script(served("a", "2")), {"2"})[0].first()
    with pytest.raises(ServingError, match="Nothing is promoted"):
        make(Script(), set())[0].first()


def test_what_is_named_no_more_is_told_and_dropped_later(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(watch.time, "monotonic", lambda: now[0])
    source = Script(served("a", "1"), served("b", "1"))
    told: list[str] = []
    watcher: Watcher[str] = Watcher(
        source,
        lambda item: item.task,
        lambda item, text: told.append(f"publish {text}"),
        leave=lambda name: told.append(f"leave {name}"),
        drop=lambda name: told.append(f"drop {name}"),
        linger_s=10,
    )
    watcher.first()
    b = source.named.pop("b")
    for at in (100.0, 105.0):
        now[0] = at
        asyncio.run(watcher.refresh())
    assert told == ["publish a", "publish b", "leave b"]
    # Back before it was gone: published again, and the next leaving begins anew.
    source.named["b"] = b
    asyncio.run(watcher.refresh())
    asyncio.run(watcher.refresh())
    assert told[3:] == ["publish b"]
    del source.named["b"]
    for at in (112.0, 121.9, 122.0, 140.0):
        now[0] = at
        asyncio.run(watcher.refresh())
    assert told[4:] == ["leave b", "drop b"]
    source.named["b"] = b
    asyncio.run(watcher.refresh())
    assert told[6:] == ["publish b"]


def test_what_is_not_new_is_not_loaded_again() -> None:
    one = Served("a", "1", "sha256:1", Path("a"), "shadow")
    source, loaded = Script(), []
    source.named["a-challenger"] = one
    watcher: Watcher[str] = Watcher(
        source,
        lambda item: loaded.append(item) or "",  # type: ignore[func-returns-value]
        lambda item, text: None,
        is_new=lambda item, old: not item.same_model(old),
    )
    watcher.first()
    source.named["a-challenger"] = dataclasses.replace(one, mode="share", share=0.5)
    asyncio.run(watcher.refresh())
    assert len(loaded) == 1
    source.named["a-challenger"] = dataclasses.replace(one, version="2")
    asyncio.run(watcher.refresh())
    assert len(loaded) == 2
