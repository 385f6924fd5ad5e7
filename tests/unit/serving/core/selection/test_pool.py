"""Pools: what fits, what doesn't, and a digest that the order doesn't change."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from data.errors import DataError, UsageError
from serving.core.selection import Pool
from serving.core.selection.pool import Candidates, canonical


def made(n: int = 12, seed: int = 0) -> Pool:
    """A pool with everything in it, of which two cases aren't gradable and have no numbers."""
    rng = np.random.default_rng(seed)
    gradable = np.ones(n, bool)
    gradable[[1, 4]] = False
    probabilities = rng.dirichlet(np.ones(3), n).astype(np.float32)
    embeddings = rng.normal(size=(n, 5)).astype(np.float32)
    probabilities[~gradable], embeddings[~gradable] = np.nan, np.nan
    return Pool(
        ids=tuple(f"case-{row:02d}" for row in rng.permutation(n)),
        probabilities=probabilities,
        embeddings=embeddings,
        labelled=rng.normal(size=(4, 5)).astype(np.float32),
        labelled_classes=np.array([0, 2, -1, 1]),
        groups=tuple(f"patient {row // 2}" for row in range(n)),
        slices=tuple("ab"[row % 2] for row in range(n)),
        gradable=gradable,
    )


def shuffled(pool: Pool, seed: int = 1) -> Pool:
    """The same cases in another order."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(pool))
    again = rng.permutation(len(pool.labelled))  # type: ignore[arg-type]
    return Pool(
        ids=tuple(pool.ids[row] for row in order),
        probabilities=pool.probabilities[order],  # type: ignore[index]
        embeddings=pool.embeddings[order],  # type: ignore[index]
        labelled=pool.labelled[again],  # type: ignore[index]
        labelled_classes=pool.labelled_classes[again],  # type: ignore[index]
        groups=tuple(pool.groups[row] for row in order),  # type: ignore[index]
        slices=tuple(pool.slices[row] for row in order),  # type: ignore[index]
        gradable=pool.gradable[order],  # type: ignore[index]
    )


def test_the_digest_is_of_the_content_and_not_of_the_order() -> None:
    pool = made()
    assert pool.digest() == shuffled(pool).digest()
    assert pool.digest().startswith("sha256:")


def test_the_digest_sees_every_part() -> None:
    pool = made()
    embeddings = pool.embeddings.copy()  # type: ignore[union-attr]
    embeddings[0, 0] += 1
    others = [
        replace(pool, probabilities=1 - pool.probabilities),  # type: ignore[operator]
        replace(pool, embeddings=embeddings),
        replace(pool, embeddings=None, labelled=None, labelled_classes=None),
        replace(pool, labelled=pool.labelled[:2], labelled_classes=np.array([0, 2])),  # type: ignore[index]
        replace(pool, labelled_classes=np.array([0, 2, -1, 0])),
        replace(pool, labelled_classes=None),
        replace(pool, groups=None),
        replace(pool, slices=("c", *pool.slices[1:])),  # type: ignore[index]
        replace(pool, ids=("another", *pool.ids[1:])),
        replace(pool, probabilities={"grade": pool.probabilities}, labelled_classes=None),
    ]
    digests = {pool.digest(), *(other.digest() for other in others)}
    assert len(digests) == len(others) + 1


def test_what_the_gate_refused_plays_no_part() -> None:
    pool = made()
    embeddings = pool.embeddings.copy()  # type: ignore[union-attr]
    embeddings[1] = 7.0
    assert replace(pool, embeddings=embeddings).digest() == pool.digest()
    assert len(Candidates.of(pool)[0]) == len(pool) - 2


def test_candidates_come_in_the_order_of_their_ids() -> None:
    pool = made()
    candidates, rows = Candidates.of(pool)
    ids = [pool.ids[row] for row in rows]
    assert ids == sorted(ids)
    assert np.allclose(candidates.vectors(), pool.embeddings[rows])  # type: ignore[index]
    again, other = Candidates.of(shuffled(pool))
    assert np.array_equal(candidates.vectors(), again.vectors())
    assert np.array_equal(candidates.labelled, again.labelled)  # type: ignore[arg-type]
    assert np.array_equal(candidates.known[0], again.known[0])
    assert len(other) == len(rows)


def test_candidates_can_be_narrowed_and_their_choice_counted() -> None:
    candidates, _ = Candidates.of(made())
    rows = np.array([2, 5])
    part = candidates.take(rows)
    assert len(part) == 2
    assert part.slices == tuple(candidates.slices[row] for row in rows)  # type: ignore[index]
    more = candidates.counting(rows)
    assert len(more.labelled) == len(candidates.labelled) + 2  # type: ignore[arg-type]
    assert Candidates.of(Pool(ids=("a",)))[0].counting(np.array([0])).labelled is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"ids": ("a", "a", "b")},
        {"probabilities": np.ones((2, 2), np.float32)},
        {"probabilities": np.ones((3, 1), np.float32)},
        {"probabilities": {"grade": np.ones(3, np.float32)}},
        {"embeddings": np.ones((2, 4), np.float32)},
        {"labelled": np.ones((2, 4), np.float32)},
        {"embeddings": np.ones((3, 4), np.float32), "labelled": np.ones((2, 5), np.float32)},
        {"labelled_classes": np.array([0])},
        {"probabilities": np.ones((3, 2), np.float32), "labelled_classes": np.array([2])},
        {"groups": ("a",)},
        {"slices": ("a",)},
        {"gradable": np.ones(2, bool)},
    ],
)
def test_arrays_that_do_not_fit_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Pool(**{"ids": ("a", "b", "c"), **wrong})  # type: ignore[arg-type]


def test_a_gradable_case_without_numbers_is_named() -> None:
    values = np.ones((3, 2), np.float32)
    values[1] = np.nan
    with pytest.raises(DataError, match="Case b "):
        Pool(ids=("a", "b", "c"), probabilities=values)
    with pytest.raises(DataError, match="labelled"):
        Pool(ids=("a",), embeddings=np.ones((1, 2), np.float32), labelled=np.full((1, 2), np.inf, np.float32))


def test_rows_without_numbers_have_an_order_too() -> None:
    assert canonical(None, {}).tolist() == []
    assert canonical(None, {"": np.array([2, 0, 1])}).tolist() == [1, 2, 0]
    assert canonical(np.zeros((0, 3), np.float32), {}).tolist() == []
