"""How fast a training step is, by precision, memory layout and what else this project does about it.

Run: ``python -m benchmarks.training [--steps 4] [--out FILE.csv]``.

Forward, backward and AdamW on random pixels, the head of five classes, median over the steps, on one process
with all of its CPUs. ``as trained`` is what ``training.fit`` does on this machine: memory kept between steps,
depthwise convolutions in fp32 within bf16, and ``dr_grading``'s augmentation besides. ``images/CPU second``
counts the process's CPU time, so that it also means something on a machine that others use.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from data.files import atomic_path
from data.provenance import hardware, versions
from training.fit.augment import apply, draw
from training.fit.device import autocast, choose_precision, spare_depthwise, steady
from training.model import Classifier
from training.spec.parts import HeadSpec, WeightsSpec
from training.task import load_task

OUT = Path(__file__).parent / "results" / "training.csv"
CPU = torch.device("cpu")
HEADS = (HeadSpec("grade", ("a", "b", "c", "d", "e")),)
BACKBONES = (("tf_efficientnet_lite0", 32), ("resnet50", 16))
SIDE = 224


def variants() -> Iterator[tuple[str, str, bool, bool]]:
    """Name, precision, channels last, and whether everything is done as in training."""
    for precision in ("fp32", "bf16"):
        for last in (False, True):
            yield f"{precision}, channels {'last' if last else 'first'}", precision, last, False
    for precision in ("fp32", "bf16"):
        yield f"{precision} as trained", precision, True, True


def make_step(backbone: str, batch: int, precision: str, last: bool, whole: bool) -> Callable[[], None]:
    """One training step as a callable."""
    torch.manual_seed(0)
    layout: Any = torch.channels_last if last else torch.contiguous_format
    model = Classifier(backbone, HEADS, weights=WeightsSpec("none")).train().to(memory_format=layout)
    if whole:
        spare_depthwise(model, CPU, precision)
    optimiser = torch.optim.AdamW(model.parameters(), fused=True)
    pixels = torch.randint(0, 256, (batch, SIDE, SIDE, 3), dtype=torch.uint8)
    labels = torch.randint(0, 5, (batch,))
    augment = load_task("dr_grading").train.augment

    def step() -> None:
        images = model.normalise(pixels)
        if whole:
            images = apply(images, draw(augment, batch, (SIDE, SIDE), 0), fill=augment.fill)
        images = images.contiguous(memory_format=layout)
        with autocast(CPU, precision):
            logits = model(images)
        loss = functional.cross_entropy(logits.float(), labels)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    return step


def measure(step: Callable[[], None], steps: int) -> tuple[float, float]:
    """Median seconds and median CPU seconds of a step, after two to warm up."""
    step()
    step()
    wall, cpu = [], []
    for _ in range(steps):
        begun, begun_cpu = time.perf_counter(), time.process_time()
        step()
        wall.append(time.perf_counter() - begun)
        cpu.append(time.process_time() - begun_cpu)
    return statistics.median(wall), statistics.median(cpu)


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    rows = []
    for backbone, batch in BACKBONES:
        for name, precision, last, whole in variants():
            with steady(CPU) if whole else contextlib.nullcontext():
                wall, cpu = measure(make_step(backbone, batch, precision, last, whole), given.steps)
            chosen = whole and precision == choose_precision("auto", CPU)
            row = {
                "backbone": backbone,
                "size": SIDE,
                "batch": batch,
                "variant": name,
                "images_per_second": round(batch / wall, 1),
                "images_per_cpu_second": round(batch / cpu, 1),
                "default_here": "yes" if chosen else "no",
                "steps": given.steps,
                "threads": torch.get_num_threads(),
                **hardware(),
                **versions("torch", "timm"),
            }
            rows.append(row)
            print(
                f"{backbone:24} {name:24} {row['images_per_second']:7} images/s "
                f"{row['images_per_cpu_second']:7} images/CPU second",
                flush=True,
            )
    with atomic_path(given.out) as temporary, temporary.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
