"""What Grad-CAM costs: logits alone, logits and map in one pass, and the grad-cam package on torch.

Run: ``python -m benchmarks.gradcam [--backbone resnet50] [--rounds 100] [--threads N] [--out FILE.csv]``.

One image at a time, the contenders interleaved in an order drawn anew each round, so that a busy machine
slows all of them alike; medians over the rounds. The weights are random: time doesn't depend on them. The
base is a graph that has no map at all.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from data.files import atomic_path
from data.provenance import cpu_quota, hardware, versions

CLASSES = ("no_dr", "mild", "moderate", "severe", "proliferative")
BASE = "onnxruntime, graph without map, logits"
OUT = Path(__file__).parent / "results" / "gradcam.csv"


def contenders(backbone: str, size: int, threads: int, folder: Path) -> dict[str, Callable[[], Any]]:
    """One callable each, on one image that is the same for all."""
    import onnxruntime
    import torch
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    from training.export import export_onnx
    from training.model import Classifier
    from training.spec.parts import HeadSpec

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = Classifier(backbone, [HeadSpec("grade", CLASSES)], pretrained=False).eval()
    pixels = np.random.default_rng(0).integers(0, 256, (1, size, size, 3), dtype=np.uint8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # As the serving runtime does: spinning threads of one session would slow the next contender.
    options.add_session_config_entry("session.force_spinning_stop", "1")

    def load(name: str, explain: bool) -> Any:
        path = export_onnx(model, (size, size), folder / name, explain=explain).path
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    session, plain = load("model.onnx", True), load("plain.onnx", False)
    pruned = onnxruntime.RunOptions()
    pruned.only_execute_path_to_fetches = True
    feed = {"image": pixels}
    images = model.normalise(torch.from_numpy(pixels))
    # grad-cam hooks the module whose output is the last map.
    explainer = GradCAM(model=model, target_layers=[_last_map(model)])
    target = [ClassifierOutputTarget(0)]

    def bare() -> Any:
        with torch.no_grad():
            return model(images)

    return {
        BASE: lambda: plain.run(["logits"], feed, pruned),
        "onnxruntime, logits": lambda: session.run(["logits"], feed, pruned),
        "onnxruntime, logits and map of every class": lambda: session.run(["logits", "cam"], feed, pruned),
        "torch, logits": bare,
        "torch, grad-cam package, map of one class": lambda: explainer(images, target),
    }


def _last_map(model: Any) -> Any:
    """The module that gave the last map: the one whose output ``features`` hands over."""
    import torch

    given: dict[int, Any] = {}
    hooks = [
        module.register_forward_hook(lambda m, _, out: given.__setitem__(id(out), m))
        for module in model.backbone.modules()
    ]
    size = model.backbone.default_cfg["input_size"][-1]
    with torch.no_grad():
        features = model.features(torch.zeros(1, 3, size, size))
    for hook in hooks:
        hook.remove()
    return given[id(features)]


def measure(work: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each contender in each round, after ten rounds of warming up."""
    rng = np.random.default_rng(0)
    names = list(work)
    times: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds + 10):
        for index in rng.permutation(len(names)):
            started = time.perf_counter()
            work[names[index]]()
            if number >= 10:
                times[names[index]].append((time.perf_counter() - started) * 1e3)
    return times


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--threads", type=int, default=cpu_quota())
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        work = contenders(given.backbone, given.size, given.threads, Path(folder))
        times = measure(work, given.rounds)
    machine = hardware()
    found = versions("onnxruntime", "torch", "timm", "grad-cam")
    rows = []
    for name, values in times.items():
        # The cost against the base in the same round: what a busy moment did to both cancels out.
        ratios = [value / base for value, base in zip(values, times[BASE], strict=True)]
        rows.append(
            {
                "backbone": given.backbone,
                "input": f"{given.size}x{given.size}",
                "what": name,
                "median_ms": round(statistics.median(values), 3),
                "p90_ms": round(float(np.quantile(values, 0.9)), 3),
                "over_base_percent": round((statistics.median(ratios) - 1) * 100, 2),
                "rounds": given.rounds,
                "threads": given.threads,
                "cpu": machine["cpu"],
                "versions": " ".join(f"{key}={value}" for key, value in found.items()),
            }
        )
        print(f"{name:45} {rows[-1]['median_ms']:9} ms  {rows[-1]['over_base_percent']:+8} %")
    given.out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(given.out) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(f"written: {given.out}")


if __name__ == "__main__":
    main()
