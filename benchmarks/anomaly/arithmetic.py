"""What the comparison itself computes: the plain loop to beat, and an exact judge of any selection."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

#: Points at once in the judge: 8192 x 700 distances in float64 are 46 MB.
_BLOCK = 8192


def plain_select(embeddings: NDArray[np.float32], count: int, start: int) -> NDArray[np.int64]:
    """k-center greedy as a plain loop: one matrix-vector product a step, nothing skipped, nothing copied.

    ``embeddings`` float32 [n, D]. Squared distances are written as ``|x|^2 + |c|^2 - 2 x.c`` with the norms
    computed once, and every array of a step is used again in the next.
    """
    norms = np.einsum("nd,nd->n", embeddings, embeddings)
    nearest = np.full(len(embeddings), np.inf, np.float32)
    distances = np.empty(len(embeddings), np.float32)
    chosen = np.empty(count, np.int64)
    chosen[0] = start
    for step in range(1, count):
        center = chosen[step - 1]
        np.dot(embeddings, embeddings[center], out=distances)
        distances *= -2
        distances += norms
        distances += norms[center]
        np.minimum(nearest, distances, out=nearest)
        chosen[step] = nearest.argmax()
    return chosen


@dataclass(frozen=True, slots=True)
class Judged:
    """A selection, judged in float64.

    ``radius``: squared distance of the point that lies farthest from its nearest centre. ``gap``: the most by
    which a chosen centre was nearer than the farthest point of its moment; 0 where every choice was greedy,
    but for float64's own rounding (1e-15).
    """

    radius: float
    gap: float


def judge(embeddings: NDArray[np.float32], indices: NDArray[np.int64]) -> Judged:
    """Hold each choice against the farthest point of its moment, for all moments in one pass over the points.

    A block of points against all centres gives the distance to the nearest of the first k centres for every k
    by a running minimum; the largest over all blocks is what the choice k + 1 must have had. One matrix
    product in float64 altogether, where a replay would need one a step.
    """
    centers = embeddings[indices].astype(np.float64)
    lengths = np.einsum("kd,kd->k", centers, centers)
    farthest = np.full(len(indices), -np.inf)
    own = np.empty(len(indices))
    for begin in range(0, len(embeddings), _BLOCK):
        points = embeddings[begin : begin + _BLOCK].astype(np.float64)
        distances = points @ centers.T
        distances *= -2
        distances += np.einsum("nd,nd->n", points, points)[:, None]
        distances += lengths
        np.maximum(distances, 0, out=distances)
        np.minimum.accumulate(distances, axis=1, out=distances)
        np.maximum(farthest, distances.max(axis=0), out=farthest)
        for step in np.flatnonzero((indices >= begin) & (indices < begin + len(points))):
            # Column k is the distance to the first k + 1 centres: a choice is judged by the one before.
            own[step] = distances[indices[step] - begin, step - 1] if step else np.inf
    return Judged(float(farthest[-1]), float((farthest[:-1] - own[1:]).max(initial=0.0)))


def first_difference(one: NDArray[np.int64], other: NDArray[np.int64]) -> int | None:
    """The first place where two selections differ, ``None`` where they are the same."""
    if len(one) != len(other):
        return min(len(one), len(other))
    differ = np.flatnonzero(one != other)
    return int(differ[0]) if len(differ) else None


def gaussian(path: Path, count: int, dim: int, seed: int) -> None:
    """Write unit vectors in directions drawn at random, float32 [count, dim]: no structure to make use of."""
    rng = np.random.default_rng(seed)
    out = np.lib.format.open_memmap(path, "w+", np.float32, (count, dim))
    for begin in range(0, count, 65536):
        part = rng.standard_normal((min(65536, count - begin), dim), dtype=np.float32)
        part /= np.linalg.norm(part, axis=1, keepdims=True)
        out[begin : begin + len(part)] = part
    out.flush()


def peak_mib(field: str = "VmHWM") -> float:
    """This process's highest resident memory since it began (``VmRSS``: the present one), in MiB.

    ``ru_maxrss`` would count the parent's as well, since it outlives the exec.
    """
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {field}")
