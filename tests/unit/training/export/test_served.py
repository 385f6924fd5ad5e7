"""A real server on a tiny bundle: answers are compared, and it is gone afterwards."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import pytest

from data.errors import ParityError, ServingError
from data.preprocess import Preprocessing
from serving.core.bundle import Bundle
from serving.core.decisions import HeadDecision, decide
from serving.core.runtimes import open_runtime
from tests.bundles import tiny_bundle, with_heads
from training.export.served import ask, compare_served, served_parity, started


def pictures(n: int) -> list[bytes]:
    rng = np.random.default_rng(0)
    encoded = []
    for _ in range(n):
        small = rng.integers(40, 200, (24, 24, 3), dtype=np.uint8)
        ok, data = cv2.imencode(".png", cv2.resize(small, (160, 160), interpolation=cv2.INTER_NEAREST))
        assert ok
        encoded.append(data.tobytes())
    return encoded


def offline(bundle: Bundle, files: list[bytes]) -> list[dict[str, HeadDecision]]:
    runtime, prepare = open_runtime(bundle), Preprocessing.from_dict(bundle.card.preprocessing)
    head = bundle.card.heads[0]
    return [
        {head.name: decide(runtime.run(prepare(prepare.decode(data))[None])["logits"], head)}
        for data in files
    ]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("served") / "bundle", quality="thumbnail")


def test_a_started_server_answers_as_offline_and_stops(bundle: Bundle, tmp_path: Path) -> None:
    files = pictures(6)
    before = psutil.Process().children(recursive=True)
    with started(bundle.root) as url:
        children = [child for child in psutil.Process().children(recursive=True) if child not in before]
        assert children
        found = compare_served(url, bundle, files, offline(bundle, files))
        assert found["passed"]
        assert (found["images"], found["answered"], found["labels_changed"]) == (6, 6, 0)
        assert found["max_difference"] < 1e-5
        # The same files against another calibration of the same model: what a stale server would say.
        other = with_heads(bundle, tmp_path / "other", temperature=3.0)
        with pytest.raises(ParityError, match="started server differs from the offline answers on 6"):
            compare_served(url, bundle, files, offline(other, files))
        blank = cv2.imencode(".png", np.zeros((160, 160, 3), np.uint8))[1].tobytes()
        with pytest.raises(ParityError, match="refused all 2 test images for their quality"):
            compare_served(url, bundle, [blank, blank], offline(bundle, [blank, blank]))
        with pytest.raises(ServingError, match="The server answered 4"):
            ask(url, "no_such_task", files[:1])
    gone, alive = psutil.wait_procs(children, timeout=120)
    assert not alive
    assert gone
    with pytest.raises(ServingError, match="no answer"):
        ask(url, bundle.card.task, files[:1])


def test_a_bundle_that_can_not_be_served_says_why(bundle: Bundle, tmp_path: Path) -> None:
    broken = with_heads(bundle, tmp_path / "broken", temperature=2.0)
    (broken.root / "golden.npz").write_bytes(b"")
    with pytest.raises(ServingError, match=r"did not become ready: .*golden\.npz"):
        served_parity(broken, [], [])


_KILLED = """
import sys, time
from pathlib import Path
from training.export.served import started
with started(Path(sys.argv[1])) as url:
    print(url, flush=True)
    time.sleep(600)
"""


@pytest.mark.slow
def test_a_killed_export_leaves_no_server(bundle: Bundle) -> None:
    export = subprocess.Popen(
        [sys.executable, "-c", _KILLED, str(bundle.root)], stdout=subprocess.PIPE, cwd=Path.cwd()
    )
    assert export.stdout is not None
    assert export.stdout.readline().startswith(b"http")
    servers: list[Any] = psutil.Process(export.pid).children(recursive=True)
    assert servers
    os.kill(export.pid, signal.SIGKILL)
    export.wait()
    export.stdout.close()
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and any(map(lives, servers)):
        time.sleep(0.1)
    assert not any(map(lives, servers))


def lives(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False
