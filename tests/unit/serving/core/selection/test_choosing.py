"""One call for all strategies: reproducible, never an ungradable image, clear refusals."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from data.errors import UsageError
from serving.core.selection import MIXES, STRATEGIES, Pool, select, strategy

NAMES = [*STRATEGIES, *(f"{mix}({inner})" for mix in MIXES for inner in STRATEGIES)]


def made(n: int = 60, order_seed: int | None = None) -> Pool:
    rng = np.random.default_rng(0)
    p = rng.dirichlet([5, 2, 1], n).astype(np.float32)
    x = rng.normal(size=(n, 6)).astype(np.float32)
    gradable = rng.random(n) > 0.3
    p[~gradable], x[~gradable] = np.nan, np.nan
    labelled, classes = rng.normal(size=(9, 6)).astype(np.float32), rng.integers(0, 3, 9)
    order, other = np.arange(n), np.arange(9)
    if order_seed is not None:
        again = np.random.default_rng(order_seed)
        order, other = again.permutation(n), again.permutation(9)
    return Pool(
        ids=tuple(f"case-{row}" for row in order),
        probabilities=p[order],
        embeddings=x[order],
        labelled=labelled[other],
        labelled_classes=classes[other],
        groups=tuple(f"patient {row // 4}" if row % 4 else "" for row in order),
        slices=tuple("abc"[row % 3] for row in order),
        gradable=gradable[order],
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_comes_again_from_its_seed_whatever_the_order_of_the_pool(name: str) -> None:
    first = select(made(), name, 15, seed=4)
    assert select(made(), name, 15, seed=4) == first
    assert select(made(order_seed=8), name, 15, seed=4) == first
    assert len(set(first.ids)) == len(first.scores) == len(first) == 15


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("k", [1, 39, 10_000])
def test_what_is_not_gradable_is_never_chosen(name: str, k: int) -> None:
    pool = made()
    refused = {pool.ids[row] for row in np.flatnonzero(~pool.gradable)}  # type: ignore[operator]
    found = select(pool, name, k, seed=1)
    assert refused
    assert not refused & set(found.ids)
    assert len(found) == len(set(found.ids)) == min(k, len(pool) - len(refused))


@pytest.mark.parametrize("name", ["random", "badge", "cluster_margin"])
def test_another_seed_gives_another_batch(name: str) -> None:
    batches = {select(made(), name, 10, seed=seed).ids for seed in range(5)}
    assert len(batches) > 1


@pytest.mark.parametrize("name", NAMES)
def test_a_group_has_no_more_than_its_share(name: str) -> None:
    pool = made()
    assert pool.groups is not None
    group = dict(zip(pool.ids, pool.groups, strict=True))
    found = select(pool, name, 12, seed=2, per_group=1)
    counts = Counter(group[name] for name in found.ids if group[name])
    assert max(counts.values()) == 1
    assert len(found) == 12
    assert found.options == {"per_group": 1}
    # There are fifteen patients and some images of nobody.
    whole = select(pool, name, 60, seed=2, per_group=1)
    gradable = {pool.ids[row] for row in np.flatnonzero(pool.gradable)}  # type: ignore[arg-type]
    alone = sum(1 for name in gradable if not group[name])
    assert len(whole) == alone + len({group[name] for name in gradable} - {""})


def test_a_batch_can_be_logged() -> None:
    found = select(made(), " class_balanced( cluster_margin )", 5, seed=2, factor=4.0, lean=0.5)
    assert found.strategy == "class_balanced(cluster_margin)"
    assert found.options == {"factor": 4.0, "lean": 0.5}
    log = json.loads(json.dumps(found.to_dict()))
    again = select(made(), log["strategy"], len(log["ids"]), log["seed"], **log["options"])
    assert list(again.ids) == log["ids"]
    assert again.pool == log["pool"]


def test_nothing_to_choose_from_is_an_empty_batch() -> None:
    assert select(Pool(ids=()), "random", 3, seed=0).ids == ()
    nobody = Pool(ids=("a",), probabilities=np.full((1, 2), np.nan, np.float32), gradable=np.zeros(1, bool))
    assert select(nobody, "class_balanced(margin)", 3, seed=0).ids == ()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("best", {}),
        ("best(margin)", {}),
        ("margin(random)", {}),
        ("class_balanced", {}),
        ("class_balanced(best)", {}),
        ("margin", {"factor": 2}),
        ("class_balanced(margin)", {"inner": "random"}),
    ],
)
def test_unknown_strategies_and_options_are_refused(name: str, options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        strategy(name, **options)


@pytest.mark.parametrize(
    ("lacking", "name"),
    [
        ("probabilities", "class_balanced(random)"),
        ("probabilities", "slice_balanced(margin)"),
        ("embeddings", "class_balanced(k_center)"),
        ("slices", "slice_balanced(random)"),
    ],
)
def test_a_pool_without_what_is_needed_is_refused(lacking: str, name: str) -> None:
    less = replace(made(), labelled=None, labelled_classes=None, **{lacking: None})
    with pytest.raises(UsageError, match=lacking):
        select(less, name, 3, seed=0)


@pytest.mark.parametrize("options", [{"k": 0}, {"k": 3, "per_group": 0}])
def test_an_impossible_batch_is_refused(options: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        select(made(), "random", seed=0, **options)
    with pytest.raises(UsageError, match="groups"):
        select(replace(made(), groups=None), "random", 3, seed=0, per_group=1)
