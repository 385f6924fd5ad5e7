"""PatchCore side by side with anomalib's current release, in one run: coreset, ``/infer``, AUROC.

Run::

    python -m benchmarks.anomaly --mvtec /data/mvtec/screw --more /data/ham10000/images

Three parts, each of which can be run alone with ``--parts``: ``coreset`` (35k, 200k and a million patches;
a plain loop and anomalib's ``KCenterGreedy`` beside ours), ``latency`` (a warm ``/infer`` at 448, a row a
step) and ``quality`` (AUROC). Results go to ``benchmarks/results/anomaly.json``, ``anomaly.csv`` (every
figure) and ``anomaly_points.csv`` (pass or fail of each thing that must hold); a part that is not run keeps
what is stored of it. Ends with 1 when a point fails.

anomalib is installed into an environment of its own by the first run. Its pretrained weights would come from
the hub; it gets this project's default ones (EfficientNet-Lite0) as a file instead, with the normalisation
that belongs to them. ``--small`` shows in a minute that everything works; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.anomaly import coreset, latency, quality
from benchmarks.anomaly.environment import folder as bench_folder
from benchmarks.anomaly.environment import install, run
from benchmarks.anomaly.extractors import made, task_settings, theirs
from benchmarks.anomaly.records import Part, merge, section, write
from data.provenance import cpu_quota

OUT = Path(__file__).parents[1] / "results" / "anomaly.json"
PARTS = ("coreset", "latency", "quality")
SUFFIXES = {".png", ".jpg", ".jpeg"}
#: The ROI's side for which contract S4's service is set by default.
SIDE = 448
#: Levels of EfficientNet-Lite0 with 24, 40 and 320 channels: 384 together, as long as DINOv2's patches are.
WIDE = {"input_size": SIDE, "patchcore.layers": [1, 2, 4], "patchcore.stride": 8, "patchcore.project": None}


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured. ``images``: OK images that ``/infer``'s memory is made of."""

    few: int = 34_992
    many: int = 200_000
    most: int = 1_000_000
    count: int = 700
    rounds: int = 3
    asked: int = 40
    images: int = 40
    memory: int = 1500
    patches: int = 150_000
    train: int | None = None


SMALL = Scale(
    few=2000, many=3000, most=5000, count=40, rounds=1, asked=3, images=4, memory=50, patches=2000, train=8
)


@dataclass(frozen=True, slots=True)
class Run:
    """What every part needs: the images, how much, the machine's threads, anomalib's interpreter."""

    root: Path
    more: Sequence[Path]
    scale: Scale
    threads: int
    python: Path
    work: Path
    began: float

    @property
    def train(self) -> list[Path]:
        """The OK images to learn from."""
        return images(self.root / "train" / "good")[: self.scale.train]

    @property
    def test(self) -> list[Path]:
        """The test images, of every kind."""
        return images(self.root / "test")


def images(folder: Path) -> list[Path]:
    """The images below a folder, in order."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not found:
        sys.exit(f"No images below {folder}.")
    return found


def run_coreset(given: Run) -> Part:
    """35k against anomalib; 200k and a million, real and Gaussian, against the plain loop."""
    scale, name = given.scale, given.root.name
    wide = made(given.work / "wide", WIDE, given.threads)
    part = Part(
        "coreset",
        {
            "features": {"backbone": "tf_efficientnet_lite0", **WIDE},
            "gaussian": "unit vectors in directions drawn at random",
            "sources": {},
        },
    )
    rounds = scale.rounds
    plan = [
        (coreset.Case(name, scale.few, scale.count, coreset.ANOMALIB, rounds, 10), given.train),
        (coreset.Case(name, scale.many, scale.count, coreset.PLAIN, rounds, 3), given.train),
        *(
            (coreset.Case(more.name, scale.many, scale.count, coreset.PLAIN, rounds, 3), images(more))
            for more in given.more
        ),
        (
            coreset.Case(name, scale.most, scale.count, coreset.PLAIN, max(1, rounds - 1), 3, True),
            given.train,
        ),
        (coreset.Case("gaussian", scale.many, scale.count, coreset.PLAIN, rounds, 1), None),
        (coreset.Case("gaussian", scale.most, scale.count, coreset.PLAIN, max(1, rounds - 1), 1, True), None),
    ]
    for case, paths in plan:
        # One file at a time: a million patches are 1.5 GB.
        with tempfile.TemporaryDirectory(dir=given.work) as place:
            out = Path(place) / "embeddings.npy"
            job: dict[str, Any] = {"out": str(out), "count": case.rows, "seed": 0}
            if paths is None:
                run(None, "gaussian", {**job, "dim": 384}, given.threads)
            else:
                # No more photographs than it takes, spread over the folder.
                step = max(1, len(paths) // 500)
                job |= {"extractor": str(wide), "images": [str(path) for path in paths[::step][:500]]}
                part.settings["sources"][case.name] = run(None, "features", job, given.threads)
            coreset.measure([(case, out)], part, Path(place), given.threads, given.python, given.began)
    return part


def run_latency(given: Run) -> Part:
    """``/infer`` with the task's own layers, and with two layers that have one grid on both sides."""
    scale = given.scale
    settings = task_settings()
    part = Part(
        "latency",
        {
            "images": f"{scale.images} OK images fitted, PNG of {SIDE} x {SIDE}",
            "rounds": scale.asked,
            "pause_s": latency.PAUSE,
        },
    )
    studies: dict[str, tuple[Sequence[int], dict[str, Any]]] = {
        "the task's layers": (settings["layers"], {}),
        "layers 2 and 3, one grid": ((2, 3), {"patchcore.layers": [2, 3], "patchcore.stride": None}),
    }
    for number, (study, (layers, changes)) in enumerate(studies.items()):
        print(f"[{time.monotonic() - given.began:5.0f} s] latency: {study}, {tuple(layers)}", flush=True)
        folder = given.work / f"latency-{number}"
        extractor = made(folder, {"input_size": SIDE, **changes}, given.threads)
        asked = (given.train[: scale.images], given.test)
        job = theirs(extractor, layers)
        latency.measure(part, study, extractor, job, asked, scale.asked, given.threads, given.python)
    return part


