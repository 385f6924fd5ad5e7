"""Flat names of older services: which role and ROI they mean, and what never collides."""

from __future__ import annotations

import pytest

from data.errors import RequestError
from serving.core.patchcore.store import RoiStore
from tests.unit.serving.core.patchcore.rois import OLD, memory, old_files, rows


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


def test_a_role_that_is_named_like_a_flat_file_is_none(store: RoiStore) -> None:
    store.publish("x_y.npz", "roi", memory(1))
    with pytest.raises(RequestError, match="no memory"):
        store.load("x", "y")
    store.publish("x", "y", memory(2))
    assert (store.load("x", "y").memory.emb == rows(2)).all()
    assert (store.load("x_y.npz", "roi").memory.emb == rows(1)).all()
