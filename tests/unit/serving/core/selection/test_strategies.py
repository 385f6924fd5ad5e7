"""Each strategy, against its definition computed the plain way."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from serving.core.selection import STRATEGIES, Pool, strategy
from serving.core.selection.badge import Badge
from serving.core.selection.base import Choice
from serving.core.selection.cluster_margin import ClusterMargin
from serving.core.selection.k_center import KCenter, nearest
from serving.core.selection.linkage import average_linkage
from serving.core.selection.pool import Candidates
from serving.core.selection.uncertainty import entropy, least_confidence, margin

CERTAIN, LEVEL, HALF = [1.0, 0.0, 0.0], [1 / 3] * 3, [0.5, 0.5, 0.0]


def candidates(n: int = 40, classes: int = 4, seed: int = 0, labelled: int = 6) -> Candidates:
    rng = np.random.default_rng(seed)
    pool = Pool(
        ids=tuple(f"{row:03d}" for row in range(n)),
        probabilities=rng.dirichlet(np.ones(classes), n).astype(np.float32),
        embeddings=rng.normal(size=(n, 6)).astype(np.float32),
        labelled=rng.normal(size=(labelled, 6)).astype(np.float32) if labelled else None,
    )
    return Candidates.of(pool)[0]


def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def test_measures_of_doubt_lie_between_0_and_1() -> None:
    values = np.array([CERTAIN, LEVEL, HALF])
    assert entropy(values) == pytest.approx([0, 1, math.log(2) / math.log(3)])
    assert margin(values) == pytest.approx([0, 1, 1])
    assert least_confidence(values) == pytest.approx([0, 1, 0.75])


@pytest.mark.parametrize("name", ["entropy", "margin", "least_confidence"])
def test_doubt_comes_first_and_ties_go_by_id(name: str) -> None:
    pool = Pool(ids=tuple("abcd"), probabilities=np.array([CERTAIN, LEVEL, CERTAIN, LEVEL], np.float32))
    choice = strategy(name).choose(Candidates.of(pool)[0], 3, rng())
    assert choice.rows.tolist() == [1, 3, 0]
    assert choice.scores.tolist() == sorted(choice.scores, reverse=True)


def test_the_doubt_of_several_heads_is_their_mean() -> None:
    one = np.array([HALF, [0.8, 0.2, 0.0], CERTAIN], np.float32)
    two = np.array([[1.0, 0.0], [0.6, 0.4], [0.5, 0.5]], np.float32)
    pool = Pool(ids=tuple("abc"), probabilities={"one": one, "two": two})
    choice = strategy("margin").choose(Candidates.of(pool)[0], 3, rng())
    # 1 - the gap: (1 + 0) / 2, (.4 + .8) / 2, (0 + 1) / 2.
    assert choice.rows.tolist() == [1, 0, 2]
    assert choice.scores == pytest.approx([0.6, 0.5, 0.5])


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("k", [1, 7, 40])
def test_every_strategy_gives_k_different_rows(name: str, k: int) -> None:
    given = candidates()
    choice = strategy(name).choose(given, k, rng())
    assert isinstance(choice, Choice)
    assert len(choice.rows) == len(choice.scores) == k == len(set(choice.rows.tolist()))
    assert choice.rows.min() >= 0
    assert choice.rows.max() < len(given)
    assert np.isfinite(choice.scores).all()
    assert np.array_equal(strategy(name).choose(given, k, rng()).rows, choice.rows)


def plain_k_center(x: NDArray[np.float64], centers: list[NDArray[np.float64]], k: int) -> list[int]:
    chosen: list[int] = []
    for _ in range(k):
        near = [min(float(np.square(row - center).sum()) for center in centers) for row in x]
        chosen.append(int(np.argmax([-1 if i in chosen else value for i, value in enumerate(near)])))
        centers = [*centers, x[chosen[-1]]]
    return chosen


def test_k_center_takes_the_farthest_from_all_that_is_labelled() -> None:
    given = candidates()
    choice = KCenter().choose(given, 8, rng())
    x = given.vectors().astype(np.float64)
    assert given.labelled is not None
    assert choice.rows.tolist() == plain_k_center(x, list(given.labelled.astype(np.float64)), 8)
    assert (np.diff(choice.scores) <= 1e-6).all()


def test_k_center_without_labels_begins_where_the_seed_says() -> None:
    given = candidates(labelled=0)
    choice = KCenter().choose(given, 8, rng())
    x = given.vectors().astype(np.float64)
    first = int(choice.rows[0])
    assert choice.rows.tolist()[1:] == plain_k_center(x, [x[first]], 7)
    assert choice.scores[0] >= choice.scores[1] >= choice.scores[-1]


def test_k_center_copes_with_images_that_are_all_alike() -> None:
    pool = Pool(
        ids=tuple("abcd"), embeddings=np.ones((4, 2), np.float32), labelled=np.ones((1, 2), np.float32)
    )
    choice = KCenter().choose(Candidates.of(pool)[0], 4, rng())
    assert sorted(choice.rows.tolist()) == [0, 1, 2, 3]


def test_distances_to_the_nearest() -> None:
    given = candidates(n=1500, labelled=30)
    assert given.labelled is not None
    apart = given.vectors()[:, None].astype(np.float64) - given.labelled[None]
    assert nearest(given.vectors(), given.labelled) == pytest.approx(
        np.square(apart).sum(axis=2).min(axis=1), abs=1e-4
    )


def test_badge_draws_by_the_distance_of_gradients_that_are_never_formed() -> None:
    given = candidates()
    choice = Badge().choose(given, 10, rng())
    p, x = given.heads[0], given.vectors().astype(np.float64)
    residual = p - np.eye(p.shape[1])[p.argmax(axis=1)]
    gradients = (residual[:, :, None] * x[:, None, :]).reshape(len(x), -1)
    assert choice.rows[0] == np.square(gradients).sum(axis=1).argmax()
    for place in range(1, 10):
        apart = np.square(gradients[:, None] - gradients[choice.rows[:place]]).sum(axis=2).min(axis=1)
        assert choice.scores[place] == pytest.approx(apart[choice.rows[place]], rel=1e-4)


def test_badge_prefers_what_is_doubtful_and_far() -> None:
    p = np.tile(np.array([[0.999, 0.001]], np.float32), (60, 1))
    p[50:] = 0.5
    x = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
    pool = Pool(ids=tuple(f"{row:02d}" for row in range(60)), probabilities=p, embeddings=x)
    for seed in range(20):
        rows = Badge().choose(Candidates.of(pool)[0], 5, np.random.default_rng(seed)).rows
        # The gradients of certain answers lie together near zero, so one of them stands for all.
        assert (rows >= 50).sum() >= 4


def test_badge_gives_all_where_every_gradient_is_nothing() -> None:
    p = np.array([[1.0, 0.0]] * 4, np.float32)
    pool = Pool(ids=tuple("abcd"), probabilities=p, embeddings=np.ones((4, 2), np.float32))
    assert sorted(Badge().choose(Candidates.of(pool)[0], 4, rng()).rows.tolist()) == [0, 1, 2, 3]


def test_cluster_margin_takes_one_of_each_kind_before_a_second() -> None:
    kinds = np.repeat(np.eye(4, dtype=np.float32) * 10, [10, 10, 10, 2], axis=0)
    x = kinds + np.random.default_rng(0).normal(size=kinds.shape).astype(np.float32) * 0.01
    p = np.tile(np.array([[0.5, 0.5]], np.float32), (32, 1))
    pool = Pool(ids=tuple(f"{row:02d}" for row in range(32)), probabilities=p, embeddings=x)
    for seed in range(5):
        rows = ClusterMargin().choose(Candidates.of(pool)[0], 4, np.random.default_rng(seed)).rows
        assert sorted(np.minimum(rows // 10, 3).tolist()) == [0, 1, 2, 3]


def test_cluster_margin_looks_at_the_least_margins_alone() -> None:
    given = candidates(n=100)
    doubt = margin(given.heads[0])
    rows = ClusterMargin(factor=2).choose(given, 10, rng()).rows
    assert set(rows.tolist()) <= set(np.argsort(-doubt)[:20].tolist())


def test_cluster_margin_of_a_large_batch_clusters_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.core.selection.cluster_margin.LARGEST", 8)
    given = candidates(n=40)
    rows = ClusterMargin().choose(given, 12, rng()).rows
    assert sorted(rows.tolist()) == sorted(np.argsort(-margin(given.heads[0]))[:12].tolist())


def plain_linkage(x: NDArray[np.float32], clusters: int) -> list[frozenset[int]]:
    apart = np.sqrt(np.square(x[:, None].astype(np.float64) - x[None]).sum(axis=2))
    parts = [frozenset([row]) for row in range(len(x))]
    while len(parts) > clusters:
        pairs = [(i, j) for i in range(len(parts)) for j in range(i)]
        heights = [apart[np.ix_(sorted(parts[i]), sorted(parts[j]))].mean() for i, j in pairs]
        i, j = pairs[int(np.argmin(heights))]
        parts = [part for place, part in enumerate(parts) if place not in (i, j)] + [parts[i] | parts[j]]
    return parts


@pytest.mark.parametrize("clusters", [1, 2, 5, 13, 24])
def test_average_linkage_is_that_of_the_definition(clusters: int) -> None:
    x = np.random.default_rng(clusters).normal(size=(24, 3)).astype(np.float32)
    found = average_linkage(x, clusters)
    assert found.max() + 1 == clusters
    mine = {frozenset(np.flatnonzero(found == number).tolist()) for number in range(clusters)}
    assert mine == set(plain_linkage(x, clusters))


def test_average_linkage_ends_where_all_are_alike() -> None:
    found = average_linkage(np.ones((50, 4), np.float32), 7)
    assert sorted(set(found.tolist())) == list(range(7))
    assert average_linkage(np.ones((3, 2), np.float32), 9).tolist() == [0, 1, 2]
