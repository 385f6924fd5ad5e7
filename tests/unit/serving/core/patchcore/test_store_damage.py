"""ROIs whose files are damaged, or not of one fit: refused, and fitted again."""

from __future__ import annotations

import pytest

from data.errors import IntegrityError
from serving.core.patchcore.search import build_index
from serving.core.patchcore.store import RoiStore
from tests.unit.serving.core.patchcore.rois import OLD, memory, old_files, rows


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
