"""Sixty-four clients at once, each from photograph to case to rejection, over and over; then the books.

A client works as the app does: it checks a photograph, logs its case, and rejects some answers. It sends an
idempotency key with each, and one request in ten again as if the answer had been lost. When the time is over,
what the store holds is held against what was acknowledged: each case once, with its image and its bytes.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np

from benchmarks.gateway.running import Gateway
from serving.gateway.settings import Settings
from serving.gateway.store import unscoped
from serving.gateway.store.repositories import cases, images

_AGAIN = 0.1
_REJECTED = 0.2


@dataclass
class Books:
    """What clients were told."""

    times: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    cases: dict[str, str] = field(default_factory=dict)
    rejected: Counter[str] = field(default_factory=Counter)
    changed_answers: int = 0


def measure_load(
    running: Gateway, photographs: list[bytes], *, clients: int, seconds: float
) -> list[dict[str, Any]]:
    """Rows of the table: a route each, and the books at the end."""
    books = Books()
    started = time.perf_counter()
    asyncio.run(_all(running, photographs, books, clients, seconds))
    elapsed = time.perf_counter() - started
    rows = []
    for route, times in books.times.items():
        failed = sum(
            n for (r, status), n in books.statuses.items() if r == route and status >= 500 and status != 503
        )
        busy = books.statuses[route, 503]
        rows.append(
            {
                "step": route,
                "clients": clients,
                "answers": len(times),
                "per_second": round(len(times) / elapsed, 1),
                "p50_ms": round(float(np.percentile(times, 50)), 1),
                "p99_ms": round(float(np.percentile(times, 99)), 1),
                "status_503": busy,
                "status_5xx": failed,
            }
        )
    rows.append(_balance(running, books))
    return rows


async def _all(
    running: Gateway, photographs: list[bytes], books: Books, clients: int, seconds: float
) -> None:
    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    async with httpx.AsyncClient(
        base_url=running.url, headers={"x-api-key": running.token}, limits=limits, timeout=60, trust_env=False
    ) as client:
        end = time.perf_counter() + seconds
        await asyncio.gather(*(_client(client, photographs, books, n, end) for n in range(clients)))


async def _client(
    client: httpx.AsyncClient, photographs: list[bytes], books: Books, number: int, end: float
) -> None:
    random = np.random.default_rng(number)
    while time.perf_counter() < end:
        key = f"case-{uuid.uuid4()}"
        data = photographs[int(random.integers(len(photographs)))]
        again = random.random(3) < _AGAIN
        checked = await _send(
            client, books, "/check-image", f"{key}-a", bool(again[0]),
            params={"case_id": key}, content=data, headers={"content-type": "image/jpeg"},
        )  # fmt: skip
        case = {"case_id": key, "image_id": checked["image_id"], "predictions": checked["predictions"]}
        await _send(
            client, books, "/cases", f"{key}-b", bool(again[1]), json={**case, "status": checked["status"]}
        )
        books.cases[key] = checked["image_id"]
        if random.random() < _REJECTED:
            await _send(
                client, books, "/cases/reject", f"{key}-c", bool(again[2]), json={**case, "reason": "wrong"}
            )
            books.rejected[key] += 1


async def _send(
    client: httpx.AsyncClient, books: Books, route: str, key: str, again: bool, **request: Any
) -> dict[str, Any]:
    """Send until it is answered; ``again``: a second time after the answer, which must be the same."""
    headers = {**request.pop("headers", {}), "idempotency-key": key}
    answers: list[dict[str, Any]] = []
    while len(answers) <= again:
        started = time.perf_counter()
        response = await client.post(route, headers=headers, **request)
        books.times[route].append(1000 * (time.perf_counter() - started))
        books.statuses[route, response.status_code] += 1
        if response.status_code == 503:
            await asyncio.sleep(float(response.headers["retry-after"]))
            continue
        if response.status_code != 200:
            raise RuntimeError(f"{route}: {response.status_code} {response.text}")
        answers.append(response.json())
    books.changed_answers += answers[0] != answers[-1]
    return answers[0]


def _balance(running: Gateway, books: Books) -> dict[str, Any]:
    """Held against the store: what is missing, what is there twice."""
    settings = Settings.from_env(running.environment)
    store, blobs = settings.open_store(), settings.open_blobs()
    tenant = unscoped.find_tenant(store, "default").id
    try:
        lost = doubled = without_bytes = 0
        with store.read(tenant) as scope:
            for key, image_id in books.cases.items():
                found = cases.get(scope, key)
                entries, said = cases.entries(scope, key), cases.rejections(scope, key)
                shown = images.of_case(scope, key)
                lost += found.image_id != image_id or not entries or len(said) < books.rejected[key]
                doubled += len(entries) > 1 or len(said) > books.rejected[key] or len(shown) > 1
                without_bytes += blobs.size(tenant, images.get(scope, image_id).sha256) is None
        return {
            "step": "the books", "answers": len(books.cases), "lost": lost, "doubled": doubled,
            "without_bytes": without_bytes, "changed_answers": books.changed_answers,
            "met": not (lost or doubled or without_bytes or books.changed_answers),
        }  # fmt: skip
    finally:
        store.close()
