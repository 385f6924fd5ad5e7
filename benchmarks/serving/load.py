"""Capacity, and what happens below and above it."""

from __future__ import annotations

import http.client
import statistics
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from benchmarks.serving.bundle import TASK
from benchmarks.serving.servers import Running, connect
from benchmarks.serving.table import Table


@dataclass
class Load:
    """What came of a load."""

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    health: list[float] = field(default_factory=list)
    unhealthy: int = 0
    without_retry_after: int = 0


class Poster:
    """Posts one body from many threads, each over a connection of its own that it keeps."""

    def __init__(self, url: str, path: str, body: bytes, headers: dict[str, str]) -> None:
        self._address = url.removeprefix("http://")
        self._request = ("POST", path, body, headers)
        self._own = threading.local()

    def post(self) -> tuple[int, bool]:
        """The status, 0 for a connection that failed; and whether it says when to come again."""
        connection = getattr(self._own, "connection", None)
        if connection is None:
            connection = self._own.connection = connect(self._address)
        try:
            connection.request(*self._request)
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            self._own.connection = None
            return 0, False
        return answer.status, answer.getheader("Retry-After") is not None


def closed_loop(poster: Poster, at_once: int, seconds: float) -> float:
    """Answers a second when ``at_once`` clients ask without a pause."""
    started = time.monotonic()

    def client(_: int) -> int:
        answered = 0
        while time.monotonic() < started + seconds:
            answered += poster.post()[0] == 200
        return answered

    with ThreadPoolExecutor(at_once) as pool:
        answered = sum(pool.map(client, range(at_once)))
    return answered / (time.monotonic() - started)


def open_loop(poster: Poster, url: str, rate: float, seconds: float) -> Load:
    """Requests at random times, ``rate`` a second on average, whether or not earlier ones are answered."""
    rng = np.random.default_rng(1)
    load, stop, lock = Load(), threading.Event(), threading.Lock()

    def ask() -> None:
        started = time.monotonic()
        status, retry = poster.post()
        with lock:
            load.statuses[status] += 1
            if status == 200:
                load.seconds.append(time.monotonic() - started)
            elif not retry:
                load.without_retry_after += 1

    def watch() -> None:
        connection = connect(url.removeprefix("http://"))
        while not stop.wait(0.1):
            started = time.monotonic()
            connection.request("GET", "/v2/health/live")
            answer = connection.getresponse()
            answer.read()
            load.health.append(time.monotonic() - started)
            load.unhealthy += answer.status != 200

    watching = threading.Thread(target=watch)
    watching.start()
    with ThreadPoolExecutor(256) as pool:
        due = time.monotonic()
        end = due + seconds
        while due < end:
            due += rng.exponential(1 / rate)
            time.sleep(max(0.0, due - time.monotonic()))
            pool.submit(ask)
    stop.set()
    watching.join()
    return load


def measure_load(table: Table, data: bytes, running: Running, seconds: float) -> None:
    """Rows of capacity and of the open loop."""
    from serving.client import encode

    body, length = encode([data], explain="overlay")
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(length)}
    poster = Poster(running.url, f"/v2/models/{TASK}/infer", body, headers)
    capacity = closed_loop(poster, 4, seconds)
    table.add("capacity, 4 clients without a pause", value=round(capacity, 1), unit="answers/s")
    for percent in (50, 100, 200):
        load = open_loop(poster, running.url, capacity * percent / 100, seconds)
        total, ok = sum(load.statuses.values()), load.statuses[200]
        refused = load.statuses[503] - load.without_retry_after
        milliseconds = [s * 1e3 for s in load.seconds] or [float("nan")]
        table.add(
            f"open loop at {percent} % of capacity",
            median_ms=round(statistics.median(milliseconds), 1),
            p95_ms=round(float(np.quantile(milliseconds, 0.95)), 1),
            requests=total,
            ok=ok,
            refused_503=refused,
            errors=total - ok - refused + load.unhealthy,
            health_worst_ms=round(max(load.health) * 1e3, 1),
        )
