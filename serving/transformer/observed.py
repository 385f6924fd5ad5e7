"""What is said of a batch's images beside their answers, where a request asks for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data.errors import ImageError
from serving.features.columns import Features, colour
from serving.features.unusual import NO_EMBEDDING, Embedded
from serving.preparing import Ready, Recipe
from serving.transformer.upstream import Upstream

_SILENT = "The predictor says nothing of embeddings: it is of an earlier release."


@dataclass(frozen=True, slots=True)
class Observed:
    """One entry an image, None for one that can't be decoded; ``dim`` numbers an embedding, None for none.

    ``unavailable`` says what the model can't tell, and why.
    """

    images: tuple[Features | None, ...]
    dim: int | None
    unavailable: str | None


def observe(recipe: Recipe, prepared: Sequence[Ready | ImageError], upstream: Upstream | None) -> Observed:
    """Put together what the pixels, the quality gate and the predictor say. For a thread: it reads pixels."""
    embedded = upstream.embedded if upstream is not None else None
    dim = recipe.kind.embedding(recipe.card) if embedded is None else embedded.embedding.shape[1]
    unavailable = upstream.unavailable if upstream is not None else None
    if dim is None:
        unavailable = unavailable or NO_EMBEDDING
    elif upstream is not None and embedded is None:
        unavailable = unavailable or _SILENT
    images: list[Features | None] = []
    at = 0
    for item in prepared:
        if isinstance(item, ImageError):
            images.append(None)
            continue
        images.append(_features(item, embedded if item.gradable else None, at))
        at += item.gradable
    return Observed(tuple(images), dim, unavailable)


def _features(item: Ready, embedded: Embedded | None, at: int) -> Features:
    """``at``: which of the images that went to the model it is."""
    share = np.nan if embedded is None else float(embedded.unusual[at])
    return Features(
        embedding=None if embedded is None else embedded.embedding[at],
        unusual=None if np.isnan(share) else share,
        colour=colour(item.pixels),
        sharpness=item.verdict.scores.get("sharpness"),
        exposure=item.verdict.scores.get("exposure"),
    )
