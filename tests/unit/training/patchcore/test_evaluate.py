from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, roc_auc_score

from data.dataset import Dataset, Head
from data.errors import DataError
from data.ingest import ingest
from training.patchcore.evaluate import (
    MaskReader,
    PixelTally,
    area_up_to,
    decisions,
    image_figures,
    tally_pixels,
)
from training.patchcore.pictures import PRO, ROC, SCORES, WORST, Shown, worst_images, write_pictures
from training.task import Task, load_task

STATUS = Head("status", ("ok", "ng"))


def brute_pro(maps: list[Any], masks: list[Any], limit: float = 0.3) -> float:
    """PRO as its definition reads: for every threshold the mean overlap over all regions."""
    regions = []
    for map_, mask in zip(maps, masks, strict=True):
        count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
        regions += [map_[labels == label] for label in range(1, count)]
    good = np.concatenate([map_[~mask] for map_, mask in zip(maps, masks, strict=True)])
    points = [(0.0, 0.0)]
    for threshold in np.unique(np.concatenate([map_.ravel() for map_ in maps]))[::-1]:
        overlap = np.mean([(region >= threshold).mean() for region in regions])
        points.append(((good >= threshold).mean(), float(overlap)))
    x, y = np.array(points).T
    return area_up_to(x, y, limit)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10_000), st.booleans())
def test_pixel_figures_are_those_of_the_definitions(seed: int, coarse: bool) -> None:
    rng = np.random.default_rng(seed)
    maps, masks = [], []
    for _ in range(3):
        mask = rng.random((12, 16)) < 0.08
        map_ = rng.random((12, 16)) * 4 + mask * rng.random() * 2
        map_ = np.round(np.clip(map_, 0, 4) * (4 if coarse else 512)) / (4 if coarse else 512)  # ties
        maps.append(map_.astype(np.float32))
        masks.append(mask)
    masks[0][3, 3] = True
    tally = PixelTally()
    for map_, mask in zip(maps, masks, strict=True):
        tally.add(map_, mask if mask.any() else None)
    found = tally.figures()
    assert found.pixel_auroc is not None
    assert found.pro is not None
    flat, truth = np.concatenate([m.ravel() for m in maps]), np.concatenate([m.ravel() for m in masks])
    assert found.pixel_auroc == pytest.approx(roc_auc_score(truth, flat), abs=1e-9)
    assert found.pro == pytest.approx(brute_pro(maps, masks), abs=1e-9)
    assert found.masks == sum(bool(mask.any()) for mask in masks)


def test_bins_cost_next_to_nothing_on_unrounded_values() -> None:
    rng = np.random.default_rng(0)
    mask = np.zeros((200, 200), bool)
    mask[50:80, 60:90] = True
    map_ = (rng.gamma(2.0, 0.05, mask.shape) + 0.08 * mask).astype(np.float32)
    tally = PixelTally()
    tally.add(map_, mask)
    found = tally.figures()
    assert found.pixel_auroc == pytest.approx(roc_auc_score(mask.ravel(), map_.ravel()), abs=1e-5)
    assert found.regions == 1


def test_a_small_defect_counts_as_much_as_a_large_one_in_pro_alone() -> None:
    map_, mask = np.zeros((64, 64), np.float32), np.zeros((64, 64), bool)
    mask[:20, :20] = map_[:20, :20] = 1  # found
    mask[50:52, 50:52] = True  # missed
    tally = PixelTally()
    tally.add(map_, mask)
    found = tally.figures()
    assert found.regions == 2
    assert found.pixel_auroc is not None
    assert found.pixel_auroc > 0.99
    # Half of the regions up to the only threshold, then a straight line to everything at 1.
    assert found.pro == pytest.approx(0.5 + 0.5 * 0.3 / 2, abs=1e-6)


def test_pixels_that_cannot_be_judged_are_told_or_left_out() -> None:
    tally = PixelTally()
    tally.add(np.ones((4, 4), np.float32), None)
    found = tally.figures()
    assert (found.pixel_auroc, found.pro, found.images, found.masks) == (None, None, 1, 0)
    tally = PixelTally()
    tally.add(np.ones((4, 4), np.float32), np.ones((4, 4), bool))
    assert (tally.figures().pixel_auroc, tally.figures().pro) == (None, None)
    with pytest.raises(DataError, match="mask of"):
        tally.add(np.ones((4, 4), np.float32), np.ones((4, 5), bool))
    with pytest.raises(DataError, match="no finite"):
        tally.add(np.full((4, 4), np.nan, np.float32), None)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=2, max_size=40))
