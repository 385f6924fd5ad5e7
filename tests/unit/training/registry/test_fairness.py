"""The gate's rule on groups: no group of the test images may pay for the others."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training.predict import Predictions
from training.registry.client import Registry
from training.registry.compare import Answers
from training.registry.fairness import check_slices
from training.registry.gate import GateRules, judge
from training.registry.ledger import Ledger
from training.registry.promotion import promote
from training.spec.parts import GateSpec, Margin, SliceMargin

CLASSES = 5
TONES = ("light", "tan", "dark")
RULES = GateRules(
    floors={"auc": 0.5}, metric="auc", margin=0.02, resamples=300, slice_by=("ita_class",), slice_margin=0.05
)


def said(skills: dict[str, float], n: int = 900, *, seed: int = 0, kept: bool = True) -> Predictions:
    """Answers that are as good as ``skills`` says on each class of tone; the images are always the same."""
    truth = np.random.default_rng(7).integers(0, CLASSES, n)
    tone = np.array(TONES)[np.arange(n) % len(TONES)]
    logits = np.random.default_rng([seed, 5]).normal(0, 1, (n, CLASSES))
    logits[np.arange(n), truth] += np.array([skills[each] for each in tone])
    ids = np.array([f"image-{i}" for i in range(n)], dtype=np.str_)
    slices = {"ita_class": tone.astype(np.str_)} if kept else {}
    embedding = np.zeros((n, 1), np.float32)
    return Predictions(ids, logits.astype(np.float32), {"grade": truth}, embedding, slices)


def answers(predictions: Predictions) -> tuple[Answers, dict[str, str]]:
    from serving.core.decisions import calibrated

    found = Answers(tuple(predictions.ids), predictions.labels["grade"], calibrated(predictions.logits))
    return found, dict(predictions.slices_by_id()).get("ita_class", {})


EVEN = {"light": 1.5, "tan": 1.5, "dark": 1.5}
UNFAIR = {"light": 3.0, "tan": 3.0, "dark": 0.8}


def check(ours: dict[str, float], theirs: dict[str, float], **how: Any) -> Any:
    one, names = answers(said(ours, **how))
    other, _ = answers(said(theirs, **how))
    return check_slices("grade", "ita_class", one, other, names, metric="auc", margin=0.05, resamples=300)


def test_equal_models_pass_and_each_slice_is_told() -> None:
    found = check(EVEN, EVEN)
    assert found.passed
    assert [item.slice for item in found.slices] == ["dark", "light", "tan"]
    assert {item.images for item in found.slices} == {300}
    assert all(item.difference == 0 for item in found.slices)


def test_a_worst_slice_that_falls_is_refused_though_the_whole_rises() -> None:
    found = check(UNFAIR, EVEN)
    assert not found.passed
    assert (found.worst("candidate").slice, found.left_out) == ("dark", ())
    assert found.worst("candidate").candidate < found.worst("champion").champion - 0.05
    assert "worst slice by ita_class is dark" in found.sentence
    assert json.loads(json.dumps(found.to_dict()))["sentence"] == found.sentence


def test_a_slice_that_surely_fell_is_refused_though_it_is_not_the_worst() -> None:
    before = {"light": 3.0, "tan": 0.4, "dark": 3.0}
    found = check({**before, "dark": 1.0}, before)
    assert found.worst("candidate").slice == found.worst("champion").slice == "tan"
    assert [item.slice for item in found.slices if item.fallen] == ["dark"]
    assert not found.passed
    assert "fallen for certain: dark" in found.sentence


def test_a_better_worst_slice_passes() -> None:
    assert check(EVEN, UNFAIR | {"light": 1.5, "tan": 1.5}).passed


def test_losses_are_turned() -> None:
    one, names = answers(said(EVEN))
    other, _ = answers(said(UNFAIR))
    how: dict[str, Any] = {"metric": "nll", "margin": 0.05, "resamples": 200}
    better = check_slices("grade", "ita_class", one, other, names, **how)
    # The worst slice is the one with the greatest loss.
    assert better.worst("champion").slice == "dark"
    assert check_slices("grade", "ita_class", one, one, names, **how).passed
    assert not check_slices("grade", "ita_class", other, one, names, **how).passed


def test_small_slices_are_left_out_and_named() -> None:
    found = check(UNFAIR, EVEN, n=60)
    assert found.passed
    assert found.slices == ()
    assert found.left_out[0] == "dark: 20 images, fewer than 30"
    assert "no slice by ita_class could be compared" in found.sentence


def test_images_without_a_slice_are_in_none() -> None:
    one, names = answers(said(EVEN))
    hidden = {name: "" if tone == "dark" else tone for name, tone in names.items()}
    found = check_slices("grade", "ita_class", one, one, hidden, metric="auc", margin=0.05, resamples=50)
    assert [item.slice for item in found.slices] == ["light", "tan"]


def test_the_gate_refuses_and_records_why(registry: Registry, make: Any) -> None:
    champion = make(test="T", said=said(EVEN))
    assert judge(registry, champion, RULES).accepted
    promote(registry, champion)
    # Without the rule the version is welcome: over all images it is better.
    assert judge(
        registry, make(test="T", said=said(UNFAIR)), dataclasses.replace(RULES, slice_by=())
    ).accepted
    found = judge(registry, make(test="T", said=said(UNFAIR)), RULES)
    assert found.decision == "refuse"
    assert found.comparisons[0].passed
    assert found.reasons[0].startswith("Worse for a group. grade: worst slice by ita_class is dark")
    document = found.to_dict()
    assert document["slices"][0]["slices"][0]["slice"] == "dark"
    assert GateRules.from_dict(Ledger().entries()[-1].data["rules"]) == RULES
    fair = judge(registry, make(test="T", said=said({**EVEN, "dark": 1.6})), RULES)
    assert fair.accepted
    assert any("worst slice by ita_class" in reason for reason in fair.reasons)


def test_slices_that_the_champion_keeps_are_enough(registry: Registry, make: Any) -> None:
    """An import from before slices were kept: the images are the same, so their slices are."""
    champion = make(test="T", said=said(EVEN))
    judge(registry, champion, RULES)
    promote(registry, champion)
    found = judge(registry, make(test="T", said=said(UNFAIR, kept=False)), RULES)
    assert found.decision == "refuse"


def test_without_any_slices_the_rule_says_that_it_could_not_judge(registry: Registry, make: Any) -> None:
    champion = make(test="T", said=said(EVEN, kept=False))
    judge(registry, champion, RULES)
    promote(registry, champion)
    found = judge(registry, make(test="T", said=said(EVEN, kept=False)), RULES)
    assert found.accepted
    assert any("no slice by ita_class could be compared" in reason for reason in found.reasons)


def test_the_margin_is_the_tasks_where_none_is_given() -> None:
    rules = GateRules.of(GateSpec(margin=Margin(loss=0.03), slices=SliceMargin(by=("ita_class",))))
    assert (rules.slice_by, rules.slice_loss) == (("ita_class",), 0.03)
    given = GateRules.of(GateSpec(slices=SliceMargin(by=("sex",), loss=0.1, smallest=50)))
    assert (given.slice_loss, given.slice_smallest) == (0.1, 50)
    assert GateRules.from_dict({"metric": "auc"}).slice_by == ()


def test_predictions_keep_their_slices(tmp_path: Path) -> None:
    before = said(EVEN, n=12)
    before.save(tmp_path / "said.npz")
    after = Predictions.load(tmp_path / "said.npz")
    assert dict(after.slices_by_id()) == dict(before.slices_by_id())
    assert list(after.labels) == ["grade"]


@pytest.mark.parametrize("task", ["acne", "skin_condition", "skin_profile", "skin_lesion"])
def test_every_skin_task_asks_for_it(task: str) -> None:
    from training.task import load_task

    assert GateRules.of(load_task(task).gate).slice_by == ("ita_class",)
