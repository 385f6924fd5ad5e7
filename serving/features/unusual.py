"""How unusual an image is beside those that a model learned from.

Training images lie closer to each other than new ones do to them, the more so the better they were learned:
held against their own distances, far more than one new image in a hundred would be among the farthest
hundredth. So the distances of images that nothing was learned from are what is usual, where the bundle has
them (``drift.distance``); bundles of before have those of training images alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.errors import BundleError
from serving.core.bundle import REFERENCE, Bundle

#: Which of the nearest embeddings counts, as in ``reference.npz``.
NEIGHBOURS = 5

_TINY = 1e-12

NO_EMBEDDING = "This model gives no embedding, so there is nothing to compare."


@dataclass(frozen=True, slots=True)
class Familiar:
    """A bundle's sample of its training images, and how far from them images usually lie.

    ``sample`` float32 [n, D]: their embeddings as unit vectors. ``usual`` float32 [m], sorted: cosine
    distances to the 5th nearest of the sample, of images that were not learned where the bundle has them.
    """

    sample: NDArray[np.float32]
    usual: NDArray[np.float32]

    def distance(self, embedding: NDArray[np.float32]) -> NDArray[np.float32]:
        """The cosine distance, 0 to 2, of embeddings [N, D] to their 5th nearest of the sample: [N]."""
        lengths = np.linalg.norm(embedding, axis=1, keepdims=True)
        distances = 1.0 - (embedding / np.maximum(lengths, _TINY)) @ self.sample.T
        k = min(NEIGHBOURS, len(self.sample))
        nearest: NDArray[np.float32] = np.partition(distances, k - 1, axis=1)[:, k - 1]
        return np.maximum(nearest, np.float32(0.0))

    def unusual(self, embedding: NDArray[np.float32]) -> NDArray[np.float32]:
        """The share (0 to 1) of the usual images that lie nearer to the training images than these do.

        float32 [N] of embeddings float32 [N, D]. What isn't finite has no neighbours: NaN.
        """
        found = np.full(len(embedding), np.nan, np.float32)
        finite = np.isfinite(embedding).all(axis=1)
        if finite.any():
            below = np.searchsorted(self.usual, self.distance(embedding[finite]), side="left")
            found[finite] = below / len(self.usual)
        return found


@dataclass(frozen=True, slots=True)
class Embedded:
    """N images' ``embedding`` float32 [N, D] and ``unusual`` float32 [N], NaN where that can't be told."""

    embedding: NDArray[np.float32]
    unusual: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Sight:
    """What a loaded bundle can say of an embedding. ``unavailable`` is why not all, for people; else None."""

    familiar: Familiar | None
    unavailable: str | None

    def embedded(self, embedding: NDArray[np.float32]) -> Embedded:
        """Embeddings [N, D] with what there is to say of them."""
        values = np.asarray(embedding, np.float32)
        if self.familiar is None:
            return Embedded(values, np.full(len(values), np.nan, np.float32))
        return Embedded(values, self.familiar.unusual(values))


def sight_of(bundle: Bundle, dim: int | None) -> Sight:
    """What a verified bundle whose embeddings have ``dim`` numbers (None: it gives none) can say.

    A bundle without a usable reference answers as well as any: the reason is kept for who asks.
    """
    if dim is None:
        return Sight(None, NO_EMBEDDING)
    if REFERENCE not in bundle.card.files:
        return Sight(None, _without(f"has no {REFERENCE}"))
    try:
        arrays = bundle.arrays(REFERENCE)
    except BundleError as error:
        return Sight(None, error.message)
    sample, usual = arrays.get("embedding_sample"), _usual(arrays)
    if not _fits(sample, 2) or not _fits(usual, 1):
        return Sight(None, _without("keeps no embeddings of its training images to compare with"))
    assert sample is not None
    assert usual is not None
    if sample.shape[1] != dim:
        return Sight(None, _without(f"keeps embeddings of {sample.shape[1]} numbers, the model gives {dim}"))
    values = sample.astype(np.float32)
    values /= np.maximum(np.linalg.norm(values, axis=1, keepdims=True), _TINY)
    return Sight(Familiar(values, np.sort(usual.astype(np.float32))), None)


def _usual(arrays: Mapping[str, NDArray[Any]]) -> NDArray[Any] | None:
    """Distances of held-out images; training images' own where the bundle has none."""
    held_out = arrays.get("drift.distance")
    if held_out is not None and held_out.dtype.kind == "f" and held_out.ndim == 1:
        # Those that the quality gate refused have none.
        found: NDArray[Any] = held_out[~np.isnan(held_out)]
        if len(found):
            return found
    return arrays.get("neighbour_distance")


def _fits(values: NDArray[Any] | None, dimensions: int) -> bool:
    return (
        values is not None
        and values.dtype.kind == "f"
        and values.ndim == dimensions
        and len(values) > 0
        and bool(np.isfinite(values).all())
    )


def _without(what: str) -> str:
    return f"The bundle {what}, so how unusual an image is can't be told."
