"""What each step from an encoded photograph to a model's input costs, quality verdict included.

Run: ``python -m benchmarks.preprocess [--rounds 100] [--out FILE.csv]``.

One thread, medians over the rounds, on drawn fundus photographs as a 1000 × 1000 JPEG, a 4288 × 2848 JPEG
(the size of a fundus camera's) and a 1000 × 1000 PNG. ``together`` is ``data.quality.prepare``, the call that
training and serving make; ``whole decode`` is what it avoids.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from data.field import find_field
from data.files import atomic_path
from data.image import decode, read_header
from data.preprocess import Clahe, Preprocessing, crop_square, equalise, resize
from data.provenance import hardware, versions
from data.quality import PROFILES, prepare
from data.quality.measure import measure

OUT = Path(__file__).parent / "results" / "preprocess.csv"
SETTINGS = Preprocessing(size=(224, 224), crop="fundus", clahe=Clahe())
INPUTS = (("JPEG", 1000, 1000, 92), ("JPEG", 4288, 2848, 92), ("PNG", 1000, 1000, 0))


def photograph(width: int, height: int) -> NDArray[np.uint8]:
    """A drawn fundus photograph with detail at every scale, so that it compresses like a real one."""
    rng = np.random.default_rng(0)
    tone = np.full((height, width), 130.0, np.float32)
    for octave in range(1, 9):
        noise = rng.normal(0, 6, (height >> octave, width >> octave)).astype(np.float32)
        tone += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    y, x = np.mgrid[:height, :width]
    tone[np.hypot(x - width / 2, y - height / 2) > 0.48 * min(width, height)] = 2
    image: NDArray[np.uint8] = np.clip(tone[..., None] * np.array([1.4, 0.7, 0.3]), 0, 255).astype(np.uint8)
    return image


def encoded(kind: str, width: int, height: int, quality: int) -> bytes:
    """The photograph as a file."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if kind == "JPEG" else []
    return cv2.imencode(f".{kind.lower()}", photograph(width, height)[..., ::-1], options)[1].tobytes()


def steps(data: bytes) -> dict[str, Callable[[], object]]:
    """One callable a step, each on what the step before it makes."""
    profile = PROFILES["fundus"]
    rgb = SETTINGS.decode(data)
    field = find_field(rgb)
    square = crop_square(rgb, field)
    small = resize(square, SETTINGS.size)
    clahe = SETTINGS.clahe or Clahe()
    return {
        "header": lambda: read_header(data),
        "decode": lambda: SETTINGS.decode(data),
        "field of view": lambda: find_field(rgb),
        "measure": lambda: measure(rgb, profile, field=field),
        "crop": lambda: crop_square(rgb, field),
        "resize": lambda: resize(square, SETTINGS.size),
        "CLAHE": lambda: equalise(small, clahe),
        "together": lambda: prepare(data, SETTINGS, profile),
        "whole decode": lambda: decode(data),
    }


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--out", type=Path, default=OUT)
    chosen = parser.parse_args()
    cv2.setNumThreads(1)
    machine = {**hardware(), **versions("opencv-python-headless", "numpy")}
    rows = []
    for kind, width, height, quality in INPUTS:
        data = encoded(kind, width, height, quality)
        name = f"{width}x{height} {kind}"
        calls = steps(data)
        # The steps take turns, so that a busy machine slows all of them alike.
        times: dict[str, list[float]] = {step: [] for step in calls}
        for _ in range(chosen.rounds):
            for step, call in calls.items():
                started = time.perf_counter()
                call()
                times[step].append(time.perf_counter() - started)
        for step, taken in times.items():
            median = statistics.median(taken) * 1e3
            print(f"{name:16s} {len(data) // 1000:5d} kB  {step:14s} {median:8.3f} ms")
            rows.append(
                {"input": name, "bytes": len(data), "step": step, "median_ms": round(median, 3)}
                | {"fastest_ms": round(min(taken) * 1e3, 3), "rounds": chosen.rounds, "threads": 1, **machine}
            )
    with atomic_path(chosen.out) as temporary, temporary.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
