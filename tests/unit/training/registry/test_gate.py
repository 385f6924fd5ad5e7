"""training/registry/gate.py and compare.py: what is accepted, what is refused, and on what grounds."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, cohen_kappa_score, log_loss, roc_auc_score

from data.errors import RegistryError
from serving.core.bundle import HeadCard, WeightsCard
from training.predict import Predictions
from training.registry.client import Registry
from training.registry.compare import Answers, compare, measured
from training.registry.gate import GateRules, judge
from training.registry.ledger import Ledger
from training.registry.promotion import promote
from training.spec.parts import GateSpec, Margin

CLASSES = 5
RULES = GateRules(floors={"auc": 0.7}, metric="auc", margin=0.02, resamples=400)


def said(skill: float, *, n: int = 400, seed: int = 0, labels: int = 7) -> Predictions:
    """Answers whose logits of the truth are ``skill`` above noise; equal ``labels`` give equal truths."""
    truth = np.random.default_rng(labels).integers(0, CLASSES, n)
    logits = np.random.default_rng([seed, 99]).normal(0, 1, (n, CLASSES))
    logits[np.arange(n), truth] += skill
    ids = np.array([f"image-{i}" for i in range(n)], dtype=np.str_)
    return Predictions(ids, logits.astype(np.float32), {"grade": truth}, np.zeros((n, 1), np.float32))


def shuffled(predictions: Predictions) -> Predictions:
    order = np.random.default_rng(3).permutation(len(predictions))
    labels = {name: values[order] for name, values in predictions.labels.items()}
    return Predictions(
        predictions.ids[order], predictions.logits[order], labels, predictions.embedding[order]
    )


def answers(predictions: Predictions) -> Answers:
    from serving.core.decisions import calibrated

    return Answers(
        tuple(predictions.ids.tolist()), predictions.labels["grade"], calibrated(predictions.logits)
    )


def test_the_metrics_are_scikit_learns() -> None:
    one = answers(said(1.0))
    label = one.probabilities.argmax(axis=1)
    assert measured("auc", one) == pytest.approx(
        roc_auc_score(one.truth, one.probabilities, multi_class="ovr", average="macro")
    )
    assert measured("accuracy", one) == pytest.approx((label == one.truth).mean())
    assert measured("balanced_accuracy", one) == pytest.approx(balanced_accuracy_score(one.truth, label))
    assert measured("kappa", one) == pytest.approx(cohen_kappa_score(one.truth, label, weights="quadratic"))
    assert measured("nll", one) == pytest.approx(log_loss(one.truth, one.probabilities))
    with pytest.raises(RegistryError, match="no metric of the gate"):
        measured("beauty", one)


@pytest.mark.parametrize("metric", ["auc", "accuracy", "balanced_accuracy", "kappa", "nll"])
def test_better_and_equal_pass_and_worse_fails(metric: str) -> None:
    good, bad = answers(said(1.5)), answers(said(0.5))
    equal = compare("grade", good, good, metric=metric, margin=0.0, resamples=200)
    assert (equal.difference, equal.low, equal.passed) == (0.0, 0.0, True)
    better = compare("grade", good, bad, metric=metric, margin=0.0, resamples=200)
    assert better.passed
    assert better.low > 0
    worse = compare("grade", bad, good, metric=metric, margin=0.02, resamples=200)
    assert not worse.passed
    assert worse.difference < 0


def test_a_small_set_can_not_show_that_a_noisy_model_is_no_worse() -> None:
    """Equal in truth, but on 30 images nobody can know: not shown is not passed."""
    one, other = answers(said(1.0, n=30, seed=1)), answers(said(1.0, n=30, seed=2))
    few = compare("grade", one, other, metric="accuracy", margin=0.02)
    one, other = answers(said(1.0, n=20_000, seed=1)), answers(said(1.0, n=20_000, seed=2))
    many = compare("grade", one, other, metric="accuracy", margin=0.02, resamples=200)
    assert few.low < many.low
    assert (few.passed, many.passed) == (False, True)


def test_pairing_narrows_the_interval() -> None:
    """Nearly the same answers: the paired difference is known far better than either metric."""
    base = said(1.0)
    nearly = Predictions(base.ids, base.logits + 0.01, base.labels, base.embedding)
    found = compare("grade", answers(nearly), answers(base), metric="auc", margin=0.001)
    assert found.passed
    assert abs(found.low) < 1e-6


def test_other_images_are_never_compared() -> None:
    one = answers(said(1.0))
    for other in (answers(said(1.0, n=399)), answers(said(1.0, labels=8))):
        with pytest.raises(RegistryError, match="not asked about the same"):
            compare("grade", one, other, metric="auc", margin=0.01)


def test_a_first_version_must_pass_the_floors(registry: Registry, make: Any) -> None:
    good = judge(registry, make(), GateRules(floors={"auc": 0.8, "grade.accuracy": 0.7}))
    assert (good.decision, good.line, good.champion) == ("accept", "first version", None)
    assert len(good.floors) == 2
    bad = judge(registry, make(), GateRules(floors={"auc": 0.81, "accuracy": 0.7}))
    assert (bad.decision, bad.reasons) == (
        "refuse",
        ("Below the floor. grade: auc 0.8000, must be at least 0.81.",),
    )
    assert not bad.pending_approval


@pytest.mark.parametrize(
    ("floors", "told"),
    [
        ({"kappa": 0.5}, "every head: kappa not measured"),  # the head is not graded
        ({"grade.kappa": 0.5}, "grade: kappa not measured"),
        ({"other.auc": 0.5}, "other: auc not measured"),
        ({"nll": 0.5}, "grade: nll not measured, must be at most 0.5"),
    ],
)
def test_a_floor_that_can_not_be_seen_is_not_passed(
    registry: Registry, make: Any, floors: dict[str, float], told: str
) -> None:
    decision = judge(registry, make(), GateRules(floors=floors))
    assert decision.decision == "refuse"
    assert told in decision.reasons[0]


def test_losses_have_ceilings(registry: Registry, make: Any) -> None:
    metrics = {"heads": {"grade": {"nll": {"value": 0.9, "low": 0.8, "high": 1.0}}}}
    assert judge(registry, make(metrics=metrics), GateRules(floors={"nll": 0.95})).accepted
    assert not judge(registry, make(metrics=metrics), GateRules(floors={"nll": 0.85})).accepted


def test_the_same_test_set_decides_by_comparison_not_by_floors(registry: Registry, make: Any) -> None:
    champion = make(test="T", said=said(1.0))
    assert judge(registry, champion, RULES).accepted
    promote(registry, champion)
    better = make(test="T", said=shuffled(said(1.6)))
    found = judge(registry, better, GateRules(floors={"auc": 0.999}, margin=0.02, resamples=400))
    assert (found.decision, found.line, found.champion, found.floors) == ("accept", "same test set", "1", ())
    assert found.comparisons[0].difference > 0.05
    worse = judge(registry, make(test="T", said=said(0.2)), RULES)
    assert (worse.decision, worse.pending_approval) == ("refuse", False)
    assert "may be worse by more than 0.02" in worse.reasons[0]


def test_a_new_test_set_begins_a_new_line(registry: Registry, make: Any) -> None:
    champion = make(test="T", said=said(3.0))
    judge(registry, champion, RULES)
    promote(registry, champion)
    found = judge(registry, make(test="U", said=said(0.1)), RULES)
    assert (found.decision, found.line, found.comparisons) == ("accept", "new test set", ())
    assert "a new line begins" in found.reasons[0]


def test_an_edited_test_digest_begins_no_line(registry: Registry, make: Any) -> None:
    champion = make(test="T", said=said(1.0))
    judge(registry, champion, RULES)
    promote(registry, champion)
    worse = registry.set_tag(make(test="T", said=said(0.2)), "test_digest", "sha256:" + "0" * 64)
    found = judge(registry, worse, RULES)
    assert (found.decision, found.line) == ("refuse", "same test set")
    assert found.test_digest == registry.bundle(worse).card.dataset.test_digest


def test_a_damaged_champion_is_compared_with_nothing(registry: Registry, make: Any) -> None:
    champion = make(test="T", said=said(1.0))
    judge(registry, champion, RULES)
    promote(registry, champion)
    (registry.bundle_path(champion) / "model.onnx").write_bytes(b"damaged")
    found = judge(registry, make(test="U", said=said(1.0)), RULES)
    assert found.decision == "refuse"
    assert "can't be compared with the champion, version 1" in found.reasons[0]


def test_the_champion_itself_is_accepted(registry: Registry, make: Any) -> None:
    champion = make(accepted=True)
    promote(registry, champion)
    assert judge(registry, champion, RULES).line == "champion itself"
    assert registry.by_alias("dr_grading", "challenger") is None


def test_without_kept_predictions_and_data_it_is_refused_with_the_reason(
    registry: Registry, make: Any
) -> None:
    champion = make(test="T")
    judge(registry, champion, RULES)
    promote(registry, champion)
    found = judge(registry, make(test="T", said=said(1.0)), RULES)
    assert found.decision == "refuse"
    assert "version 1: its test predictions were not kept" in found.reasons[0]
    assert "Give the gate the data set" in found.reasons[0]


def test_altered_predictions_are_not_believed(registry: Registry, make: Any) -> None:
    champion = make(test="T", said=said(1.0))
    judge(registry, champion, RULES)
    promote(registry, champion)
    candidate = make(test="T", said=said(0.2))
    stored = registry.bundle_path(candidate).parent / "predictions" / "test.npz"
    said(5.0).save(stored)
    found = judge(registry, candidate, RULES)
    assert found.decision == "refuse"
    assert "were altered" in found.reasons[0]


def test_other_classes_can_not_be_compared(registry: Registry, make: Any) -> None:
    champion = make(test="T", said=said(1.0))
    judge(registry, champion, RULES)
    promote(registry, champion)
    heads = (HeadCard("grade", ("a", "b", "c", "d", "e")),)
    found = judge(registry, make(test="T", said=said(1.0), heads=heads), RULES)
    assert "has other classes" in found.reasons[0]


def test_a_licence_that_forbids_the_use_is_refused(registry: Registry, make: Any) -> None:
    rules = GateRules(allowed_use=("commercial",))
    weights = WeightsCard("hub", licence="CC-BY-NC-4.0", forbids=("commercial",))
    found = judge(registry, make(weights=weights, forbids=("commercial",), licence="CC0-1.0"), rules)
    assert found.reasons == (
        "The task needs commercial use, which the weights forbid (CC0-1.0, CC-BY-NC-4.0).",
    )
    assert judge(registry, make(weights=weights), GateRules()).accepted


def calibration(ece: float, inside: bool = True) -> dict[str, Any]:
    coverage = {"inside": inside, "conformal": 0.8, "band": [0.85, 0.95]}
    report = {"calibrated": True, "ece_after": ece, "ece_band": [0.01, 0.05], "coverage": coverage}
    return {"heads": {"grade": {"calibration": report}}}


@pytest.mark.parametrize(
    ("metrics", "told"),
    [
        ({}, "was not measured"),
        (calibration(0.06), "is above 0.0500"),
        (calibration(0.04, inside=False), "the sets cover 80.0%"),
        (calibration(0.04), None),
        (calibration(0.001), None),  # better than perfect is luck, not a fault
    ],
)
def test_calibration_where_the_task_requires_it(
    registry: Registry, make: Any, metrics: dict[str, Any], told: str | None
) -> None:
    found = judge(registry, make(metrics=metrics), GateRules(calibrated=True))
    assert found.accepted == (told is None)
    if told:
        assert told in found.reasons[0]


def test_the_decision_is_kept_in_ledger_tags_page_and_run(registry: Registry, make: Any) -> None:
    version = make()
    decision = judge(registry, version, RULES)
    document = decision.to_dict()
    assert json.loads(json.dumps(document)) == document
    entry = Ledger().entries()[-1]
    assert (entry.event, entry.version, entry.data["decision"]) == ("gate", version.version, "accept")
    assert GateRules.from_dict(entry.data["rules"]) == RULES
    now = registry.get("dr_grading", version.version)
    assert (now.decision, now.aliases) == ("accept", ("challenger",))
    assert "## Gate: accepted" in registry.page(version)
    path = registry.bundle_path(version).parent / "gate.json"
    assert json.loads(path.read_text()) == document


def test_rules_come_from_the_task_file() -> None:
    spec = GateSpec(
        floors={"auc": 0.7},
        margin=Margin("kappa", 0.03, 0.9),
        requires_approval=True,
        allowed_use=("research",),
    )
    rules = GateRules.of(spec)
    assert (rules.floors, rules.metric, rules.margin, rules.confidence) == ({"auc": 0.7}, "kappa", 0.03, 0.9)
    assert (rules.requires_approval, rules.allowed_use) == (True, ("research",))
