"""Memories and calibrations to publish, and ROIs as older services wrote them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from serving.core.patchcore.calibrate import calibrate
from serving.core.patchcore.memory import Memory, MemoryInfo, unit

CALIBRATION = calibrate([0.2, 0.3], [0.9], mm_per_px=0.2)
OLD = {
    "threshold": 0.9,
    "p99_ok": 0.8,
    "p5_ng": 1.1,
    "mm_per_px": 0.2,
    "area_mm2_thr": 2.0,
    "score_percentile": 98,
}


def rows(seed: int = 0, n: int = 12) -> NDArray[np.float32]:
    return unit(np.random.default_rng(seed).standard_normal((n, 6)))


def memory(seed: int = 0) -> Memory:
    return Memory(rows(seed), 3, 4, MemoryInfo(extractor="lite0", radius=0.25))


def old_files(
    root: Path,
    where: str,
    seed: int = 0,
    *,
    index: bool = True,
    calibration: Any = None,
    metadata: Any = None,
) -> None:
    """What a plain script that knows only the contract writes. ``where``: ``role/roi`` or ``role_roi``."""
    nested = "/" in where
    base = root / where
    (base if nested else root).mkdir(parents=True, exist_ok=True)
    names = ("memory.npz", "index.faiss", "calib.json")
    if nested:
        paths = [base / name for name in names]
    else:
        paths = [root / f"{where}{end}" for end in (".npz", "_index.faiss", "_calib.json")]
    more = {} if metadata is None else {"metadata": json.dumps(metadata)}
    np.savez(paths[0], emb=rows(seed), token_h=3, token_w=4, **more)
    if index:
        made = faiss.IndexFlatL2(6)
        made.add(rows(seed))
        faiss.write_index(made, str(paths[1]))
    if calibration is not None:
        paths[2].write_text(json.dumps(calibration))
