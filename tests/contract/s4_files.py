"""The files of contract S4, read and written by a program that knows the contract, and not this project.

NumPy, JSON and FAISS only: what an older reader or writer of these files has. ``python s4_files.py FOLDER
ROLE ROI`` prints what it reads.
"""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import faiss
import numpy as np

CALIBRATION_KEYS = {"threshold", "p99_ok", "p5_ng", "mm_per_px", "area_mm2_thr", "score_percentile"}


def read_roi(models: Path, role: str, roi: str) -> dict[str, Any]:
    """Everything about a ROI, from the contract's paths."""
    folder = models / role / roi
    with np.load(folder / "memory.npz", allow_pickle=False) as stored:
        emb = stored["emb"]
        grid = (int(stored["token_h"]), int(stored["token_w"]))
        metadata = json.loads(str(stored["metadata"])) if "metadata" in stored.files else None
    found: dict[str, Any] = {"emb": emb, "grid": grid, "metadata": metadata, "index": None, "calib": None}
    if (folder / "index.faiss").exists():
        index = faiss.read_index(str(folder / "index.faiss"))
        found["index"] = index
    # A new fit takes the old calibration away, maybe in this moment.
    with contextlib.suppress(FileNotFoundError):
        found["calib"] = json.loads((folder / "calib.json").read_text())
    return found


def distances(roi: dict[str, Any], queries: np.ndarray) -> np.ndarray:
    """The squared distance of unit vectors to the nearest of the memory, by FAISS where there is an index."""
    if roi["index"] is not None:
        return roi["index"].search(np.ascontiguousarray(queries, np.float32), 1)[0][:, 0]
    return ((queries[:, None].astype(np.float64) - roi["emb"][None]) ** 2).sum(-1).min(1)


def write_roi(
    models: Path,
    role: str,
    roi: str,
    emb: np.ndarray,
    grid: tuple[int, int],
    *,
    flat: bool = False,
    metadata: dict[str, Any] | None = None,
    index: bool = True,
    calib: dict[str, Any] | None = None,
) -> None:
    """Write a ROI as one of the older versions did, without any care for half-written files."""
    folder = models if flat else models / role / roi
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{role}_{roi}"
    arrays: dict[str, Any] = {"emb": emb.astype(np.float32), "token_h": grid[0], "token_w": grid[1]}
    if metadata is not None:
        arrays["metadata"] = json.dumps(metadata)
    np.savez_compressed(folder / (f"{stem}.npz" if flat else "memory.npz"), **arrays)
    if index:
        made = faiss.IndexFlatL2(emb.shape[1])
        made.add(np.ascontiguousarray(emb, np.float32))
        blob = bytes(faiss.serialize_index(made))
        (folder / (f"{stem}_index.faiss" if flat else "index.faiss")).write_bytes(blob)
    if calib is not None:
        text = json.dumps(calib, ensure_ascii=False, indent=2)
        (folder / (f"{stem}_calib.json" if flat else "calib.json")).write_text(text)


def main() -> None:
    """Print a ROI."""
    found = read_roi(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
    lengths = np.linalg.norm(found["emb"], axis=1)
    print(
        json.dumps(
            {
                "coreset": len(found["emb"]),
                "dim": int(found["emb"].shape[1]),
                "grid": found["grid"],
                "dtype": str(found["emb"].dtype),
                "longest": float(lengths.max()),
                "index": None if found["index"] is None else found["index"].ntotal,
                "metadata": found["metadata"],
                "calib": found["calib"],
            }
        )
    )


if __name__ == "__main__":
    main()
