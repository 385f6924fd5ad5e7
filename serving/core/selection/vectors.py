"""Embeddings as distances and gradients should see them."""

from __future__ import annotations

import numpy as np

from serving.core.selection.pool import Floats


def comparable(embeddings: Floats, reference: Floats) -> Floats:
    """[n, D] embeddings at unit length, less the mean of the ``reference`` [r, D] at unit length, float32.

    A mean of activations that are never negative points nearly the same way for every image; without what all
    have in common, what differs counts. Use one reference for the pool and for what is labelled, such as a
    bundle's ``embedding_sample``. Rows that are NaN stay so.
    """
    return np.asarray(_unit(embeddings) - _unit(reference).mean(axis=0), np.float32)


def _unit(embeddings: Floats) -> Floats:
    lengths = np.linalg.norm(embeddings.astype(np.float32), axis=1, keepdims=True)
    return np.asarray(embeddings / np.maximum(lengths, 1e-12), np.float32)
