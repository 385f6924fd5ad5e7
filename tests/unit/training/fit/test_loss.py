from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from training.fit.loss import HeadLoss, TaskLoss
from training.spec.parts import HeadSpec
from training.spec.recipe import Balance, Recipe

GRADE = HeadSpec("grade", ("a", "b", "c"), ordinal=True)
PLAIN = Recipe(label_smoothing=0.0)
LABELS = np.array([0] * 6 + [1] * 3 + [2])


def losses(recipe: Recipe, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return HeadLoss(GRADE, LABELS, recipe)(logits, labels)[0]  # type: ignore[no-any-return]


def test_cross_entropy_is_torchs_with_and_without_smoothing() -> None:
    logits, labels = torch.randn(8, 3), torch.randint(0, 3, (8,))
    for smoothing in (0.0, 0.2):
        recipe = replace(PLAIN, label_smoothing=smoothing)
        expected = functional.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="none")
        torch.testing.assert_close(losses(recipe, logits, labels), expected)


def test_an_absent_label_neither_counts_nor_teaches() -> None:
    logits = torch.randn(4, 3, requires_grad=True)
    labels = torch.tensor([0, -1, 2, -1])
    total, weights = HeadLoss(GRADE, LABELS, PLAIN)(logits, labels)
    assert weights.tolist() == [1, 0, 1, 0]
    total.sum().backward()
    assert logits.grad is not None
    assert logits.grad[[1, 3]].abs().sum() == 0


def test_focal_fades_what_is_easy() -> None:
    logits = torch.tensor([[6.0, 0, 0], [0.0, 0, 0]])
    labels = torch.tensor([0, 0])
    plain, focal = losses(PLAIN, logits, labels), losses(replace(PLAIN, loss="focal"), logits, labels)
    assert focal[0] / plain[0] < 1e-3
    assert focal[1] / plain[1] == pytest.approx((2 / 3) ** 2)


def test_the_balanced_softmax_takes_the_classes_frequencies_for_granted() -> None:
    recipe = replace(PLAIN, loss="logit_adjusted")
    found = losses(recipe, torch.zeros(3, 3), torch.tensor([0, 1, 2]))
    expected = [-math.log(share) for share in (0.6, 0.3, 0.1)]
    assert found.tolist() == pytest.approx(expected)


def test_the_ordinal_loss_forgives_neighbours_more_than_strangers() -> None:
    logits = torch.tensor([[0.0, 5.0, 0.0], [0.0, 0.0, 5.0]])
    near, far = losses(replace(PLAIN, loss="ordinal"), logits, torch.tensor([0, 0]))
    assert near < far
    plain_near, plain_far = losses(PLAIN, logits, torch.tensor([0, 0]))
    assert plain_near == plain_far
    nominal = HeadLoss(replace(GRADE, ordinal=False), LABELS, replace(PLAIN, loss="ordinal", emd_weight=1))
    torch.testing.assert_close(nominal.targets, torch.eye(3))
    assert nominal.emd == 0


def test_the_distance_between_grades_is_added_as_asked() -> None:
    logits = torch.tensor([[0.0, 0.0, 50.0]])
    without, with_it = (
        losses(PLAIN, logits, torch.tensor([0])),
        losses(replace(PLAIN, emd_weight=1.0), logits, torch.tensor([0])),
    )
    assert float(with_it - without) == pytest.approx(2.0)  # the cumulative shares differ by 1 at two edges


def test_class_weights_follow_the_power() -> None:
    recipe = replace(PLAIN, balance=Balance("weights", 1.0))
    _, weights = HeadLoss(GRADE, LABELS, recipe)(torch.zeros(3, 3), torch.tensor([0, 1, 2]))
    assert (weights / weights[0]).tolist() == pytest.approx([1, 2, 6])


def test_heads_are_averaged_over_their_own_labels_and_summed_by_weight() -> None:
    side = HeadSpec("side", ("l", "r"), weight=0.5)
    loss = TaskLoss((GRADE, side), {"grade": LABELS, "side": np.zeros(10, int)}, PLAIN)
    logits = {"grade": torch.zeros(4, 3), "side": torch.zeros(4, 2)}
    labels = {"grade": torch.tensor([0, 1, 2, -1]), "side": torch.tensor([0, -1, -1, -1])}
    sums, weights = loss.sums(logits, labels)
    assert weights.tolist() == [3, 1]
    assert float(loss.combine(sums, weights)) == pytest.approx(math.log(3) + 0.5 * math.log(2))
    nothing = {**labels, "side": torch.full((4,), -1)}
    sums, weights = loss.sums(logits, nothing)
    assert float(loss.combine(sums, weights)) == pytest.approx(math.log(3))


def test_a_mixed_image_is_charged_for_both_its_labels() -> None:
    loss = TaskLoss((GRADE,), {"grade": LABELS}, PLAIN)
    logits = {"grade": torch.tensor([[4.0, 0.0, 0.0], [0.0, 4.0, 0.0]])}
    one, two = torch.tensor([0, 1]), torch.tensor([1, -1])
    share = torch.tensor([0.25, 0.25])
    sums, weights = loss.sums(logits, {"grade": one}, ({"grade": two}, share))
    each = functional.cross_entropy(logits["grade"], one, reduction="none")
    second = functional.cross_entropy(logits["grade"][:1], two[:1])
    assert float(sums) == pytest.approx(float(0.25 * each[0] + 0.75 * second + 0.25 * each[1]))
    assert float(weights) == pytest.approx(1.25), "an absent second label leaves only the first one's share"
