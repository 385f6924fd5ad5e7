"""The three parts: what each compares, on how much, with which settings."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.anomaly import coreset, latency, quality
from benchmarks.anomaly.environment import run
from benchmarks.anomaly.extractors import made, task_settings, theirs
from benchmarks.anomaly.records import Part
from data.files import canonical_json

SUFFIXES = {".png", ".jpg", ".jpeg"}
#: The ROI's side for which contract S4's service is set by default.
SIDE = 448
#: Levels of EfficientNet-Lite0 with 24, 40 and 320 channels: 384 together, as long as DINOv2's patches are.
WIDE = {"input_size": SIDE, "patchcore.layers": [1, 2, 4], "patchcore.stride": 8, "patchcore.project": None}
DIM = 384
#: Photographs of a folder that features are taken of, at most.
PHOTOGRAPHS = 500


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured.

    ``few``, ``many``, ``most``: patches, with the rounds of each. ``asked``: rounds of ``/infer``.
    ``fitted``: OK images in its memory; ``studies``: how many of its studies. ``memory`` of ``share`` patches
    is what anomalib's AUROC is given; ``learned``: OK images for it. ``size``: the task's extractor at this
    input size everywhere.
    """

    few: tuple[int, int] = (34_992, 3)
    many: tuple[int, int] = (200_000, 2)
    most: tuple[int, int] = (1_000_000, 1)
    count: int = 700
    asked: int = 40
    fitted: int = 40
    memory: int = 1000
    share: int = 100_000
    learned: int | None = None
    studies: int | None = None
    size: int | None = None


#: Enough to see that everything works, with one extractor for all parts.
SMALL = Scale((2000, 1), (3000, 1), (5000, 1), 40, 3, 4, 50, 2000, learned=8, studies=1, size=SIDE)


@dataclass
class Run:
    """What every part needs: images, how much, threads, anomalib's interpreter, a folder to work in."""

    root: Path
    more: Sequence[Path]
    scale: Scale
    threads: int
    python: Path
    work: Path
    began: float
    extractors: dict[str, Path] = field(default_factory=dict)

    @property
    def train(self) -> list[Path]:
        """The OK images to learn from."""
        return images(self.root / "train" / "good")

    @property
    def test(self) -> list[Path]:
        """The test images, of every kind."""
        return images(self.root / "test")

    def say(self, what: str) -> None:
        """A line of progress, with the seconds since the beginning."""
        print(f"[{time.monotonic() - self.began:5.0f} s] {what}", flush=True)

    def extractor(self, changes: Mapping[str, Any]) -> Path:
        """The task's extractor with these changes; exported once a run."""
        key = canonical_json(changes)
        if key not in self.extractors:
            self.say(f"exporting the extractor {dict(changes)}")
            self.extractors[key] = made(
                self.work / f"extractor-{len(self.extractors)}", changes, self.threads
            )
        return self.extractors[key]


def images(folder: Path) -> list[Path]:
    """The images below a folder, in order."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not found:
        sys.exit(f"No images below {folder}.")
    return found


def named(folder: Path) -> str:
    """How results call a folder of photographs: by its own name, where that says something."""
    found = folder.resolve()
    return found.parent.name if found.name in ("images", "train", "good") else found.name


def plan(given: Run) -> list[tuple[coreset.Case, list[Path] | None]]:
    """The coreset's cases with the photographs of each; None: vectors drawn at random."""
    scale, name = given.scale, given.root.name

    def case(
        data: str, size: tuple[int, int], against: str, least: float, bounded: bool = False
    ) -> coreset.Case:
        return coreset.Case(data, size[0], scale.count, against, size[1], least, bounded)

    loop = coreset.PLAIN
    return [
        (case(name, scale.few, coreset.ANOMALIB, 10), given.train),
        (case(name, scale.many, loop, 3), given.train),
        *((case(named(more), scale.many, loop, 3), images(more)) for more in given.more),
        (case(name, scale.most, loop, 3, True), given.train),
        (case("gaussian", scale.many, loop, 1), None),
        (case("gaussian", scale.most, loop, 1, True), None),
    ]


def run_coreset(given: Run) -> Part:
    """35k against anomalib; 200k and a million, real and Gaussian, against the plain loop."""
    features = WIDE if given.scale.size is None else {"input_size": given.scale.size}
    extractor = given.extractor(features)
    part = Part("coreset", {"features": features, "gaussian": "unit vectors in directions drawn at random"})
    sources = part.settings["sources"] = {}
    for case, paths in plan(given):
        given.say(f"coreset: {case.name}, against {case.against}")
        # One set of embeddings at a time: a million patches are 1.5 GB.
        with tempfile.TemporaryDirectory(dir=given.work) as place:
            out = Path(place) / "embeddings.npy"
            job: dict[str, Any] = {"out": str(out), "count": case.rows, "seed": 0}
            if paths is None:
                run(None, "gaussian", {**job, "dim": DIM}, given.threads)
            else:
                spread = paths[:: max(1, len(paths) // PHOTOGRAPHS)][:PHOTOGRAPHS]
                job |= {"extractor": str(extractor), "images": [str(path) for path in spread]}
                sources[case.name] = run(None, "features", job, given.threads)
            coreset.measure(case, out, part, Path(place), given.threads, given.python)
    return part


def run_latency(given: Run) -> Part:
    """``/infer`` with the task's own layers, and with two layers that have one grid on both sides."""
    scale, settings = given.scale, task_settings()
    part = Part(
        "latency",
        {
            "images": f"{scale.fitted} OK images fitted, PNG of {SIDE} x {SIDE}",
            "rounds": scale.asked,
            "pause_s": latency.PAUSE,
            "task": settings,
        },
    )
    studies: dict[str, tuple[Sequence[int], dict[str, Any]]] = {
        "the task's layers": (settings["layers"], {}),
        "layers 2 and 3, one grid": ((2, 3), {"patchcore.layers": [2, 3], "patchcore.stride": None}),
    }
    for study, (layers, changes) in list(studies.items())[: scale.studies]:
        extractor = given.extractor({"input_size": SIDE, **changes})
        given.say(f"latency: {study}, {tuple(layers)}")
        asked = (given.train[: scale.fitted], given.test)
        job = theirs(extractor, layers)
        latency.measure(part, study, extractor, job, asked, scale.asked, given.threads, given.python)
    return part


def run_quality(given: Run) -> Part:
    """AUROC with the settings of the task ``anomaly``."""
    scale, settings = given.scale, task_settings()
    extractor = given.extractor({} if scale.size is None else {"input_size": scale.size})
    given.say(f"quality: {given.root.name}")
    train = [str(path) for path in given.train[: scale.learned]]
    test = [str(path) for path in given.test]
    ours = {"extractor": str(extractor), "train": train, "test": test, "memory": scale.memory}
    # anomalib's grid is its finest layer's, so that it has more patches; its own coreset is given a random
    # share of them, since all of them would take it hours.
    limits = {"count": scale.memory, "max_patches": scale.share, "neighbours": [9, 1], "seed": 0}
    other = {**theirs(extractor, settings["layers"]), **limits, "train": train, "test": test}
    told = {key: value for key, value in other.items() if key not in ("train", "test", "weights")}
    counts = {"train_images": len(train), "test_images": len(test)}
    part = Part("quality", {**counts, "task": settings, "anomalib": told})
    with tempfile.TemporaryDirectory(dir=given.work) as place:
        quality.measure(part, ours, other, given.root, Path(place), given.threads, given.python)
    return part


PARTS = {"coreset": run_coreset, "latency": run_latency, "quality": run_quality}
