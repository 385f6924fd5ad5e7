"""From values to the columns whose means are compared.

Every measure is a set of columns: a shift is a difference between the reference's column means and the
window's. Shares are means of zeros and ones, and a distribution is described by the shares below fixed cuts,
so one kind of statistic and one way to its threshold serve all of them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: Cuts of a distribution: at 5 %, 10 %, … 95 % of the reference.
_SHARES = np.linspace(0.05, 0.95, 19)
#: An embedding beyond this many deviations counts as this far, so that one absurd image is no shift.
_FARTHEST = 5.0

#: What `tones` gives, in this order.
TONES = ("warmth", "tint", "brightness", "contrast")


def cuts_of(values: Floats) -> Floats:
    """The values at which a distribution is compared [J], from the reference's values [n] without NaN."""
    found = np.unique(np.quantile(values, _SHARES))
    # At the largest value every share is 1 whatever comes, and nothing could be compared.
    inner = found[found < values.max()]
    return np.asarray(inner if len(inner) else found[:1], dtype=np.float64)


def below(values: Floats, cuts: Floats) -> Floats:
    """For each value [n] whether it is at most each cut: 0 or 1, [n, J]; a row of NaN for a NaN."""
    inside = (values[:, None] <= cuts[None, :]).astype(np.float64)
    inside[np.isnan(values)] = np.nan
    return inside


def tones(colour: Floats) -> Floats:
    """What a camera and its light do to an image's colours, [n, 4], from means and deviations [n, 6].

    ``warmth`` ln(R / B) and ``tint`` ln(G / √(R B)) don't change with exposure; ``brightness`` is the mean of
    the channels and ``contrast`` the mean of their deviations, in grey levels.
    """
    red, green, blue = (colour[:, :3] + 1.0).T
    return np.stack(
        [
            np.log(red / blue),
            np.log(green / np.sqrt(red * blue)),
            colour[:, :3].mean(axis=1),
            colour[:, 3:].mean(axis=1),
        ],
        axis=1,
    )


def principal(embedding: Floats, mean: Floats, components: Floats) -> Floats:
    """Embeddings [n, D] along the reference's principal directions [k, D]: [n, k]."""
    return np.asarray((embedding - mean) @ components.T)


def deviations(scores: Floats, centre: Floats, spread: Floats) -> Floats:
    """Principal scores [n, k] in the reference's own deviations, held to what one image may count."""
    return np.asarray(np.clip((scores - centre) / spread, -_FARTHEST, _FARTHEST))


def neighbour_distance(embedding: Floats, sample: Floats, neighbours: int) -> Floats:
    """Each embedding's [n, D] cosine distance to its ``neighbours``-th nearest of ``sample`` [m, D]: [n].

    NaN where the embedding is.
    """
    own, other = _unit(embedding), _unit(sample)
    distances = 1.0 - own @ other.T
    k = min(neighbours, len(other)) - 1
    # A row of NaN stays one: partition would sort it, and every place of it is NaN.
    nearest = np.partition(distances, k, axis=1)[:, k]
    return np.asarray(np.where(np.isnan(nearest), np.nan, np.maximum(nearest, 0.0)))


def _unit(vectors: Floats) -> Floats:
    values = np.asarray(vectors, dtype=np.float64)
    return np.asarray(values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12))
