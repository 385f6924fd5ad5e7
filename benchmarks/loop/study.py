"""One set's simulation: a pool without labels, a strategy that asks for some, a head that learns them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np

from benchmarks.loop.head import Floats, HeadModel, Ints, features, scores
from benchmarks.loop.vectors import Vectors
from serving.core.selection import Pool, select

#: Strategies that stand for election; the first is what they are held against.
BASELINE = "random"
#: Seeds that choose a strategy by validation images, and seeds that confirm it on test images. 5 to 9
#: confirmed once, before the first batch and the steps were what they are now: they are spent.
CHOOSING, CONFIRMING = (0, 1, 2, 3, 4), (10, 11, 12, 13, 14)
#: Simulations of one seed, from other first batches; its curve is their mean, so that one start decides less.
STARTS = 8
#: Of the images that aren't for the test every seed keeps one in so many, whole groups, for validation.
PARTS = 4


@dataclass(frozen=True, slots=True)
class Study:
    """A set, its task, the metric that counts, and how many labels there are when the head learns anew."""

    name: str
    task: str
    labels: tuple[int, ...]
    #: Least saving over random that the chosen strategy must reach; None: nothing has to.
    least: float | None = None
    kind: str = field(default="", kw_only=True)


@dataclass(frozen=True, slots=True)
class Cut:
    """One seed's part of a set: the pool that may be labelled, and the images that judge."""

    x: Floats
    pool: Ints
    val: Ints
    test: Ints


@lru_cache(maxsize=2)
def load(path: Path) -> Vectors:
    """The vectors of a file, read once a process."""
    return Vectors.load(path)


@lru_cache(maxsize=2)
def cut(path: Path, seed: int) -> Cut:
    """Cut what isn't for the test into pool and validation images, no group in both; the seed decides."""
    from sklearn.model_selection import StratifiedGroupKFold

    data = load(path)
    rows = np.flatnonzero(~data.test)
    folds = StratifiedGroupKFold(PARTS, shuffle=True, random_state=seed)
    train, val = next(iter(folds.split(rows, data.y[rows], data.group[rows])))
    pool = rows[train][data.gradable[rows[train]]]
    return Cut(features(data.x, pool), pool, rows[val], np.flatnonzero(data.test))


@dataclass(frozen=True, slots=True)
class Asked:
    """What one process is to simulate.

    ``strategy`` is a name, or two: ``k_center > class_balanced(badge)`` chooses the first batch, for which
    there is no model yet, by k-center; alone, a strategy begins with a random batch. ``confirm``: judge by
    test images instead of validation images.
    """

    path: Path
    labels: tuple[int, ...]
    strategy: str
    seed: int
    confirm: bool = False


def full(asked: Asked) -> Mapping[str, float]:
    """The figures of a head that learned from all labels of the seed's pool."""
    data, part = load(asked.path), cut(asked.path, asked.seed)
    judges = part.test if asked.confirm else part.val
    model = HeadModel.fit(part.x[part.pool], data.y[part.pool], int(data.y.max()) + 1)
    return scores(model(part.x[judges]), data.y[judges], model.share)


def curve(asked: Asked) -> list[dict[str, float]]:
    """The figures after every batch, each the mean of the seed's :data:`STARTS` simulations."""
    lines = [_simulated(asked, start) for start in range(STARTS)]
    return [
        {name: float(np.mean([point[name] for point in points])) for name in points[0]}
        for points in zip(*lines, strict=True)
    ]


def _simulated(asked: Asked, number: int) -> list[dict[str, float]]:
    """The figures after every batch of one simulation.

    ``labels``, those of :func:`benchmarks.loop.head.scores`, and ``rarest``, how many labels the class with
    the fewest has. All that begin at random begin with the same images.
    """
    data, part = load(asked.path), cut(asked.path, asked.seed)
    classes = int(data.y.max()) + 1
    judges = part.test if asked.confirm else part.val
    row_of = {name: row for row, name in enumerate(data.ids.tolist())}

    def ask(strategy: str, labelled: Ints, count: int, step: int, model: HeadModel | None) -> Ints:
        left = np.setdiff1d(part.pool, labelled)
        pool = Pool(
            ids=tuple(data.ids[left].tolist()),
            probabilities=None if model is None else model(part.x[left]).astype(np.float32),
            embeddings=part.x[left],
            labelled=part.x[labelled],
            labelled_classes=None if model is None else data.y[labelled],
        )
        batch = select(pool, strategy, count, seed=(asked.seed * STARTS + number) * 1000 + step)
        return np.array([row_of[name] for name in batch.ids], np.int64)

    start, _, strategy = asked.strategy.rpartition(" > ")
    labelled = ask(start or BASELINE, np.zeros(0, np.int64), asked.labels[0], 0, None)
    points: list[dict[str, float]] = []
    for step, following in enumerate((*asked.labels[1:], 0), start=1):
        model = HeadModel.fit(part.x[labelled], data.y[labelled], classes)
        figures = scores(model(part.x[judges]), data.y[judges], model.share)
        rarest = int(np.bincount(data.y[labelled], minlength=classes).min())
        points.append({"labels": len(labelled), **figures, "rarest": rarest})
        if not following:
            break
        more = ask(strategy, labelled, following - len(labelled), step, model)
        labelled = np.concatenate([labelled, more])
    return points
