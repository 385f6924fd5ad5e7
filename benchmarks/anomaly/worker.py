"""This project's side, one job a process: ``python -m benchmarks.anomaly.worker select|plain|features|…``.

One line of JSON in, one out, as ``contender.py`` does on anomalib's side.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.anomaly.arithmetic import gaussian, judge, peak_mib, plain_select

#: Copies of the images that give more patches where the images alone are too few: turned by 0, 90, 180 and
#: 270 degrees, and the same mirrored.
VIEWS = 8


def select(job: dict[str, Any]) -> dict[str, Any]:
    """Time this project's coreset; the indices go to ``job["indices"]``."""
    from serving.core.patchcore.coreset import select as choose

    embeddings = np.load(job["embeddings"], allow_pickle=False)
    before = peak_mib("VmRSS")
    started = time.perf_counter()
    found = choose(embeddings, job["count"], seed=job["seed"])
    seconds = time.perf_counter() - started
    np.save(job["indices"], found.indices)
    return {
        "seconds": seconds,
        "peak_mib": peak_mib(),
        "before_mib": before,
        "start": found.start,
        "radius": found.radius,
    }


def plain(job: dict[str, Any]) -> dict[str, Any]:
    """Time the plain loop from the same start."""
    embeddings = np.load(job["embeddings"], allow_pickle=False)
    before = peak_mib("VmRSS")
    started = time.perf_counter()
    indices = plain_select(embeddings, job["count"], job["start"])
    seconds = time.perf_counter() - started
    np.save(job["indices"], indices)
    return {"seconds": seconds, "peak_mib": peak_mib(), "before_mib": before}


def judged(job: dict[str, Any]) -> dict[str, Any]:
    """Judge selections of the same embeddings: radius and greediness, exactly."""
    embeddings = np.load(job["embeddings"], mmap_mode="r", allow_pickle=False)
    found = {}
    for name, path in job["selections"].items():
        result = judge(embeddings, np.load(path, allow_pickle=False))
        found[name] = {"radius": result.radius, "gap": result.gap}
    return found


def drawn(job: dict[str, Any]) -> dict[str, Any]:
    """Write random unit vectors."""
    gaussian(Path(job["out"]), job["count"], job["dim"], job["seed"])
    return {}


def features(job: dict[str, Any]) -> dict[str, Any]:
    """Patches of photographs by the extractor at ``job["extractor"]``, as many from any view.

    ``count`` rows go to ``out``: from every view (an image, or a turned or mirrored copy of it) the same
    number, drawn at random. As many kinds of copies are made as it takes.
    """
    from serving.core.patchcore.extractor import Extractor

    extractor = Extractor.open(Path(job["extractor"]), threads=job["threads"])
    each = extractor.card.grid[0] * extractor.card.grid[1]
    paths, count = job["images"], job["count"]
    views = -(-count // (each * len(paths)))
    if views > VIEWS:
        raise SystemExit(
            f"{len(paths)} images give at most {VIEWS * each * len(paths)} patches, not {count}."
        )
    rng = np.random.default_rng(job["seed"])
    total = views * len(paths)
    shares = np.full(total, count // total)
    shares[: count % total] += 1
    out = np.lib.format.open_memmap(job["out"], "w+", np.float32, (count, extractor.card.dim))
    at = 0
    for share, image in zip(shares, _views(paths, views, extractor), strict=True):
        patches = extractor.embed(image[None]).reshape(each, -1)
        out[at : at + share] = patches[rng.permutation(each)[:share]]
        at += share
    out.flush()
    return {
        "images": len(paths),
        "views": views,
        "grid": list(extractor.card.grid),
        "dim": extractor.card.dim,
    }


def _views(paths: list[str], views: int, extractor: Any) -> Iterator[NDArray[np.uint8]]:
    from data.image import decode

    for path in paths:
        image = extractor.prepare(decode(Path(path).read_bytes()))
        for view in range(views):
            turned = np.rot90(image, view % 4)
            yield np.ascontiguousarray(turned[:, ::-1] if view >= 4 else turned)


def main() -> None:
    """Read a job, do it, answer; standard output carries answers and nothing else."""
    from benchmarks.anomaly.environment import write_weights
    from benchmarks.anomaly.extractors import export
    from benchmarks.anomaly.quality import score

    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    tasks = {
        "select": select,
        "plain": plain,
        "judge": judged,
        "gaussian": drawn,
        "features": features,
        "export": export,
        "weights": write_weights,
        "quality": score,
    }
    job = json.loads(sys.stdin.readline())
    print(json.dumps(tasks[sys.argv[1]](job)), file=answers, flush=True)


if __name__ == "__main__":
    main()
