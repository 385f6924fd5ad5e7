"""Average-linkage clustering of a few thousand rows, by the nearest-neighbour chain (Murtagh 1983)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from serving.core.selection.pool import Floats, Rows


def average_linkage(x: Floats, clusters: int) -> Rows:
    """Of each row of [n, D] its cluster, int64 [n], numbered from 0 by their first rows.

    Euclidean distances; the two clusters merge whose members are nearest in the mean, until ``clusters`` are
    left. Average linkage is reducible, so merging mutual nearest neighbours in any order and sorting the
    merges by height gives the same tree. O(n²) time and 4 n² bytes.
    """
    n = len(x)
    merges = _merges(x) if clusters < n else []
    merges.sort(key=lambda merge: merge[0])  # stable: of equal heights the first found is first
    parent = np.arange(n)

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = int(parent[row])
        return row

    for _, left, right in merges[: n - max(clusters, 1)]:
        one, other = root(left), root(right)
        parent[max(one, other)] = min(one, other)
    roots = np.array([root(row) for row in range(n)], np.int64)
    return np.unique(roots, return_inverse=True)[1].astype(np.int64)


def _merges(x: Floats) -> list[tuple[float, int, int]]:
    """The n − 1 merges: height, and a row of each side."""
    n = len(x)
    distances = _distances(x)
    sizes = np.ones(n, np.float32)
    alive = np.ones(n, bool)
    merges: list[tuple[float, int, int]] = []
    chain: list[int] = []
    while len(merges) < n - 1:
        if not chain:
            chain.append(int(alive.argmax()))
        while True:
            row = chain[-1]
            near = int(distances[row].argmin())
            # Ties go back along the chain, or it would run in a circle.
            if len(chain) > 1 and distances[row, chain[-2]] <= distances[row, near]:
                near = chain[-2]
                break
            chain.append(near)
        height = float(distances[row, near])
        del chain[-2:]
        keep, gone = min(row, near), max(row, near)
        total = sizes[keep] + sizes[gone]
        joined = (sizes[keep] * distances[keep] + sizes[gone] * distances[gone]) / total
        joined[keep] = joined[gone] = np.inf
        distances[keep], distances[:, keep] = joined, joined
        distances[gone] = distances[:, gone] = np.inf
        sizes[keep], alive[gone] = total, False
        merges.append((height, keep, gone))
    return merges


def _distances(x: Floats) -> NDArray[np.float32]:
    """Euclidean distances [n, n], infinite on the diagonal."""
    moved = x - x.mean(axis=0)
    lengths = np.square(moved).sum(axis=1)
    squared = lengths[:, None] + lengths[None, :] - 2.0 * (moved @ moved.T)
    distances = np.sqrt(np.maximum(squared, 0.0, dtype=np.float32))
    distances = np.minimum(distances, distances.T)  # equal to the bit on both sides
    np.fill_diagonal(distances, np.inf)
    return np.asarray(distances, np.float32)
