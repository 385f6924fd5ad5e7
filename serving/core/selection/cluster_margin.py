"""Cluster-margin: doubtful images, no two of a kind before every kind has one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from serving.core.selection.base import Choice
from serving.core.selection.linkage import average_linkage
from serving.core.selection.pool import Candidates
from serving.core.selection.uncertainty import margin, mean_doubt

#: Rows that are clustered at once: their distances take 64 MiB.
LARGEST = 4096


@dataclass(frozen=True, slots=True)
class ClusterMargin:
    """The ``factor`` · k least margins, clustered; then a random one of each cluster in turn, small ones
    first.

    Citovsky, DeSalvo, Gentile, Karydas, Rajagopalan, Rostamizadeh and Kumar, Batch Active Learning at Scale,
    NeurIPS 2021. They cluster the whole pool once and cut its tree at a distance; here the doubtful images
    alone are clustered, into k clusters, so that no distance has to be set for each backbone. A score is the
    margin's doubt.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"probabilities", "embeddings"})
    factor: float = 10.0

    def choose(self, candidates: Candidates, k: int, rng: np.random.Generator) -> Choice:
        """See :class:`~serving.core.selection.base.Strategy`."""
        doubt = mean_doubt(margin, candidates)
        count = max(k, min(len(candidates), int(np.ceil(self.factor * k)), LARGEST))
        rows = np.sort(np.argsort(-doubt, kind="stable")[:count])
        cluster = average_linkage(candidates.vectors()[rows], k) if count <= LARGEST else np.arange(count)
        waiting = [rng.permutation(rows[cluster == number]).tolist() for number in range(cluster.max() + 1)]
        waiting.sort(key=len)
        chosen: list[int] = []
        while len(chosen) < k:
            for members in waiting:
                if members and len(chosen) < k:
                    chosen.append(members.pop())
        found = np.array(chosen, np.int64)
        return Choice(found, doubt[found])
