from __future__ import annotations

import numpy as np
import pytest

from training.fit.order import batches, class_weights, epoch_order, image_weights, seed_of
from training.spec.parts import HeadSpec
from training.spec.recipe import Balance

LABELS = np.array([0] * 80 + [1] * 18 + [2] * 2)
HEAD = HeadSpec("kind", ("a", "b", "c"))


def test_without_balance_an_epoch_is_every_image_once_in_an_order_of_its_own() -> None:
    first, second = epoch_order(100, None, 1, 0), epoch_order(100, None, 1, 1)
    assert sorted(first) == sorted(second) == list(range(100))
    assert (first != second).any()
    np.testing.assert_array_equal(first, epoch_order(100, None, 1, 0))


def test_full_balance_shows_every_class_equally_often_in_every_epoch() -> None:
    weights = image_weights({"kind": LABELS}, [HEAD], Balance("sampler", 1.0))
    for epoch in range(5):
        counts = np.bincount(LABELS[epoch_order(100, weights, 0, epoch)])
        assert counts == pytest.approx([33.3, 33.3, 33.3], abs=1)


def test_the_square_root_lies_between() -> None:
    weights = image_weights({"kind": LABELS}, [HEAD], Balance("sampler", 0.5))
    assert weights is not None
    assert weights.mean() == pytest.approx(1)
    counts = np.bincount(LABELS[epoch_order(100, weights, 0, 0)])
    expected = np.sqrt([80, 18, 2]) / np.sqrt([80, 18, 2]).sum() * 100
    assert counts == pytest.approx(expected, abs=1)


def test_no_images_are_drawn_more_often_when_nothing_is_asked() -> None:
    assert image_weights({"kind": LABELS}, [HEAD], Balance("none")) is None
    assert image_weights({"kind": LABELS}, [HEAD], Balance("weights")) is None


def test_an_image_counts_by_the_labels_it_has() -> None:
    other = HeadSpec("side", ("l", "r"))
    labels = {"kind": np.array([0, 0, 0, 1]), "side": np.array([-1, 0, 1, -1])}
    weights = image_weights(labels, [HEAD, other], Balance("sampler", 1.0))
    assert weights is not None
    assert weights[3] > weights[1] > weights[0]
    alone = image_weights({"kind": np.array([0, -1])}, [HEAD], Balance("sampler", 1.0))
    assert alone is not None
    assert alone[1] == 0, "an image without any label has nothing to teach"


def test_absent_classes_weigh_nothing() -> None:
    np.testing.assert_allclose(class_weights(np.array([0, 0, 1, -1]), 3, 1.0), [0.75, 1.5, 0])


def test_batches_are_whole_unless_there_is_only_one() -> None:
    assert [len(batch) for batch in batches(np.arange(25), 8)] == [8, 8, 8]
    assert [len(batch) for batch in batches(np.arange(5), 8)] == [5]


def test_draws_have_unrelated_seeds() -> None:
    seeds = {
        seed_of(seed, stream, epoch, step, rank)
        for seed in range(3)
        for stream in range(4)
        for epoch in range(5)
        for step in range(20)
        for rank in range(2)
    }
    assert len(seeds) == 3 * 4 * 5 * 20 * 2
    assert all(0 <= seed < 2**63 for seed in seeds)
