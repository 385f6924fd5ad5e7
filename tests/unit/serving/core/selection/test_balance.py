"""Mixes: the batch is spread over classes or slices, and the inner strategy fills each part."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.core.selection import Pool, select
from serving.core.selection.balance import deal

#: Three of a hundred are of the rare class, and the model calls none of them so.
RARE = 3


def pool(known: list[int] | None = None) -> Pool:
    rng = np.random.default_rng(0)
    p = np.column_stack([np.zeros(100), rng.uniform(0.01, 0.1, 100), np.full(100, 0.001)])
    p[:RARE, 2] = 0.15
    p[50:, 1] = rng.uniform(0.6, 0.8, 50)
    p[:, 0] = 1 - p[:, 1] - p[:, 2]
    return Pool(
        ids=tuple(f"{row:03d}" for row in range(100)),
        probabilities=p.astype(np.float32),
        embeddings=rng.normal(size=(100, 4)).astype(np.float32),
        labelled_classes=None if known is None else np.array(known),
        slices=tuple("day" if row % 10 else "night" for row in range(100)),
    )


def test_a_rare_class_is_found_by_how_far_it_is_above_its_mean() -> None:
    plain = select(pool(), "class_balanced(random)", 9, seed=0, lean=0.0)
    leaning = select(pool(), "class_balanced(random)", 9, seed=0)
    rare = {f"{row:03d}" for row in range(RARE)}
    assert rare <= set(leaning.ids)
    assert not rare <= set(plain.ids)


def test_places_go_where_labels_are_few() -> None:
    found = select(pool([0] * 50 + [1] * 50), "class_balanced(random)", 3, seed=0)
    assert set(found.ids) == {"000", "001", "002"}
    found = select(pool([2] * 50), "class_balanced(random)", 10, seed=0)
    halves = [int(name) >= 50 for name in found.ids]
    assert sum(halves) == 5


def test_an_unknown_class_counts_for_none() -> None:
    with_unknown = select(pool([-1] * 80), "class_balanced(margin)", 6, seed=0)
    assert with_unknown.ids == select(pool(), "class_balanced(margin)", 6, seed=0).ids


def test_slices_get_the_same_number() -> None:
    found = select(pool(), "slice_balanced(margin)", 12, seed=0)
    nights = [int(name) % 10 == 0 for name in found.ids]
    assert sum(nights) == 6
    # Ten images of the night are all there are.
    found = select(pool(), "slice_balanced(margin)", 30, seed=0)
    assert sum(int(name) % 10 == 0 for name in found.ids) == 10


def test_mixes_can_be_mixed() -> None:
    found = select(pool(), "slice_balanced(class_balanced(badge))", 12, seed=0)
    assert len(set(found.ids)) == 12
    assert sum(int(name) % 10 == 0 for name in found.ids) == 6


def test_every_head_gets_its_part_of_the_batch() -> None:
    rng = np.random.default_rng(1)
    one = rng.dirichlet([9, 1], 40).astype(np.float32)
    two = rng.dirichlet([1, 1, 9], 40).astype(np.float32)
    both = Pool(
        ids=tuple(f"{row:02d}" for row in range(40)),
        probabilities={"one": one, "two": two},
        labelled_classes={"one": np.array([0, 0, 1]), "two": np.array([2, -1, 2])},
    )
    for k in (1, 2, 7, 40):
        found = select(both, "class_balanced(entropy)", k, seed=0)
        assert len(set(found.ids)) == k


def test_a_strategy_that_spreads_out_does_so_over_the_whole_batch() -> None:
    # Two slices see the same two places: k-center takes each place once, not once a slice.
    x = np.array([[0, 0], [5, 5], [0, 0], [5, 5]], np.float32)
    found = select(
        Pool(
            ids=tuple("abcd"),
            embeddings=x,
            labelled=np.array([[2, 2.4]], np.float32),
            slices=("one", "one", "two", "two"),
        ),
        "slice_balanced(k_center)",
        2,
        seed=0,
    )
    assert {"abcd".index(name) % 2 for name in found.ids} == {0, 1}


cells = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=6)


@settings(deadline=None)
@given(cells=cells, k=st.integers(0, 30))
def test_dealing_evens_out_as_far_as_there_is_something_left(cells: list[tuple[int, int]], k: int) -> None:
    have, available = (np.array(column, np.int64) for column in zip(*cells, strict=True))
    given_ = deal(have, available, k)
    assert given_.sum() == min(k, available.sum())
    assert (given_ >= 0).all()
    assert (given_ <= available).all()
    level = have + given_
    for cell in np.flatnonzero(given_ > 0):
        others = level[given_ < available]
        assert len(others) == 0 or level[cell] <= others.min() + 1
