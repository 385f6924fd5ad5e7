"""The gate on several heads, images labelled for some of them only: each head by its own images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from training.predict import Predictions
from training.registry.client import Registry
from training.registry.gate import GateRules, check_floors, judge
from training.registry.promotion import promote

HEADS = {"skin": ("dry", "oily", "normal"), "hair": ("straight", "coily")}
RULES = GateRules(floors={"skin.auc": 0.7, "hair.auc": 0.7}, metric="auc", margin=0.03, resamples=300)


def said(skin: float, hair: float, *, n: int = 900) -> Predictions:
    """Answers whose truth is so much above noise, by head; a third has no hair in the picture."""
    rng = np.random.default_rng(3)
    labels = {name: rng.integers(0, len(classes), n) for name, classes in HEADS.items()}
    parts = []
    for (name, classes), skill in zip(HEADS.items(), (skin, hair), strict=True):
        logits = np.random.default_rng([len(classes), 4]).normal(0, 1, (n, len(classes)))
        logits[np.arange(n), labels[name]] += skill
        parts.append(logits)
    labels["hair"][::3] = -1
    ids = np.array([f"image-{i}" for i in range(n)], dtype=np.str_)
    logits = np.concatenate(parts, axis=1).astype(np.float32)
    return Predictions(ids, logits, labels, np.zeros((n, 1), np.float32))


@pytest.fixture
def champion(registry: Registry, make: Any) -> Any:
    version = make(task="skin_profile", heads=HEADS, test="T", said=said(1.0, 1.0))
    assert judge(registry, version, RULES).accepted
    promote(registry, version)
    return version


def test_every_head_is_compared_on_the_images_that_are_labelled_for_it(
    registry: Registry, make: Any, champion: Any
) -> None:
    found = judge(registry, make(task="skin_profile", heads=HEADS, test="T", said=said(1.5, 1.5)), RULES)
    assert (found.decision, found.champion) == ("accept", champion.version)
    assert {item.head: item.images for item in found.comparisons} == {"skin": 900, "hair": 600}


def test_one_worse_head_is_enough_to_refuse(registry: Registry, make: Any, champion: Any) -> None:
    worse = make(task="skin_profile", heads=HEADS, test="T", said=said(3.0, 0.4))
    found = judge(registry, worse, RULES)
    assert found.decision == "refuse"
    assert [item.passed for item in found.comparisons] == [True, False]
    assert found.reasons[0].startswith("hair: auc")
    # Where the task's metric names a head, that one decides.
    by_skin = GateRules(metric="skin.auc", margin=0.03, resamples=300)
    assert judge(registry, worse, by_skin).accepted


def test_floors_are_asked_of_each_head(registry: Registry, make: Any) -> None:
    version = make(task="skin_profile", heads=HEADS)
    card = registry.bundle(version).card
    assert [item.head for item in check_floors(card, {"auc": 0.5})] == ["skin", "hair"]
    (only,) = check_floors(card, {"hair.auc": 0.5})
    assert (only.head, only.passed) == ("hair", True)
