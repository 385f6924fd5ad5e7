"""A round of the benchmark: some strategies on some seeds, in as many processes as there are cores."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.loop.judge import Values, compare
from benchmarks.loop.study import BASELINE, Asked, Study, curve, cut, full
from data.progress import track

#: What is recorded of every point beside the number of labels.
FIGURES = ("auc", "kappa", "balanced_accuracy")


@dataclass(frozen=True, slots=True)
class Phase:
    """``values``: by strategy and figure float64 [seeds, points]; ``full``: by figure [seeds], all labels.

    ``pool`` and ``judges``: how many images each seed may label, and how many judge it.
    """

    seeds: tuple[int, ...]
    confirm: bool
    labels: tuple[int, ...]
    values: Mapping[str, Mapping[str, Values]]
    full: Mapping[str, Values]
    pool: tuple[int, ...]
    judges: tuple[int, ...]

    @property
    def judged_on(self) -> str:
        """The part of the set that the figures are from."""
        return "test" if self.confirm else "validation"

    def verdict(self, strategy: str, metric: str) -> dict[str, Any]:
        """What a strategy needs, and what it saves over random: :func:`benchmarks.loop.judge.compare`."""
        mine, other = self.values[strategy][metric], self.values[BASELINE][metric]
        return compare(self.labels, mine, other, self.full[metric])

    def told(self) -> dict[str, Any]:
        """What the JSON says of the phase, the verdicts apart."""
        return {
            "seeds": list(self.seeds),
            "judged_on": self.judged_on,
            "pool_images": list(self.pool),
            "judging_images": list(self.judges),
            "all_labels": {name: float(values.mean()) for name, values in self.full.items()},
            "all_labels_by_seed": {name: values.tolist() for name, values in self.full.items()},
        }


def simulate(
    study: Study, path: Path, strategies: Sequence[str], seeds: Sequence[int], *, confirm: bool, workers: int
) -> Phase:
    """Every strategy's curve on every seed, judged on validation images, or to confirm on test images."""
    asked = [Asked(path, study.labels, name, seed, confirm) for seed in seeds for name in strategies]
    # A seed's first question each: what all its labels give.
    whole = asked[:: len(strategies)]
    # The children read this when they start; two threads in each of two processes would wait for each other.
    os.environ["OMP_NUM_THREADS"] = "1"
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        scores = list(pool.map(full, whole))
        sizes = list(pool.map(_sizes, whole))
        what = f"{study.name}, {'confirming' if confirm else 'choosing'}"
        points = list(track(pool.map(curve, asked), what, total=len(asked)))
    return Phase(
        seeds=tuple(seeds),
        confirm=confirm,
        labels=study.labels,
        values={
            name: {
                figure: np.array(
                    [[point[figure] for point in line] for line in points[place :: len(strategies)]]
                )
                for figure in (*FIGURES, "rarest")
            }
            for place, name in enumerate(strategies)
        },
        full={figure: np.array([score[figure] for score in scores]) for figure in FIGURES},
        pool=tuple(pool for pool, _ in sizes),
        judges=tuple(judges for _, judges in sizes),
    )


def _sizes(asked: Asked) -> tuple[int, int]:
    part = cut(asked.path, asked.seed)
    return len(part.pool), len(part.test if asked.confirm else part.val)
