"""ROIs on disk: generations, calibrations, stamps, and what else lies in the folder."""

from __future__ import annotations

import contextlib
import json
import threading

import faiss
import numpy as np
import pytest

from data import files
from data.errors import RequestError
from serving.core.patchcore.calibrate import Calibration
from serving.core.patchcore.memory import Memory, MemoryInfo
from serving.core.patchcore.store import RETIRED, RoiStore
from tests.unit.serving.core.patchcore.rois import CALIBRATION, memory, rows


def test_a_published_memory_is_read_whole(store: RoiStore) -> None:
    generation = store.publish("Master1", "Pattern", memory())
    found = store.load("Master1", "Pattern")
    assert (found.memory.emb == rows()).all()
    assert found.memory.info is not None
    assert found.memory.info.generation == found.generation == generation
    assert found.memory.info.distance == "squared_l2"
    assert found.memory.info.created_at is not None
    assert found.memory.info.radius == 0.25
    assert found.calibration is None
    assert found.index.search(rows())[1].tolist() == list(range(12))
    assert store.list() == (("Master1", "Pattern"),)


def test_a_plain_reader_reads_it(store: RoiStore) -> None:
    generation = store.publish("Master1", "Pattern", memory())
    store.save_calibration("Master1", "Pattern", CALIBRATION, generation=generation)
    folder = store.root / "Master1" / "Pattern"
    assert sorted(item.name for item in folder.iterdir()) == ["calib.json", "index.faiss", "memory.npz"]
    with np.load(folder / "memory.npz", allow_pickle=False) as stored:
        assert (stored["emb"] == rows()).all()
        assert (int(stored["token_h"]), int(stored["token_w"])) == (3, 4)
    assert faiss.read_index(str(folder / "index.faiss")).ntotal == 12
    plain = json.loads((folder / "calib.json").read_text())
    assert set(plain) == {"threshold", "p99_ok", "p5_ng", "mm_per_px", "area_mm2_thr", "score_percentile"}
    assert plain["threshold"] == CALIBRATION.threshold


def test_a_new_fit_retires_the_calibration(store: RoiStore) -> None:
    first = store.publish("a", "b", memory())
    store.save_calibration("a", "b", CALIBRATION, generation=first)
    assert store.load("a", "b").calibration == CALIBRATION
    second = store.publish("a", "b", memory(1))
    found = store.load("a", "b")
    assert second != first
    assert (found.memory.emb == rows(1)).all()
    assert found.calibration is None
    retired = json.loads((store.folder("a", "b") / RETIRED).read_text())
    assert Calibration.from_dict(retired) == CALIBRATION
    assert [item.name for item in (store.root / "a").iterdir()] == ["b"]


def test_a_calibration_of_another_generation_is_refused(store: RoiStore) -> None:
    first = store.publish("a", "b", memory())
    store.publish("a", "b", memory(1))
    with pytest.raises(RequestError, match="fitted again"):
        store.save_calibration("a", "b", CALIBRATION, generation=first)
    assert store.load("a", "b").calibration is None


@pytest.mark.parametrize("role", ["a", "unknown"])
def test_no_memory_is_a_bad_request(store: RoiStore, role: str) -> None:
    store.publish("a", "b", memory())
    with pytest.raises(RequestError, match="no memory"):
        store.load(role, "c")
    with pytest.raises(RequestError, match="no memory"):
        store.save_calibration(role, "c", CALIBRATION, generation="g")
    assert store.stamp(role, "c") is None


@pytest.mark.parametrize("bad", ["..", "a/b", "", "x" * 300, "a\0", "Маster1"])
def test_ids_are_checked_everywhere(store: RoiStore, bad: str) -> None:
    for role, roi in ((bad, "ok"), ("ok", bad)):
        for call in (
            lambda r=role, i=roi: store.folder(r, i),
            lambda r=role, i=roi: store.load(r, i),
            lambda r=role, i=roi: store.stamp(r, i),
            lambda r=role, i=roi: store.publish(r, i, memory()),
            lambda r=role, i=roi: store.save_calibration(r, i, CALIBRATION, generation="g"),
        ):
            with pytest.raises(RequestError, match="path-safe"):
                call()
    assert not store.root.exists()


def test_the_stamp_changes_with_every_change(store: RoiStore) -> None:
    seen = [store.stamp("a", "b")]
    generation = store.publish("a", "b", memory())
    seen.append(store.stamp("a", "b"))
    assert store.load("a", "b").stamp == store.stamp("a", "b") == seen[-1]
    store.save_calibration("a", "b", CALIBRATION, generation=generation)
    seen.append(store.stamp("a", "b"))
    store.publish("a", "b", memory())
    seen.append(store.stamp("a", "b"))
    assert seen[0] is None
    assert len(set(seen)) == 4


def test_what_others_keep_in_the_folder_stays(store: RoiStore) -> None:
    store.publish("a", "b", memory())
    folder = store.folder("a", "b")
    (folder / "notes.txt").write_text("keep")
    (folder / "pictures").mkdir()
    (folder / "pictures" / "one.png").write_bytes(b"x")
    (folder / ".calib.json.abc.part").write_bytes(b"left by a kill")
    store.publish("a", "b", memory(1))
    assert (folder / "notes.txt").read_text() == "keep"
    assert (folder / "pictures" / "one.png").read_bytes() == b"x"
    assert not (folder / ".calib.json.abc.part").exists()


def test_where_folders_can_not_be_swapped_the_old_memory_serves_throughout(
    store: RoiStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On such a filesystem a fit needs two renames; a kill between them leaves nothing at the path."""
    store.publish("a", "b", memory(1))
    monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    folder = store.folder("a", "b")
    aside = folder.parent / ".b.abcdefgh.old"
    aside.mkdir()
    folder.rename(aside / "b")
    assert (store.load("a", "b").memory.emb == rows(1)).all()
    assert store.stamp("a", "b") is not None
    store.publish("a", "b", memory(2))
    assert (store.load("a", "b").memory.emb == rows(2)).all()
    assert [item.name for item in folder.parent.iterdir()] == ["b"]


def test_several_writers_and_readers_in_one_process(store: RoiStore) -> None:
    store.publish("a", "b", memory(0))
    failures: list[BaseException] = []
    stop = threading.Event()

    def read() -> None:
        try:
            while not stop.is_set():
                found = store.load("a", "b")
                seed = 0 if found.memory.info is None else found.memory.info.seed or 0
                assert (found.memory.emb == rows(seed)).all()
        except BaseException as error:
            failures.append(error)

    def write(first: int) -> None:
        try:
            for seed in range(first, first + 8):
                made = Memory(rows(seed), 3, 4, MemoryInfo(seed=seed))
                generation = store.publish("a", "b", made)
                with contextlib.suppress(RequestError):  # the other writer may have fitted again
                    store.save_calibration("a", "b", CALIBRATION, generation=generation)
        except BaseException as error:
            failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    writers = [threading.Thread(target=write, args=(first,)) for first in (1, 100)]
    for thread in readers + writers:
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    for thread in readers:
        thread.join()
    assert failures == []


def test_an_empty_store_lists_nothing(store: RoiStore) -> None:
    assert store.list() == ()
    store.root.mkdir()
    (store.root / "notes.npz").write_bytes(b"")
    (store.root / "role").mkdir()
    assert store.list() == ()
