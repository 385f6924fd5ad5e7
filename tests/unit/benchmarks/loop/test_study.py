"""A small made-up set goes through the whole simulation."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.loop.__main__ import Result, write
from benchmarks.loop.head import HeadModel, features, scores
from benchmarks.loop.phase import simulate
from benchmarks.loop.plot import draw
from benchmarks.loop.study import Asked, Study, curve, cut, full, load
from benchmarks.loop.vectors import Vectors

LABELS = (12, 20, 30)
STUDY = Study("made up", "skin_lesion", LABELS)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """240 images of three classes that a line can tell apart, two a lesion; some can't be graded."""
    rng = np.random.default_rng(0)
    n = 240
    y = np.repeat(rng.choice(3, n // 2, p=[0.7, 0.2, 0.1]), 2)
    made = Vectors(
        ids=np.array([f"image {row:03d}" for row in range(n)]),
        x=(np.eye(8)[y] * 3 + rng.normal(size=(n, 8)) + 4).astype(np.float32),
        y=y,
        group=np.array([f"lesion {row // 2}" for row in range(n)]),
        gradable=rng.random(n) > 0.05,
        test=np.arange(n) >= 180,
    )
    file = tmp_path_factory.mktemp("loop") / "vectors.npz"
    made.save(file)
    return file


def test_vectors_come_back_from_their_file(path: Path) -> None:
    found = load(path)
    assert len(found.ids) == 240
    assert found.test.sum() == 60
    assert found.ids[7] == "image 007"


def test_no_lesion_is_in_two_parts_and_the_test_is_the_same_for_all_seeds(path: Path) -> None:
    data = load(path)
    parts = [cut(path, seed) for seed in range(3)]
    for part in parts:
        groups = [set(data.group[rows]) for rows in (part.pool, part.val, part.test)]
        assert not groups[0] & groups[1]
        assert not (groups[0] | groups[1]) & groups[2]
        assert data.gradable[part.pool].all()
        assert np.array_equal(part.test, np.flatnonzero(data.test))
    assert set(parts[0].val) != set(parts[1].val)


def test_features_rest_on_the_pool_alone() -> None:
    x = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
    pool = np.arange(40)
    other = x.copy()
    other[40:] += 3
    assert np.array_equal(features(x, pool)[pool], features(other, pool)[pool])
    assert np.square(features(x, pool)[pool]).sum(axis=1).mean() == pytest.approx(50, rel=1e-4)


def test_a_class_without_a_label_has_next_to_no_probability() -> None:
    x = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    model = HeadModel.fit(x, np.array([0, 2] * 10), 4)
    found = model(x)
    assert found.shape == (20, 4)
    assert found.sum(axis=1) == pytest.approx(np.ones(20))
    assert found[:, [1, 3]].max() < 1e-8
    assert model.share == pytest.approx(np.array([10.5, 0.5, 10.5, 0.5]) / 22)


def test_a_perfect_model_scores_one() -> None:
    truth = np.array([0, 1, 2, 0, 1, 2])
    found = scores(np.eye(3)[truth] * 0.9 + 1 / 30, truth, np.full(3, 1 / 3))
    assert found == pytest.approx({"auc": 1.0, "kappa": 1.0, "balanced_accuracy": 1.0})


@pytest.mark.parametrize("strategy", ["random", "k_center > class_balanced(badge)"])
def test_a_curve_has_a_point_for_every_batch(path: Path, strategy: str) -> None:
    points = curve(Asked(path, LABELS, strategy, seed=1))
    assert [point["labels"] for point in points] == [12, 20, 30]
    assert points == curve(Asked(path, LABELS, strategy, seed=1))
    random = curve(Asked(path, LABELS, "margin", seed=1))
    assert (points[0] == random[0]) == (strategy == "random")
    assert points != curve(Asked(path, LABELS, strategy, seed=1, confirm=True))
    whole = full(Asked(path, LABELS, strategy, seed=1))
    assert 0.5 < points[-1]["auc"] <= 1
    assert 0.5 < whole["auc"] <= 1


@pytest.mark.slow
def test_a_phase_gathers_seeds_and_is_written_down(path: Path, tmp_path: Path) -> None:
    names = ("random", "class_balanced(margin)")
    phase = simulate(STUDY, path, names, (0, 1), confirm=False, workers=1)
    assert phase.values["random"]["auc"].shape == (2, 3)
    alone = [point["auc"] for point in curve(Asked(path, LABELS, names[1], seed=1))]
    assert phase.values[names[1]]["auc"][1] == pytest.approx(alone)
    assert phase.verdict("random", "auc")["saving"] in (0.0, None)
    confirm = replace(phase, confirm=True)
    told = {
        "set": "made up",
        "passed": None,
        "metric": "auc",
        "chosen": names[1],
        "choose": phase.told(),
        "confirm": {**confirm.told(), **confirm.verdict(names[1], "auc")},
    }
    results = [Result(phase, confirm, told)]
    write(results, tmp_path / "loop.json")
    stored = json.loads((tmp_path / "loop.json").read_text())
    assert stored["sets"][0]["choose"]["judged_on"] == "validation"
    assert stored["passed"] is True
    with (tmp_path / "loop.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 2 * len(names) * len(LABELS)
    assert all(float(row["auc_low"]) <= float(row["auc"]) <= float(row["auc_high"]) for row in rows)
    draw(tmp_path / "loop.json", tmp_path / "curves.webp")
    assert (tmp_path / "curves.webp").read_bytes()[8:12] == b"WEBP"