def run_quality(given: Run) -> Part:
    """AUROC with the settings of the task ``anomaly``."""
    scale = given.scale
    settings = task_settings()
    print(f"[{time.monotonic() - given.began:5.0f} s] quality: {given.root.name}", flush=True)
    extractor = made(given.work / "quality", {}, given.threads)
    train, test = [str(path) for path in given.train], [str(path) for path in given.test]
    # anomalib's grid is its finest layer's, so that it has four times the patches; its own coreset is given
    # a random share of them, since all of them would take it hours.
    ours = {"extractor": str(extractor), "train": train, "test": test, "memory": scale.memory}
    other = {
        **theirs(extractor, settings["layers"]),
        "train": train,
        "test": test,
        "seed": 0,
        "count": scale.memory,
        "max_patches": scale.patches,
        "neighbours": [9, 1],
    }
    told = {key: value for key, value in other.items() if key not in ("train", "test", "weights")}
    counts = {"train_images": len(train), "test_images": len(test)}
    part = Part("quality", {**counts, "task": settings, "anomalib": told})
    with tempfile.TemporaryDirectory(dir=given.work) as place:
        quality.measure(part, ours, other, given.root, Path(place), given.threads, given.python)
    return part


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--mvtec", type=Path, required=True, metavar="DIR", help="an object of the MVTec layout"
    )
    parser.add_argument(
        "--more", type=Path, nargs="*", default=[], metavar="DIR", help="other photographs, for the coreset"
    )
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=PARTS)
    parser.add_argument("--threads", type=int, default=cpu_quota(), help="of every contender")
    parser.add_argument("--rounds", type=int, help="of the coreset's smaller cases")
    parser.add_argument(
        "--small", action="store_true", help="a minute's try; writes below RETIDERM_HOME/bench"
    )
    parser.add_argument("--upgrade", action="store_true", help="install anomalib's current release anew")
    parser.add_argument("--out", type=Path, help=f"the JSON; default: {OUT.relative_to(OUT.parents[2])}")
    given = parser.parse_args()
    began = time.monotonic()
    scale = SMALL if given.small else Scale(rounds=given.rounds or Scale().rounds)
    out = given.out or (bench_folder() / "small.json" if given.small else OUT)
    python = install(upgrade=given.upgrade)
    run(None, "weights", {}, given.threads)
    found = run(python, "versions", {}, given.threads)
    print(
        f"[{time.monotonic() - began:5.0f} s] anomalib {found['anomalib']}, {given.threads} threads each",
        flush=True,
    )
    failed = 0
    with tempfile.TemporaryDirectory(dir=bench_folder()) as work:
        what = Run(given.mvtec, given.more, scale, given.threads, python, Path(work), began)
        for name in given.parts:
            part = {"coreset": run_coreset, "latency": run_latency, "quality": run_quality}[name](what)
            failed += sum(not point.passed for point in part.points)
            # Written part by part: what has been measured outlives a later failure.
            files = write(out, merge(out, {name: section(part, given.threads, found)}))
    print(
        f"[{time.monotonic() - began:5.0f} s] {failed} points failed. Written: {', '.join(map(str, files))}"
    )
    return 1 if failed and not given.small else 0


if __name__ == "__main__":
    sys.exit(main())