def test_image_figures_are_scikit_learns(rows: list[tuple[int, bool]]) -> None:
    scores = np.array([score / 4 for score, _ in rows])
    ng = np.array([flag for _, flag in rows])
    found = image_figures(scores, ng)
    assert (found.images, found.ok, found.ng) == (len(rows), int((~ng).sum()), int(ng.sum()))
    if ng.any() and not ng.all():
        assert found.auc == pytest.approx(roc_auc_score(ng, scores))
    else:
        assert found.auc is None
    if not ng.any():
        assert (found.best_f1, found.best_f1_threshold) == (None, None)
        return
    every = {t: f1_score(ng, scores >= t) for t in np.unique(scores)}
    assert found.best_f1 == pytest.approx(max(every.values()))
    assert found.best_f1_threshold is not None
    assert decisions(scores, ng, found.best_f1_threshold).f1 == pytest.approx(found.best_f1)


def test_decisions_count_from_the_threshold_on() -> None:
    scores, ng = np.array([0.1, 0.5, 0.5, 0.9]), np.array([False, False, True, True])
    found = decisions(scores, ng, 0.5)
    assert (found.true_ng, found.false_ng, found.true_ok, found.false_ok) == (2, 1, 1, 0)
    assert (found.accuracy, found.balanced_accuracy, found.recall) == (0.75, 0.75, 1.0)
    assert found.precision == pytest.approx(2 / 3)
    assert found.f1 == pytest.approx(0.8)
    none = decisions(scores[:2], ng[:2], 0.9)
    assert (none.recall, none.precision, none.f1, none.balanced_accuracy) == (None, None, None, None)
    assert none.accuracy == 1.0
    with pytest.raises(DataError, match="no finite"):
        decisions(np.array([0.1, np.inf]), ng[:2], 0.5)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Four OK and two NG test images of 64 x 48 px, the second NG one without a mask."""
    root = tmp_path_factory.mktemp("parts")
    rng = np.random.default_rng(0)
    names = ["train/good/a", "train/good/b", "train/good/c", "test/good/a", "test/good/b", "test/bent/a"]
    for name in [*names, "test/bent/b"]:
        path = root / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), rng.integers(60, 200, (48, 64, 3), dtype=np.uint8))
    mask = np.zeros((48, 64), np.uint8)
    mask[12:24, 16:32] = 255
    (root / "ground_truth/bent").mkdir(parents=True)
    cv2.imwrite(str(root / "ground_truth/bent/a_mask.png"), mask)
    return ingest(
        f"mvtec:{root}?masks=optional&profile=thumbnail",
        (STATUS,),
        root / "dataset",
        task="anomaly",
        store=root / "store",
    )


def small(**changes: Any) -> Task:
    return load_task("anomaly", overrides={"input_size": [24, 32], **changes})


def test_masks_are_read_as_the_model_sees_the_image(parts: Dataset) -> None:
    masks = MaskReader(parts, small())
    assert len(masks) == 1
    assert masks("test/good/a.png") is None
    found = masks("test/bent/a.png")
    assert found is not None
    wanted = np.zeros((24, 32), bool)
    wanted[6:12, 8:16] = True
    assert np.array_equal(found, wanted)
    boxed = MaskReader(parts, small(input_size=[64, 64], preprocessing={"fit": "letterbox"}))(
        "test/bent/a.png"
    )
    assert boxed is not None
    assert np.argwhere(boxed).min(axis=0).tolist() == [8 + 12, 16]


def test_ng_images_without_a_mask_have_no_part_in_pixel_figures_and_pictures_are_made(
    parts: Dataset, tmp_path: Path
) -> None:
    task = small()
    frame = parts.split("test")
    ids = [str(value) for value in frame["id"]]
    ng = np.array([value == "ng" for value in frame["label.status"]])
    masks = MaskReader(parts, task)
    asked = []

    def map_of(i: int) -> Any:
        asked.append(ids[i])
        mask = masks(ids[i])
        heat = np.random.default_rng(i).random((24, 32)).astype(np.float32) * 0.3
        return heat if mask is None else heat + mask.astype(np.float32)

    tally = tally_pixels(parts, task, ids, ng, map_of)
    assert sorted(asked) == ["test/bent/a.png", "test/good/a.png", "test/good/b.png"]
    found = tally.figures()
    assert (found.images, found.masks, found.pixel_auroc) == (3, 1, 1.0)
    assert found.to_dict()["regions"] == 1

    shown = Shown(ids, np.array([0.2 + 0.5 * flag for flag in ng]), ng, 0.5, map_of)
    made = write_pictures(shown, tally, parts, task, tmp_path, worst=2)
    assert sorted(path.name for path in made) == sorted([ROC, SCORES, PRO, WORST])
    for path in made:
        assert cv2.imread(str(path)) is not None

    alone = Shown(ids[:1], np.array([0.4]), np.array([False]), 0.5, map_of)
    names = [path.name for path in write_pictures(alone, PixelTally(), parts, task, tmp_path / "b")]
    assert names == [SCORES, WORST]


def test_the_worst_images_are_those_on_the_wrong_side(parts: Dataset) -> None:
    scores, ng = np.array([0.9, 0.1, 0.6, 0.2]), np.array([True, True, False, False])
    shown = Shown(["a", "b", "c", "d"], scores, ng, 0.5, lambda i: np.zeros((1, 1), np.float32))
    assert worst_images(shown, 3).tolist() == [1, 2, 3]
