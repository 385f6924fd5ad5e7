"""Choosing a coreset: this project, a plain loop, and anomalib's ``KCenterGreedy`` on the same embeddings.

Every run is a fresh process that loads the embeddings whole, times the choice alone and tells its highest
resident memory. The order of the contenders turns from round to round; the fastest of a contender's rounds
counts, being the least disturbed one. Every selection is judged in float64 afterwards.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.anomaly.arithmetic import first_difference
from benchmarks.anomaly.environment import run
from benchmarks.anomaly.records import Part

OURS, PLAIN, ANOMALIB = "retiderm", "plain loop", "anomalib KCenterGreedy"

#: float64's own rounding of squared distances between unit vectors.
GREEDY = 1e-12
#: What one selection may take of memory at a million patches, the embeddings included.
MEMORY_MIB = 4e9 / 2**20


@dataclass(frozen=True, slots=True)
class Case:
    """One set of embeddings: which, how many, how many of them are chosen, and who competes."""

    data: str
    rows: int
    count: int
    against: str
    rounds: int
    #: How many times faster than the other at least; None: told, not judged.
    least: float | None
    bounded: bool = False

    @property
    def name(self) -> str:
        """How results call it."""
        return f"{self.data}, {self.rows:,} to {self.count:,}"


@dataclass
class Taken:
    """What a contender's rounds took."""

    seconds: list[float]
    peak_mib: float
    before_mib: float
    selections: list[Path]


def compete(case: Case, embeddings: Path, folder: Path, threads: int, python: Path) -> dict[str, Taken]:
    """Run every contender in every round. Ours begins the first, since it draws the plain loop's start."""
    found: dict[str, Taken] = {}
    start = -1
    names = [OURS, case.against]
    for number in range(case.rounds):
        for name in names[number % 2 :] + names[: number % 2]:
            indices = folder / f"{name.replace(' ', '-')}-{number}.npy"
            job = {
                "embeddings": str(embeddings),
                "count": case.count,
                "indices": str(indices),
                "start": start,
            }
            # Theirs begins at random: another seed a round. Ours and the loop choose the same every time.
            job["seed"] = number if name == ANOMALIB else 0
            task = {OURS: "select", PLAIN: "plain", ANOMALIB: "coreset"}[name]
            answer = run(python if name == ANOMALIB else None, task, job, threads)
            start = answer.get("start", start)
            taken = found.setdefault(name, Taken([], 0.0, 0.0, []))
            taken.seconds.append(answer["seconds"])
            taken.peak_mib = max(taken.peak_mib, answer["peak_mib"])
            taken.before_mib = max(taken.before_mib, answer["before_mib"])
            taken.selections.append(indices)
            print(f"    round {number + 1} of {case.rounds}: {name} {answer['seconds']:.2f} s", flush=True)
    return found


def tell(part: Part, case: Case, found: dict[str, Taken], judged: dict[str, Any]) -> None:
    """The figures and points of one case. ``judged`` has radius and gap by ``<contender> <round>``."""
    for name, taken in found.items():
        radii = [judged[f"{name} {n}"]["radius"] for n in range(len(taken.selections))]
        part.add(case.name, name, "time, fastest round", min(taken.seconds), "s", f"{case.rounds} rounds")
        part.add(case.name, name, "time, median round", statistics.median(taken.seconds), "s")
        part.add(case.name, name, "peak resident memory", taken.peak_mib, "MiB")
        part.add(
            case.name, name, "resident before it began", taken.before_mib, "MiB", "libraries and embeddings"
        )
        part.add(case.name, name, "cover radius, smallest round", min(radii) ** 0.5, "L2")
    ours, other = found[OURS], found[case.against]
    if case.least is not None:
        ratio = min(other.seconds) / min(ours.seconds)
        part.hold(f"{case.name}: times faster than {case.against}", ratio, ">=", case.least)
    if case.against == ANOMALIB:
        theirs = min(judged[f"{ANOMALIB} {n}"]["radius"] for n in range(case.rounds))
        mine = judged[f"{OURS} 0"]["radius"]
        # Of squared distances, where a ratio above 1 is larger than that of the distances themselves.
        part.hold(f"{case.name}: cover radius (squared) over its smallest", mine / theirs, "<=", 1.02)
    else:
        same, note = agreement(found, judged)
        part.hold(f"{case.name}: same selection as the plain loop", float(same), ">=", 1, note)
    if case.bounded:
        part.hold(f"{case.name}: peak memory, MiB", ours.peak_mib, "<=", round(MEMORY_MIB), "4 GB")


def agreement(found: dict[str, Taken], judged: dict[str, Any]) -> tuple[bool, str]:
    """Whether ours and the plain loop chose the same, and how that was seen.

    Where they part, one of two points at nearly the same distance was taken, and the loop's float32 may have
    taken the nearer: then float64 decides, and ours counts as the same selection only if each of its choices
    was the farthest point, exactly.
    """
    ours, loop = (np.load(found[name].selections[0], allow_pickle=False) for name in (OURS, PLAIN))
    place = first_difference(ours, loop)
    if place is None:
        return True, "identical"
    mine, theirs = judged[f"{OURS} 0"]["gap"], judged[f"{PLAIN} 0"]["gap"]
    note = f"part at choice {place}; in float64 ours is off by {mine:.1e}, the float32 loop by {theirs:.1e}"
    return mine <= GREEDY and theirs > GREEDY, note


def measure(case: Case, embeddings: Path, part: Part, folder: Path, threads: int, python: Path) -> None:
    """One case: let the contenders choose, then judge what each chose in every round."""
    found = compete(case, embeddings, folder, threads, python)
    selections = {f"{k} {n}": str(p) for k, v in found.items() for n, p in enumerate(v.selections)}
    judged = run(None, "judge", {"embeddings": str(embeddings), "selections": selections}, threads)
    tell(part, case, found, judged)
