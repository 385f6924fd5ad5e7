"""ROIs of older services: their layouts are served, and their units migrated."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from serving.core.patchcore.calibrate import Calibration
from serving.core.patchcore.search import build_index
from serving.core.patchcore.store import RETIRED, RoiStore
from tests.unit.serving.core.patchcore.rois import CALIBRATION, OLD, memory, old_files, rows

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
