from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from serving.core.bundle import HeadCard
from training.export.judge import judge_logits, verdict
from training.spec.export import ExportSpec

HEADS = (HeadCard("one", ("a", "b")), HeadCard("two", ("x", "y", "z")))
SPEC = ExportSpec(("fp32", "int8"))


def logits(n: int = 200, seed: int = 0) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    labels = {"one": rng.integers(0, 2, n), "two": rng.integers(0, 3, n)}
    values = rng.normal(0, 1, (n, 5)).astype(np.float32)
    values[np.arange(n), labels["one"]] += 2
    values[np.arange(n), 2 + labels["two"]] += 2
    return values, labels


def test_the_same_logits_lose_nothing() -> None:
    values, labels = logits()
    found = judge_logits(values, values, labels, HEADS, "auc")
    assert (found["loss"], found["max_difference"], found["labels_changed"]) == (0, 0, 0)
    assert verdict(found, SPEC) is None


def test_the_worst_head_decides() -> None:
    values, labels = logits()
    worse = values.copy()
    worse[:, 2:] += np.random.default_rng(1).normal(0, 2, worse[:, 2:].shape)
    found = judge_logits(values, worse, labels, HEADS, "auc")
    assert found["heads"]["one"]["loss"] == 0
    assert found["loss"] == found["heads"]["two"]["loss"] > 0.05
    assert "loses 0." in str(verdict(found, SPEC))
    assert verdict(found, dataclasses.replace(SPEC, loss=0.5)) is None


@pytest.mark.parametrize("metric", ["auc", "accuracy", "balanced_accuracy", "kappa"])
def test_every_metric_of_a_task_can_judge(metric: str) -> None:
    values, labels = logits()
    found = judge_logits(values, -values, labels, HEADS, metric)
    assert found["loss"] > 0.3


def test_unlabelled_images_do_not_count_for_their_head() -> None:
    values, labels = logits()
    worse = values.copy()
    half = np.arange(len(values)) < 100
    worse[half, :2] *= -1
    labels["one"][half] = -1
    assert judge_logits(values, worse, labels, HEADS, "auc")["loss"] == 0


def test_without_labels_nothing_is_approved() -> None:
    values, labels = logits()
    nothing = {name: np.full_like(array, -1) for name, array in labels.items()}
    assert "can't be told" in str(verdict(judge_logits(values, values, nothing, HEADS, "auc"), SPEC))


def test_a_head_that_cannot_be_judged_is_not_taken_on_trust() -> None:
    values, labels = logits()
    labels["two"][:] = -1
    found = judge_logits(values, values, labels, HEADS, "auc")
    assert found["loss"] == 0
    assert "The auc of two can't be told" in str(verdict(found, SPEC))


def test_what_is_no_number_is_never_approved() -> None:
    values, labels = logits()
    broken = values.copy()
    broken[3, 1] = np.nan
    assert "no finite number" in str(verdict(judge_logits(values, broken, labels, HEADS, "auc"), SPEC))
