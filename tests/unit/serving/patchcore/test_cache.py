from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from serving.patchcore.cache import Recent
from serving.patchcore.locks import Locks


def test_the_least_recently_used_goes_first() -> None:
    recent: Recent[str] = Recent(2, 1000)
    loads: list[str] = []

    def get(key: str, mark: int = 0, size: int = 10) -> str:
        return recent.get(key, mark, lambda: (loads.append(key) or key.upper(), size))  # type: ignore[func-returns-value]

    assert [get("a"), get("b"), get("a"), get("c"), get("a")] == ["A", "B", "A", "C", "A"]
    assert loads == ["a", "b", "c"]
    get("b")
    assert loads[-1] == "b"
    assert len(recent) == 2
    get("a", mark=1)
    assert loads[-1] == "a", "another mark is another state of the disk"
    get("huge", size=5000)
    get("huge", size=5000)
    assert loads[-2:] == ["huge", "huge"], "what is larger than all may be is not kept"
    recent.drop("a")
    get("a", mark=1)
    assert loads[-1] == "a"


def test_bytes_are_bounded_too() -> None:
    recent: Recent[int] = Recent(100, 100)
    for n in range(10):
        recent.get(n, 0, lambda n=n: (n, 30))
    assert len(recent) == 3
    assert recent.bytes == 90


def test_two_that_miss_wait_for_one_load() -> None:
    recent: Recent[int] = Recent(4, 1000)
    loads = []

    def load() -> tuple[int, int]:
        loads.append(1)
        time.sleep(0.05)
        return 7, 1

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: recent.get("k", 0, load), range(8))) == {7}
    assert len(loads) == 1


def test_a_failed_load_leaves_the_way_free() -> None:
    recent: Recent[int] = Recent(4, 1000)
    for _ in range(2):
        try:
            recent.get("k", 0, lambda: (1 // 0, 1))
        except ZeroDivisionError:
            continue
    assert recent.get("k", 0, lambda: (3, 1)) == 3


def test_locks_by_name_exclude_each_other_and_are_forgotten() -> None:
    locks = Locks()
    inside: dict[str, int] = {"a": 0, "b": 0}
    most: dict[str, int] = {"a": 0, "b": 0}
    together = threading.Barrier(2, timeout=120)

    def work(key: str) -> None:
        with locks.hold(key):
            inside[key] += 1
            most[key] = max(most[key], inside[key])
            time.sleep(0.001)
            inside[key] -= 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, ["a", "b"] * 20))
    assert most == {"a": 1, "b": 1}

    def meet(key: str) -> None:
        with locks.hold(key):
            together.wait()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(meet, ["a", "b"]))
    assert len(locks) == 0
