"""The gate's rule on groups: a version's worst slice must not fall behind the champion's.

The figure over all test images can rise while one group's falls. So for each column that the task names
(``ita_class``, the class of skin tone), both models are measured on each of its slices of the same test
images, and the version is refused

- when its worst slice is worse than the champion's worst by more than the margin, or
- when any slice is shown to have fallen by more than the margin: the upper end of the one-sided interval of
  the paired difference lies below minus the margin. A slice that isn't the worst may fall by chance; that it
  has is then unlikely.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .compare import LOWER_IS_BETTER, Answers, compare, measured


@dataclass(frozen=True, slots=True)
class SliceFall:
    """One slice under both models. More ``difference`` is better; ``high`` is its interval's upper end."""

    slice: str
    images: int
    candidate: float
    champion: float
    difference: float
    high: float
    fallen: bool


@dataclass(frozen=True, slots=True)
class SliceCheck:
    """One head and column: its slices, both models' worst ones, and what was too small to be judged."""

    head: str
    column: str
    metric: str
    margin: float
    slices: tuple[SliceFall, ...]
    left_out: tuple[str, ...]
    passed: bool

    @property
    def sentence(self) -> str:
        """For people."""
        if not self.slices:
            why = f" ({'; '.join(self.left_out)})" if self.left_out else ""
            return f"{self.head}: no slice by {self.column} could be compared{why}."
        ours, theirs = self.worst("candidate"), self.worst("champion")
        said = (
            f"{self.head}: worst slice by {self.column} is {ours.slice}, {self.metric} {ours.candidate:.4f}; "
            f"the champion's is {theirs.slice}, {theirs.champion:.4f}"
        )
        fallen = [item for item in self.slices if item.fallen]
        if fallen:
            told = ", ".join(
                f"{item.slice} {item.difference:+.4f} (at most {item.high:+.4f})" for item in fallen
            )
            said += f"; fallen for certain: {told}"
        return f"{said}. Allowed: a fall by {self.margin:g}."

    def worst(self, which: str) -> SliceFall:
        """The slice on which ``candidate`` or ``champion`` does worst."""
        sign = -1.0 if self.metric in LOWER_IS_BETTER else 1.0
        return min(self.slices, key=lambda item: sign * float(getattr(item, which)))

    def to_dict(self) -> dict[str, Any]:
        """JSON's own types."""
        return {
            **asdict(self),
            "slices": [asdict(item) for item in self.slices],
            "left_out": list(self.left_out),
            "sentence": self.sentence,
        }


def check_slices(
    head: str,
    column: str,
    candidate: Answers,
    champion: Answers,
    names: Mapping[str, str],
    *,
    metric: str,
    margin: float,
    smallest: int = 30,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> SliceCheck:
    """Compare two models on each slice of the same images; ``names`` gives an image's slice by its id.

    An image whose slice isn't known ("") is in none. A slice under ``smallest`` images, or on which the
    metric says nothing, is left out and listed.

    Raises:
        RegistryError: the models were asked about other images.
    """
    groups = np.array([names.get(each, "") for each in candidate.ids])
    sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
    found: list[SliceFall] = []
    left_out: list[str] = []
    for group in sorted(set(groups.tolist()) - {""}):
        chosen = np.flatnonzero(groups == group)
        if len(chosen) < smallest:
            left_out.append(f"{group}: {len(chosen)} images, fewer than {smallest}")
            continue
        ours, theirs = _take(candidate, chosen), _take(champion, chosen)
        if not np.isfinite([measured(metric, ours), measured(metric, theirs)]).all():
            left_out.append(f"{group}: {metric} is not defined on its {len(chosen)} images")
            continue
        # Turned about, the lower end of the champion's lead is the upper end of the candidate's, negated.
        lead = compare(
            head,
            theirs,
            ours,
            metric=metric,
            margin=margin,
            confidence=confidence,
            resamples=resamples,
            seed=seed,
        )
        found.append(
            SliceFall(
                slice=group,
                images=len(chosen),
                candidate=lead.champion,
                champion=lead.candidate,
                difference=-lead.difference,
                high=-lead.low,
                fallen=lead.low > margin,
            )
        )
    worst_fell = bool(found) and (
        min(sign * item.champion for item in found) - min(sign * item.candidate for item in found) > margin
    )
    passed = not worst_fell and not any(item.fallen for item in found)
    return SliceCheck(head, column, metric, margin, tuple(found), tuple(left_out), passed)


def _take(one: Answers, chosen: NDArray[np.intp]) -> Answers:
    return Answers(tuple(one.ids[i] for i in chosen), one.truth[chosen], one.probabilities[chosen])
