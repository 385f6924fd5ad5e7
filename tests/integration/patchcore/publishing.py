"""A process that fits one ROI over and over, for tests that kill it or read beside it.

``python publishing.py ROOT COUNT``: memories whose every number follows from the seed that their metadata
names. A line on standard output before each publication. ``COUNT`` of them, and on while ``ROOT/../more`` is
there.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import numpy as np

from serving.core.patchcore.calibrate import calibrate
from serving.core.patchcore.memory import Memory, MemoryInfo, unit
from serving.core.patchcore.store import RoiStore

ROLE, ROI = "Master1", "Pattern"


def memory(seed: int) -> Memory:
    """1,500 × 384: 2.3 MB, so that writing it takes a while; each seed has another size."""
    rows = np.random.default_rng(seed).standard_normal((1500 + seed % 7, 384))
    return Memory(unit(rows), 32, 32, MemoryInfo(extractor="drawn", seed=seed))


def main() -> None:
    """Publish and calibrate ``COUNT`` times, or more."""
    root, most = Path(sys.argv[1]), int(sys.argv[2])
    store = RoiStore(root)
    for seed in itertools.count(1):
        if seed > most and not (root.parent / "more").exists():
            break
        print(seed, flush=True)
        generation = store.publish(ROLE, ROI, memory(seed))
        store.save_calibration(ROLE, ROI, calibrate([seed / 1000], mm_per_px=0.2), generation=generation)


if __name__ == "__main__":
    main()
