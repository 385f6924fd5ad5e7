"""A fit killed anywhere leaves the old memory serving; a reader beside fits never sees half of one."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import faiss
import numpy as np
import pytest

import serving
from serving.core.patchcore.store import RoiStore, StoredRoi
from tests.integration.patchcore.publishing import ROI, ROLE, memory

PUBLISHING = Path(__file__).with_name("publishing.py")


def publisher(root: Path, count: int) -> subprocess.Popen[str]:
    source = Path(serving.__file__).resolve().parents[1]
    return subprocess.Popen(
        [sys.executable, str(PUBLISHING), str(root), str(count)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"},
    )


def check(found: StoredRoi) -> int:
    """The seed of a memory whose every file is of that seed."""
    assert found.memory.info is not None
    seed = found.memory.info.seed
    assert seed is not None
    assert (found.memory.emb == memory(seed).emb).all()
    assert found.index.shape == found.memory.emb.shape
    assert found.generation == found.memory.info.generation
    if found.calibration is not None:
        assert found.calibration.threshold == pytest.approx(seed / 1000)
    return seed


def plain_read(root: Path) -> None:
    """A reader that knows only the contract: it opens the folder once and reads the files in it."""
    folder = os.open(root / ROLE / ROI, os.O_RDONLY)
    try:
        with (
            os.fdopen(os.open("memory.npz", os.O_RDONLY, dir_fd=folder), "rb") as stream,
            np.load(stream, allow_pickle=False) as stored,
        ):
            emb, height = stored["emb"], int(stored["token_h"])
        with os.fdopen(os.open("index.faiss", os.O_RDONLY, dir_fd=folder), "rb") as stream:
            index = faiss.deserialize_index(np.frombuffer(stream.read(), np.uint8))
    finally:
        os.close(folder)
    assert height == 32
    assert index.ntotal == len(emb)
    distances, _ = index.search(emb[:3], 1)
    assert distances.max() < 1e-6


def test_killed_fits_leave_a_whole_memory_serving(tmp_path: Path) -> None:
    store = RoiStore(tmp_path / "models", faiss=False)
    store.publish(ROLE, ROI, memory(0))
    rng = random.Random(0)
    last = 0
    for _ in range(6):
        process = publisher(store.root, 1000)
        assert process.stdout is not None
        try:
            for _ in range(rng.randint(1, 3)):
                process.stdout.readline()
            time.sleep(rng.uniform(0, 0.03))
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
            process.stdout.close()
        last = check(store.load(ROLE, ROI))
        plain_read(store.root)
    assert last >= 1
    # The lock died with its owner, and what was half written is no hindrance.
    store.publish(ROLE, ROI, memory(99))
    assert check(store.load(ROLE, ROI)) == 99
    assert store.list() == ((ROLE, ROI),)


def test_readers_beside_fits_see_whole_memories_only(tmp_path: Path) -> None:
    store = RoiStore(tmp_path / "models", faiss=False)
    store.publish(ROLE, ROI, memory(0))
    # It goes on until the reader has seen what it is about, however rarely the reader's turn comes.
    more = tmp_path / "more"
    more.touch()
    process = publisher(store.root, 12)
    assert process.stdout is not None
    seen: set[int] = set()
    try:
        while process.poll() is None:
            seen.add(check(store.load(ROLE, ROI)))
            if len(seen) > 3:
                more.unlink(missing_ok=True)
            try:
                plain_read(store.root)
            except FileNotFoundError:
                # The folder that it holds was replaced and removed meanwhile: a plain reader opens it again.
                continue
        last = int(process.stdout.read().split()[-1])
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert process.returncode == 0
    assert check(store.load(ROLE, ROI)) == last >= 12
    assert len(seen) > 3
