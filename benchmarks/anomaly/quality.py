"""AUROC on an object of the MVTec layout: this project as the task ``anomaly`` is set, and anomalib.

Both fit on the same OK images and score the same test images, with the same backbone, weights, layers and
input size. What differs is what each does with them: the patches' length, the grid, the score, the map.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.anomaly.arithmetic import peak_mib
from benchmarks.anomaly.environment import run
from benchmarks.anomaly.records import Part

if TYPE_CHECKING:
    from serving.core.patchcore.extractor import Extractor
    from training.spec.patchcore import PatchCoreSpec

OURS, ANOMALIB = "retiderm", "anomalib Patchcore"


def score(job: dict[str, Any]) -> dict[str, Any]:
    """Fit memories and score the test images as the task does, by the parts that its pipeline is made of.

    All OK images are learned from; the pipeline would keep some back to calibrate with. Two memories come of
    the same patches: one as large as the task asks for, and one of ``job["memory"]``. The maps of the former
    go to ``job["maps"]``.
    """
    from benchmarks.anomaly.extractors import TASK
    from serving.core.patchcore.coreset import coreset_size, select
    from serving.core.patchcore.extractor import Extractor
    from serving.core.patchcore.rule import ScoreRule
    from serving.core.patchcore.score import anomaly_map
    from serving.core.patchcore.search import open_index
    from training.task import load_task

    spec = load_task(TASK).patchcore
    assert spec is not None
    extractor = Extractor.open(Path(job["extractor"]), threads=job["threads"])
    rule = ScoreRule(spec.score.kind, spec.score.percentile, spec.score.top)
    started = time.perf_counter()
    patches = _learned(job["train"], extractor, spec)
    embedded = time.perf_counter()
    tests = [extractor.embed(_read(path, extractor)[None])[0] for path in job["test"]]
    asked = coreset_size(len(patches), spec.coreset_rate)
    found: dict[str, Any] = {}
    for count in dict.fromkeys((min(job["memory"], asked), asked)):
        before = time.perf_counter()
        chosen = select(patches, count, seed=spec.seed)
        seconds = time.perf_counter() - before
        index = open_index(np.ascontiguousarray(patches[chosen.indices]))
        scores, maps = [], []
        for test in tests:
            distances = index.search(test.reshape(-1, test.shape[-1]))[0].reshape(test.shape[:2])
            maps.append(anomaly_map(distances, extractor.card.input_size, spec.blur_sigma))
            scores.append(rule(distances, maps[-1]))
        found[str(count)] = {"scores": scores, "seconds": seconds}
    np.save(job["maps"], np.stack(maps))
    return {
        "memories": found,
        "patches": len(patches),
        "embed_seconds": embedded - started,
        "peak_mib": peak_mib(),
    }


def _read(path: str, extractor: Extractor) -> NDArray[np.uint8]:
    from data.image import decode

    return extractor.prepare(decode(Path(path).read_bytes()))


def _learned(paths: list[str], extractor: Extractor, spec: PatchCoreSpec) -> NDArray[np.float32]:
    """The patches of the images and of the copies that the task makes, at most ``max_patches``."""
    from training.patchcore.build import copies_of

    rng = np.random.default_rng(spec.seed)
    copies = spec.augment.turns * (2 if spec.augment.mirror else 1)
    each = extractor.card.grid[0] * extractor.card.grid[1]
    keep = min(each, max(1, spec.max_patches // (len(paths) * copies)))
    parts = []
    for path in paths:
        for copy in copies_of(_read(path, extractor)[None], spec.augment):
            patches = extractor.embed(np.ascontiguousarray(copy)).reshape(each, -1)
            parts.append(patches if keep == each else patches[np.sort(rng.permutation(each)[:keep])])
    return np.concatenate(parts)


def masks(root: Path, tests: list[Path], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Where each test image is defective, at ``size``; nowhere for a good one. bool [N, h, w]."""
    found = np.zeros((len(tests), *size), bool)
    for number, path in enumerate(tests):
        kind = path.parent.name
        if kind == "good":
            continue
        mask = cv2.imread(str(root / "ground_truth" / kind / f"{path.stem}_mask.png"), cv2.IMREAD_GRAYSCALE)
        if mask is None:
            raise SystemExit(f"{path.name} has no mask beside it.")
        found[number] = cv2.resize(mask, size[::-1], interpolation=cv2.INTER_NEAREST) > 0
    return found


def auroc(scores: NDArray[np.floating[Any]], positive: NDArray[np.bool_]) -> float:
    """Area under the ROC curve, ties counting half: the Mann-Whitney statistic from mean ranks."""
    _, place, counts = np.unique(scores.ravel(), return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2
    chosen = positive.ravel()
    p = int(chosen.sum())
    n = chosen.size - p
    return float((ranks[place[chosen]].sum() - p * (p + 1) / 2) / (p * n))


def measure(
    part: Part,
    ours: dict[str, Any],
    theirs: dict[str, Any],
    root: Path,
    folder: Path,
    threads: int,
    python: Path,
) -> None:
    """Score with both, tell the figures, and hold ours against the best of anomalib's."""
    tests = [Path(path) for path in ours["test"]]
    defective = np.array([path.parent.name != "good" for path in tests])
    truth = masks(root, tests, tuple(theirs["input"]))
    data = root.name
    areas: dict[str, float] = {}
    pixels: dict[str, float] = {}

    def told(contender: str, values: list[float], note: str) -> None:
        name = f"{contender}, {note}"
        areas[name] = auroc(np.array(values), defective)
        part.add(data, contender, "image AUROC", areas[name], "", note)
        print(f"    {name}: image AUROC {areas[name]:.4f}", flush=True)

    def tell_pixels(contender: str, maps: Path, note: str) -> None:
        pixels[contender] = auroc(np.load(maps, allow_pickle=False), truth)
        part.add(data, contender, "pixel AUROC", pixels[contender], "", note)

    mine = run(None, "quality", {**ours, "maps": str(folder / "ours.npy")}, threads)
    for count, memory in mine["memories"].items():
        told(OURS, memory["scores"], f"memory of {count}")
        part.add(data, OURS, "coreset", memory["seconds"], "s", f"{mine['patches']} to {count}")
    tell_pixels(OURS, folder / "ours.npy", f"memory of {count}")
    part.add(data, OURS, "embed the OK images", mine["embed_seconds"], "s")
    part.add(data, OURS, "peak resident memory", mine["peak_mib"], "MiB")
    found = run(python, "quality", {**theirs, "maps": str(folder / "theirs.npy")}, threads)
    for number, values in found["scores"].items():
        told(ANOMALIB, values, f"memory of {found['memory'][0]}, {number} neighbours")
    tell_pixels(ANOMALIB, folder / "theirs.npy", f"memory of {found['memory'][0]}")
    part.add(data, ANOMALIB, "embed the OK images", found["embed_seconds"], "s")
    chosen = f"{found['patches']} to {found['memory'][0]}"
    part.add(data, ANOMALIB, "coreset", found["coreset_seconds"], "s", chosen)
    part.add(data, ANOMALIB, "peak resident memory", found["peak_mib"], "MiB")
    best = max(area for name, area in areas.items() if name.startswith(ANOMALIB))
    shipped = areas[f"{OURS}, memory of {count}"]
    part.hold(f"{data}: image AUROC less the best of anomalib's", shipped - best, ">=", -0.005)
    part.hold(f"{data}: pixel AUROC less anomalib's", pixels[OURS] - pixels[ANOMALIB], ">=", -0.005)
