"""Which images make up an epoch, and where every random draw's seed comes from.

Nothing random is carried from step to step: each draw's seed follows from the run's seed, the epoch and the
step. A run that was killed and started again therefore draws what it would have drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from training.spec.parts import HeadSpec
from training.spec.recipe import Balance

Ints = NDArray[np.int64]

#: Streams of draws that must not follow one another.
ORDER, AUGMENT, MIX, DROPOUT = range(4)


def seed_of(seed: int, stream: int, epoch: int, step: int = 0, rank: int = 0) -> int:
    """A 63-bit seed for one draw, unrelated to every other's."""
    words = np.random.SeedSequence([seed, stream, epoch, step, rank]).generate_state(2, np.uint32)
    return (int(words[0]) << 31) ^ int(words[1])


def class_weights(labels: Ints, classes: int, power: float) -> NDArray[np.float64]:
    """``frequency ** -power`` a class, with mean 1 over the labelled images; absent classes get 0."""
    counts = np.bincount(labels[labels >= 0], minlength=classes).astype(np.float64)
    weights = np.where(counts > 0, np.maximum(counts, 1) ** -power, 0.0)
    total = float((weights * counts).sum())
    return weights * (counts.sum() / total) if total > 0 else weights


def image_weights(
    labels: Mapping[str, Ints], heads: Sequence[HeadSpec], balance: Balance
) -> NDArray[np.float64] | None:
    """How often each image should be drawn, mean 1 and the mean over its labelled heads; None for equally."""
    if balance.kind != "sampler" or balance.power == 0:
        return None
    count = len(next(iter(labels.values())))
    total, present = np.zeros(count), np.zeros(count)
    for head in heads:
        own = labels[head.name]
        weights = class_weights(own, len(head.classes), balance.power)
        has = own >= 0
        total[has] += weights[own[has]]
        present[has] += 1
    return np.divide(total, present, out=np.zeros(count), where=present > 0)


def epoch_order(count: int, weights: NDArray[np.float64] | None, seed: int, epoch: int) -> Ints:
    """The images of an epoch, ``count`` of them, shuffled.

    With weights, images and classes appear as often as the weights say, to within one (systematic
    resampling): far steadier from epoch to epoch than independent draws.
    """
    rng = np.random.default_rng(seed_of(seed, ORDER, epoch))
    if weights is None:
        return rng.permutation(count)
    # Equal weights (one class) side by side, in random order: a class keeps its share to within one image,
    # and which of its images appear once more is by chance.
    ordered = np.lexsort((rng.random(count), weights))
    edges = np.cumsum(weights[ordered])
    points = (np.arange(count) + rng.random()) * (edges[-1] / count)
    chosen = ordered[np.minimum(np.searchsorted(edges, points, side="right"), count - 1)]
    return rng.permutation(chosen)


def batches(order: Ints, batch_size: int) -> list[Ints]:
    """Whole batches; a shorter last one is left out unless it is the only one."""
    whole = len(order) // batch_size
    if whole == 0:
        return [order]
    return np.split(order[: whole * batch_size], whole)
