"""The gateway's own time for one photograph at a time: with disks that keep their word, and without any.

The same ``/check-image`` on a folder of a disk (every image, row and log is flushed before the answer) and on
one in memory, where flushing costs nothing; and the model's server asked directly, which is taken off.
"""

from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np

from benchmarks.gateway.running import Gateway, gateway, null_model
from serving.client import encode

TASK = "skin_lesion"
_SIDE = 224
_MEMORY = Path("/dev/shm")


def photographs(count: int) -> list[bytes]:
    """JPEGs of 224 pixels that differ, so that each is a new image to the store."""
    random = np.random.default_rng(0)
    found = []
    for _ in range(count):
        small = random.integers(40, 220, (_SIDE // 8, _SIDE // 8, 3), np.uint8)
        written, data = cv2.imencode(".jpg", cv2.resize(small, (_SIDE, _SIDE), interpolation=cv2.INTER_CUBIC))
        assert written
        found.append(data.tobytes())
    return found


def measure_cost(rounds: int) -> list[dict[str, Any]]:
    """Rows of the table: medians in milliseconds."""
    rows = []
    images = photographs(rounds)
    with null_model() as model, httpx.Client(trust_env=False) as client:
        body, length = encode(images[:1])
        headers = {"Inference-Header-Content-Length": str(length)}
        direct = _median(
            rounds, lambda i: client.post(f"{model}/v2/models/{TASK}/infer", content=body, headers=headers)
        )
        rows.append({"step": "null predictor, asked directly", "median_ms": direct})
        totals = {}
        for name, place in (("in memory", _MEMORY), ("on disk", None)):
            with (
                tempfile.TemporaryDirectory(dir=place) as folder,
                gateway(Path(folder), model, TASK) as running,
            ):
                totals[name] = _median(rounds, functools.partial(_check, client, running, images))
                livez = _median(rounds, functools.partial(_alive, client, running))
            rows.append({"step": f"/livez, {name}", "median_ms": livez})
            rows.append({"step": f"/check-image, store {name}", "median_ms": totals[name]})
    own = totals["in memory"] - direct
    rows.append({"step": "the gateway's own time", "median_ms": own, "limit_ms": 5.0, "met": own <= 5.0})
    rows.append({"step": "flushing to disk beside it", "median_ms": totals["on disk"] - totals["in memory"]})
    return rows


def _check(client: httpx.Client, running: Gateway, images: list[bytes], i: int) -> httpx.Response:
    headers = {"x-api-key": running.token, "content-type": "image/jpeg"}
    return client.post(f"{running.url}/check-image", content=images[i], headers=headers)


def _alive(client: httpx.Client, running: Gateway, _: int) -> httpx.Response:
    return client.get(f"{running.url}/livez")


def _median(rounds: int, ask: Callable[[int], httpx.Response]) -> float:
    times = []
    for i in range(rounds):
        started = time.perf_counter()
        response = ask(i)
        times.append(1000 * (time.perf_counter() - started))
        response.raise_for_status()
    # The first ones open connections and files.
    return round(float(np.median(times[rounds // 10 :])), 3)
