"""ROIs on disk: generations, calibrations, older layouts and units, names that collide."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from data import files
from data.errors import IntegrityError, RequestError
from serving.core.patchcore.calibrate import Calibration, calibrate
from serving.core.patchcore.memory import Memory, MemoryInfo, unit
from serving.core.patchcore.search import build_index
from serving.core.patchcore.store import RETIRED, RoiStore

CALIBRATION = calibrate([0.2, 0.3], [0.9], mm_per_px=0.2)
OLD = {
    "threshold": 0.9,
    "p99_ok": 0.8,
    "p5_ng": 1.1,
    "mm_per_px": 0.2,
    "area_mm2_thr": 2.0,
    "score_percentile": 98,
}


def rows(seed: int = 0, n: int = 12) -> NDArray[np.float32]:
    return unit(np.random.default_rng(seed).standard_normal((n, 6)))


def memory(seed: int = 0) -> Memory:
    return Memory(rows(seed), 3, 4, MemoryInfo(extractor="lite0", radius=0.25))


def old_files(
    root: Path,
    where: str,
    seed: int = 0,
    *,
    index: bool = True,
    calibration: Any = None,
    metadata: Any = None,
) -> None:
    """What a plain script that knows only the contract writes. ``where``: ``role/roi`` or ``role_roi``."""
    nested = "/" in where
    base = root / where
    (base if nested else root).mkdir(parents=True, exist_ok=True)
    names = ("memory.npz", "index.faiss", "calib.json")
    if nested:
        paths = [base / name for name in names]
    else:
        paths = [root / f"{where}{end}" for end in (".npz", "_index.faiss", "_calib.json")]
    more = {} if metadata is None else {"metadata": json.dumps(metadata)}
    np.savez(paths[0], emb=rows(seed), token_h=3, token_w=4, **more)
    if index:
        made = faiss.IndexFlatL2(6)
        made.add(rows(seed))
        faiss.write_index(made, str(paths[1]))
    if calibration is not None:
        paths[2].write_text(json.dumps(calibration))


@pytest.fixture
def store(tmp_path: Path) -> RoiStore:
    return RoiStore(tmp_path / "models")


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


METADATA = [
    None,
    {"coreset_rate": 0.02, "applied_rate": 0.02},
    {"extractor": "lite0", "input_size": 448, "format": 1, "coreset_rate": 0.02},
]


@pytest.mark.parametrize("where", ["Master1/Pattern", "Master1_Pattern"])
@pytest.mark.parametrize("metadata", METADATA, ids=["bare", "rates", "named"])
@pytest.mark.parametrize("calibration", [None, OLD], ids=["uncalibrated", "calibrated"])
def test_old_layouts_are_served_and_calibrated(
    store: RoiStore, where: str, metadata: Any, calibration: Any
) -> None:
    old_files(store.root, where, calibration=calibration, metadata=metadata)
    found = store.load("Master1", "Pattern")
    assert (found.memory.emb == rows()).all()
    assert found.memory.grid == (3, 4)
    assert (found.calibration.threshold if found.calibration else None) == (0.9 if calibration else None)
    assert store.list() == (("Master1", "Pattern"),)
    store.save_calibration("Master1", "Pattern", CALIBRATION, generation=found.generation)
    assert store.load("Master1", "Pattern").calibration == CALIBRATION
    # An older service still finds it where it wrote it.
    name = "Master1/Pattern/calib.json" if "/" in where else "Master1_Pattern_calib.json"
    assert json.loads((store.root / name).read_text())["threshold"] == CALIBRATION.threshold


@pytest.mark.parametrize("where", ["Master1/Pattern", "Master1_Pattern"])
def test_a_fit_over_an_old_layout(store: RoiStore, where: str) -> None:
    old_files(store.root, where, calibration=OLD)
    store.publish("Master1", "Pattern", memory(1))
    found = store.load("Master1", "Pattern")
    assert (found.memory.emb == rows(1)).all()
    assert found.calibration is None
    assert json.loads((store.folder("Master1", "Pattern") / RETIRED).read_text()) == OLD
    assert store.list() == (("Master1", "Pattern"),)
    if "_" in where:
        # What an older reader would still take for the ROI's memory is put aside, not lost.
        assert not (store.root / "Master1_Pattern.npz").exists()
        assert (store.root / "Master1_Pattern.npz.retired").exists()


@pytest.mark.parametrize("where", ["Master1/Pattern", "Master1_Pattern"])
def test_euclidean_calibrations_are_migrated_once(
    store: RoiStore, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    old_files(store.root, where, index=False, calibration=OLD)
    caplog.set_level(logging.INFO, "retiderm.patchcore")
    wanted = Calibration(0.9**2, 0.8**2, 1.1**2, 0.2, 2.0, 98.0)
    first = store.load("Master1", "Pattern")
    assert first.calibration == wanted
    assert len([line for line in caplog.messages if "Euclidean" in line]) == 1
    assert str(store.root) not in caplog.text
    caplog.clear()
    again = RoiStore(store.root).load("Master1", "Pattern")
    assert again.calibration == wanted
    assert again.generation == first.generation
    assert caplog.messages == []
    folder = store.folder("Master1", "Pattern")
    # In the files an older reader, which has FAISS's units where there is an index, agrees.
    assert json.loads((folder / "calib.json").read_text())["threshold"] == wanted.threshold
    assert (folder / "index.faiss").read_bytes() == build_index(rows())
    store.save_calibration("Master1", "Pattern", CALIBRATION, generation=first.generation)
    assert store.load("Master1", "Pattern").calibration == CALIBRATION


def test_an_uncalibrated_roi_without_an_index_is_calibrated_in_our_units(store: RoiStore) -> None:
    old_files(store.root, "a/b", index=False)
    found = store.load("a", "b")
    store.save_calibration("a", "b", CALIBRATION, generation=found.generation)
    assert store.load("a", "b").calibration == CALIBRATION


def test_our_own_memory_whose_index_is_gone_is_not_migrated(store: RoiStore) -> None:
    generation = store.publish("a", "b", memory())
    store.save_calibration("a", "b", CALIBRATION, generation=generation)
    (store.folder("a", "b") / "index.faiss").unlink()
    assert store.load("a", "b").calibration == CALIBRATION


def test_a_read_only_folder_is_served_in_squared_units(
    store: RoiStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    old_files(store.root, "a/b", index=False, calibration=OLD)

    def read_only(*_: Any) -> Any:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(store, "_locked", read_only)
    found = store.load("a", "b").calibration
    assert found is not None
    assert found.threshold == 0.9**2
    assert "Read-only" in caplog.text


def test_a_calibration_without_a_threshold_is_none(store: RoiStore) -> None:
    old_files(store.root, "a/b", calibration={**OLD, "threshold": None})
    assert store.load("a", "b").calibration is None


def test_a_flat_file_is_newer_than_an_old_folder_and_older_than_ours(store: RoiStore) -> None:
    old_files(store.root, "a/b", seed=1)
    old_files(store.root, "a_b", seed=2)
    assert (store.load("a", "b").memory.emb == rows(2)).all()
    store.publish("a", "b", memory(3))
    assert (store.load("a", "b").memory.emb == rows(3)).all()


def test_an_ambiguous_flat_name_serves_both_spellings_until_one_is_fitted(
    store: RoiStore, caplog: pytest.LogCaptureFixture
) -> None:
    old_files(store.root, "a_b_c", seed=1)
    assert (store.load("a", "b_c").memory.emb == rows(1)).all()
    assert (store.load("a_b", "c").memory.emb == rows(1)).all()
    assert "other roles and ROIs share" in caplog.text
    store.publish("a", "b_c", memory(2))
    assert (store.load("a", "b_c").memory.emb == rows(2)).all()
    assert (store.load("a_b", "c").memory.emb == rows(1)).all()
    assert store.list() == (("a", "b_c"),)


def test_roles_and_rois_of_this_version_never_collide(store: RoiStore) -> None:
    store.publish("a", "b_c", memory(1))
    store.publish("a_b", "c", memory(2))
    assert (store.load("a", "b_c").memory.emb == rows(1)).all()
    assert (store.load("a_b", "c").memory.emb == rows(2)).all()


@pytest.mark.parametrize("where", ["M_1/P_2", "M_1_P_2"])
def test_old_versions_wrote_underscores_for_dots(store: RoiStore, where: str) -> None:
    old_files(store.root, where, calibration=OLD)
    found = store.load("M.1", "P.2").calibration
    assert found is not None
    assert found.threshold == 0.9


@pytest.mark.parametrize("seed", [1, None])
def test_an_index_of_another_fit_is_refused(store: RoiStore, seed: int | None) -> None:
    old_files(store.root, "a/b", calibration=OLD)
    other = rows(1) if seed else rows(0, 11)
    (store.root / "a" / "b" / "index.faiss").write_bytes(build_index(other))
    with pytest.raises(IntegrityError, match="not of one fit"):
        store.load("a", "b")
    store.publish("a", "b", memory())
    assert store.load("a", "b").calibration is None


@pytest.mark.parametrize("text", ["{", "[]", '{"threshold": "high"}', '{"threshold": NaN}', " " * (2 << 20)])
def test_a_damaged_calibration_is_refused_not_passed_over(store: RoiStore, text: str) -> None:
    store.publish("a", "b", memory())
    (store.folder("a", "b") / "calib.json").write_text(text)
    with pytest.raises(IntegrityError, match=r"[Cc]alib"):
        store.load("a", "b")


def test_a_damaged_roi_can_be_fitted_again(store: RoiStore) -> None:
    old_files(store.root, "a/b", calibration=OLD)
    (store.root / "a" / "b" / "memory.npz").write_bytes(b"half")
    with pytest.raises(IntegrityError):
        store.load("a", "b")
    store.publish("a", "b", memory(1))
    assert (store.load("a", "b").memory.emb == rows(1)).all()


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


def test_a_role_that_is_named_like_a_flat_file_is_none(store: RoiStore) -> None:
    store.publish("x_y.npz", "roi", memory(1))
    with pytest.raises(RequestError, match="no memory"):
        store.load("x", "y")
    store.publish("x", "y", memory(2))
    assert (store.load("x", "y").memory.emb == rows(2)).all()
    assert (store.load("x_y.npz", "roi").memory.emb == rows(1)).all()
