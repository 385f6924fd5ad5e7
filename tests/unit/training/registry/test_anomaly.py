"""Versions of an anomaly task: registered with their own proofs, judged by their scores' ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.errors import ParityError
from data.files import digest_json
from data.paths import Home
from serving.core.bundle import Bundle, DatasetCard
from serving.core.pointer import read_pointer
from tests.anomaly_bundles import tiny_anomaly_bundle
from training.patchcore.scoring import Scored, predictions
from training.registry.client import Registry
from training.registry.gate import GateRules, judge
from training.registry.promotion import promote
from training.registry.proofs import unproved
from training.registry.version import Version

RULES = GateRules(floors={"auc": 0.8, "pixel_auroc": 0.9}, metric="auc", margin=0.02, resamples=300)
PROVED = {name: {"passed": True} for name in ("features", "served")}
THRESHOLD = 0.5


def scored(skill: float, seed: int = 0, n: int = 200) -> Scored:
    """Scores of which the NG ones lie ``skill`` above the OK ones, in noise."""
    label = np.arange(n) % 2
    score = np.random.default_rng(seed).gamma(4, 0.05, n) + skill * label
    return Scored(
        np.array([f"image-{i:03d}" for i in range(n)]),
        label,
        score.astype(np.float32),
        np.zeros((n, 2, 2), np.float32),
        np.zeros((n, 3), np.float32),
    )


def figures(**values: float) -> dict[str, Any]:
    return {"heads": {"status": {name: {"value": value} for name, value in values.items()}}}


def made(path: Path, seed: int, **card: Any) -> Bundle:
    dataset = DatasetCard(digest_json("data"), digest_json("test"), "synthetic", synthetic=True)
    card = {"parity": PROVED, "dataset": dataset, "metrics": figures(auc=0.9, pixel_auroc=0.95), **card}
    return tiny_anomaly_bundle(path, seed=seed, **card)


def version(
    registry: Registry, folder: Path, seed: int, skill: float, noise: int = 0, **card: Any
) -> Version:
    said = folder / f"said-{seed}.npz"
    predictions(scored(skill, noise), THRESHOLD, "status").save(said)
    return registry.register(made(folder / f"b{seed}", seed, **card), None, said)


def test_a_bundle_needs_its_own_kinds_proofs(registry: Registry, tmp_path: Path) -> None:
    for number, parity in enumerate(
        ({}, {"features": {"passed": True}}, {**PROVED, "served": {"passed": False}})
    ):
        bundle = made(tmp_path / f"b{number}", 0, parity=parity)
        assert unproved(bundle.card)
        with pytest.raises(ParityError, match="can't be registered"):
            registry.register(bundle)
    assert not unproved(made(tmp_path / "good", 0).card)


def test_the_first_version_must_pass_floors_of_pixels_too(registry: Registry, tmp_path: Path) -> None:
    low = version(registry, tmp_path, 1, 0.3, metrics=figures(auc=0.9, pixel_auroc=0.85))
    refused = judge(registry, low, RULES)
    assert not refused.accepted
    assert "pixel_auroc 0.8500, must be at least 0.9" in refused.reasons[0]
    unmeasured = version(registry, tmp_path, 2, 0.3, metrics=figures(auc=0.9))
    assert "not measured" in judge(registry, unmeasured, RULES).reasons[0]
    assert judge(registry, version(registry, tmp_path, 3, 0.3), RULES).accepted


def test_scores_are_compared_on_the_same_images_and_the_better_memory_serves(
    registry: Registry, tmp_path: Path, home: Home
) -> None:
    first = version(registry, tmp_path, 1, 0.25)
    assert judge(registry, first, RULES).accepted
    promote(registry, registry.get("anomaly", first.version))

    worse = version(registry, tmp_path, 2, 0.08, noise=1)
    refused = judge(registry, worse, RULES)
    (comparison,) = refused.comparisons
    assert refused.line == "same test set"
    assert (refused.accepted, comparison.images) == (False, 200)

    better = version(registry, tmp_path, 3, 0.5, noise=2)
    assert judge(registry, better, RULES).accepted
    promote(registry, registry.get("anomaly", better.version))
    pointer = read_pointer(home.serving, "anomaly")
    assert pointer is not None
    assert pointer.version == better.version
    assert registry.client.get_registered_model("anomaly").tags["retiderm"] == "anomaly"


def test_another_threshold_alone_changes_no_auc(registry: Registry, tmp_path: Path) -> None:
    first = version(registry, tmp_path, 1, 0.25)
    assert judge(registry, first, RULES).accepted
    promote(registry, registry.get("anomaly", first.version))
    said = tmp_path / "other.npz"
    predictions(scored(0.25), 3 * THRESHOLD, "status").save(said)
    other = registry.register(made(tmp_path / "other", 9), None, said)
    (comparison,) = judge(registry, other, RULES).comparisons
    assert comparison.difference == pytest.approx(0, abs=1e-12)
