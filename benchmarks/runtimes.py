"""Three backbones at 224 px on every runtime and precision: latency, size, agreement, what ``tune`` chooses.

Run: ``python -m benchmarks.runtimes [--images FOLDER] [--rounds 200]``, or ``make bench-runtimes``. With
``--bundle DIR --data DATASET`` it also judges the precisions of an existing bundle on real images: see
``benchmarks.precisions``.

One image at a time, logits alone, all contenders of a backbone in turn, in an order drawn anew each round, so
that a busy machine slows all of them alike. Each is a file of one real bundle, exported and opened as in
production. Agreement is with torch, on photographs that no calibration saw (drawn ones without ``--images``).
Of ResNet-50 and MobileNetV3 there are no weights offline: theirs are random, which time and size don't depend
on; their agreement says how well a runtime calculates, and nothing about a trained network in int8.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import datetime
import functools
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.files import atomic_path, digest_json, write_json
from data.preprocess import Preprocessing
from data.provenance import code_digest, cpu_quota, hardware, versions
from serving.core.bundle import Bundle

BACKBONES = ("resnet50", "mobilenetv3_large_100", "tf_efficientnet_lite0")
#: The backbone that the tasks ship with; the old service's published figures are held against its rows.
SHIPPED = "tf_efficientnet_lite0"
SIZE = 224
CLASSES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
PRECISIONS = ("bf16", "int8", "tflite", "tflite_int8")
PACKAGES = ("torch", "timm", "onnxruntime", "openvino", "ai-edge-litert", "litert-torch", "numpy")
RESULTS = Path(__file__).parent / "results"

#: Milliseconds an image that the old skin and hair profile published, the better end of each range: the
#: medians here must be below.
LIMITS = {("tflite", "tflite"): 10.0, ("tflite", "tflite_int8"): 5.0, ("onnxruntime", "fp32"): 20.0}

Images = NDArray[np.uint8]
_CALIBRATION = 96
_WARMING = 10


@dataclasses.dataclass(frozen=True, slots=True)
class Subject:
    """A backbone as a bundle with all its precisions, and the torch model that it was made of."""

    backbone: str
    weights: str
    model: Any
    bundle: Bundle
    left_out: dict[str, str]


def photographs(folder: Path | None, count: int) -> tuple[Images, str]:
    """``count`` images [N, 224, 224, 3] from a folder of photographs, or drawn lesions; and which."""
    prepare = Preprocessing(size=(SIZE, SIZE), fit="center")
    if folder is None:
        from data.synthetic.drawing import pixels, plan

        return np.stack([prepare(pixels(item)) for item in plan("lesion", count, seed=11, size=256)]), "drawn"
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in {".jpg", ".jpeg", ".png"})
    if len(paths) < count:
        sys.exit(f"{folder} has {len(paths)} photographs; {count} are needed.")
    chosen = np.random.default_rng(0).choice(len(paths), count, replace=False)
    return np.stack([prepare(prepare.decode(paths[i].read_bytes())) for i in chosen]), folder.name


def make_subject(backbone: str, images: Images, folder: Path) -> Subject:
    """Export a backbone to every precision that can be built here; the first images are int8's ranges."""
    import torch

    from serving.core.bundle import (
        GOLDEN,
        Card,
        DatasetCard,
        HeadCard,
        InputCard,
        PrecisionCard,
        write_bundle,
    )
    from training.export.graph import export_onnx
    from training.export.judge import tolerance_of
    from training.export.precisions import EXACT, build_files, open_files
    from training.export.reference import golden
    from training.model import build_model
    from training.task import task_from_dict

    task = task_from_dict(
        {
            "name": "bench",
            "title": "Benchmark",
            "heads": {"diagnosis": {"classes": list(CLASSES)}},
            "backbone": backbone,
            "input_size": SIZE,
            "export": {"precisions": ["fp32", *PRECISIONS]},
        }
    )
    torch.manual_seed(0)
    model = build_model(task).eval()
    if model.weights_info.source == "none":
        settle(model, images[:16])
    # Logits as far apart as a trained head's, so that a difference in probability means something.
    torch.nn.init.normal_(model.head.weight)
    with torch.no_grad():
        few = model.normalise(torch.from_numpy(images[:8]))
        model.head.weight *= 2 / float(model(few).std())
    work = folder / "work"
    work.mkdir(parents=True)
    exported = export_onnx(model, task.input_size, work / "model.onnx")
    digest = digest_json("none")
    card = Card(
        task=task.name,
        kind=task.kind,
        title=f"{backbone}, not trained",
        created_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        retiderm_version=versions("retiderm").get("retiderm", ""),
        code_digest=code_digest("training", "serving"),
        backbone=backbone,
        input=InputCard(size=task.input_size, mean=model.mean, std=model.std),
        preprocessing=task.preprocessing.to_dict(),
        preprocessing_digest=task.preprocessing.digest,
        quality=task.quality.to_dict(),
        dataset=DatasetCard(digest, digest, source="none"),
        heads=(HeadCard("diagnosis", CLASSES),),
        outputs=exported.outputs,
        explanation=exported.explanation,
    )
    made = build_files(
        model, task.input_size, exported.path, images[:_CALIBRATION], work, PRECISIONS, explain=True
    )
    runtimes, left_out = open_files(made, card)
    shown = images[_CALIBRATION : _CALIBRATION + 8]
    precisions = {}
    for name, runtime in runtimes.items():
        path = made[name]
        assert isinstance(path, Path)
        exact = name in ("fp32", "tflite")
        precisions[name] = PrecisionCard(
            path.name,
            format="tflite" if path.suffix == ".tflite" else "onnx",
            tolerance=EXACT if exact else tolerance_of(runtimes["fp32"], runtime, shown, card),
        )
    answers = golden(runtimes["fp32"], shown)
    for runtime in runtimes.values():
        runtime.close()
    files: dict[str, Path | bytes] = {item.file: work / item.file for item in precisions.values()}
    card = dataclasses.replace(card, precisions=precisions)
    bundle = write_bundle(folder / "bundle", card, {**files, GOLDEN: answers})
    return Subject(backbone, model.weights_info.source, model, bundle, left_out)


def settle(model: Any, images: Images) -> None:
    """Give random weights the statistics of a trained network, with no part of it switched off.

    timm starts the last scale of each residual branch at zero: a converter then folds whole branches away,
    and what is left is no ResNet. And with batch statistics that no image has shaped, activations die out or
    blow up from layer to layer, so that there is nothing that int8 could agree with.
    """
    import torch
    from torch.nn.modules.batchnorm import _BatchNorm

    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    for norm in norms:
        torch.nn.init.uniform_(norm.weight, 0.5, 1.0)
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over what it sees, which is one batch
    model.train()
    with torch.no_grad():
        model(model.normalise(torch.from_numpy(images)))
    model.eval()


def compare(subject: Subject, images: Images, rounds: int, threads: int) -> list[dict[str, Any]]:
    """A row for torch and for each runtime with each precision: time, size, agreement with torch."""
    import torch

    from data.errors import RetidermError
    from serving.core.runtimes import KINDS, Runtime, open_runtime
    from training.export.parity import torch_logits

    torch.set_num_threads(threads)
    model, bundle = subject.model, subject.bundle
    opened: dict[tuple[str, str], Runtime] = {}
    failed: dict[tuple[str, str], str] = {}
    for name, item in bundle.card.precisions.items():
        for kind in KINDS.values():
            if kind.runs(name, item):
                try:
                    # Timed even where its answers wouldn't let it serve: the row says how far off they are.
                    opened[kind.name, name] = open_runtime(
                        bundle, name, threads, runtime=kind.name, warm=False
                    )
                except RetidermError as error:
                    failed[kind.name, name] = error.message
    one = images[:1]

    def bare() -> Any:
        with torch.no_grad():
            return model(model.normalise(torch.from_numpy(one)))

    work: dict[tuple[str, str], Callable[[], Any]] = {("torch", "fp32"): bare}
    work |= {key: functools.partial(item.run, one) for key, item in opened.items()}
    times = measure(work, rounds)
    wanted = torch_logits(model, images)
    rows = [row(subject, ("torch", "fp32"), times, wanted, wanted, versions("torch").get("torch", ""))]
    for key, runtime in opened.items():
        given = np.concatenate([runtime.run(images[i : i + 1])["logits"] for i in range(len(images))])
        rows.append(row(subject, key, times, wanted, given, runtime.name))
        runtime.close()
    missing = {**failed, **{("", name): why for name, why in subject.left_out.items()}}
    for (runs, name), why in missing.items():
        rows.append({"backbone": subject.backbone, "runtime": runs, "precision": name, "note": why})
    return rows


def row(
    subject: Subject,
    key: tuple[str, str],
    times: dict[tuple[str, str], list[float]],
    wanted: NDArray[np.float32],
    given: NDArray[np.float32],
    version: str,
) -> dict[str, Any]:
    """One contender's figures."""
    from serving.core.decisions import calibrated

    card = subject.bundle.card
    median, p95 = np.quantile(times[key], [0.5, 0.95])
    limit = LIMITS.get(key) if subject.backbone == SHIPPED else None
    size = 0 if key[0] == "torch" else card.files[card.precisions[key[1]].file].bytes
    return {
        "backbone": subject.backbone,
        "weights": subject.weights,
        "runtime": key[0],
        "precision": key[1],
        "version": version,
        "median_ms": round(float(median), 3),
        "p95_ms": round(float(p95), 3),
        "bytes": size or None,
        "max_difference": float(np.abs(calibrated(wanted) - calibrated(given)).max()),
        "labels_equal": float((wanted.argmax(1) == given.argmax(1)).mean()),
        "correlation": float(np.corrcoef(wanted.ravel(), given.ravel())[0, 1]),
        "s1_limit_ms": limit,
        "s1_passed": None if limit is None else bool(median < limit),
        "note": "",
    }


def measure(
    work: dict[tuple[str, str], Callable[[], Any]], rounds: int
) -> dict[tuple[str, str], list[float]]:
    """Milliseconds of each contender in each round, after ten rounds of warming up."""
    rng = np.random.default_rng(0)
    keys = list(work)
    times: dict[tuple[str, str], list[float]] = {key: [] for key in keys}
    for number in range(rounds + _WARMING):
        for index in rng.permutation(len(keys)):
            started = time.perf_counter()
            work[keys[index]]()
            if number >= _WARMING:
                times[keys[index]].append((time.perf_counter() - started) * 1e3)
    return times


def run(
    backbones: Sequence[str], images: Images, shown: str, rounds: int, threads: int, folder: Path
) -> dict[str, Any]:
    """The whole comparison as one document."""
    from serving.tune import tune

    rows: list[dict[str, Any]] = []
    chosen: dict[str, Any] = {}
    for backbone in backbones:
        print(f"== {backbone}", flush=True)
        subject = make_subject(backbone, images, folder / backbone)
        judged = images[_CALIBRATION + 8 :]
        found = compare(subject, judged, rounds, threads)
        tuned = tune(subject.bundle, rounds=rounds, threads=threads)
        chosen[backbone] = {"runtime": tuned.runtime, "precision": tuned.precision, "version": tuned.version}
        for item in found:
            item["chosen"] = (item["runtime"], item["precision"]) == (tuned.runtime, tuned.precision)
            _show(item)
        rows += found
    verdicts = [item for item in rows if item.get("s1_passed") is not None]
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "hardware": hardware(),
        "versions": versions(*PACKAGES),
        "code_digest": code_digest("data", "training", "serving"),
        "settings": {"size": SIZE, "rounds": rounds, "threads": threads, "images": shown},
        "rows": rows,
        "tune_chose": chosen,
        "s1": [
            {key: item[key] for key in ("runtime", "precision", "median_ms", "s1_limit_ms", "s1_passed")}
            for item in verdicts
        ],
        # No verdict is no pass: a runtime that isn't installed has not beaten anything.
        "passed": (SHIPPED not in backbones)
        or (len(verdicts) == len(LIMITS) and all(item["s1_passed"] for item in verdicts)),
    }


def _show(item: dict[str, Any]) -> None:
    if "median_ms" not in item:
        print(f"{item['runtime']:12} {item['precision']:12} left out: {item['note']}")
        return
    size = "" if item["bytes"] is None else f"{item['bytes'] / 1e6:6.1f} MB"
    mark = " chosen" if item["chosen"] else ""
    limit = (
        "" if item["s1_limit_ms"] is None else f" (S1: {item['s1_limit_ms']:g}, {_word(item['s1_passed'])})"
    )
    print(
        f"{item['runtime']:12} {item['precision']:12} {item['median_ms']:8.2f} ms {item['p95_ms']:8.2f} p95 "
        f"{size:10} off {item['max_difference']:.1e}, labels {item['labels_equal']:.3f}{limit}{mark}"
    )


def _word(passed: bool) -> str:
    return "beaten" if passed else "NOT beaten"


def write(document: dict[str, Any], out: Path) -> None:
    """``out`` as ``.json`` (all of it) and ``.csv`` (the rows, hardware and versions beside)."""
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out.with_suffix(".json"), document)
    machine, packages = document["hardware"], document["versions"]
    columns = list(dict.fromkeys(key for item in document["rows"] for key in item))
    beside = {
        "rounds": document["settings"]["rounds"],
        "threads": document["settings"]["threads"],
        "images": document["settings"]["images"],
        "cpu": machine["cpu"],
        "cores": machine["cores"],
        "versions": " ".join(f"{name}={value}" for name, value in packages.items()),
        "date": document["date"],
    }
    with (
        atomic_path(out.with_suffix(".csv")) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as stream,
    ):
        writer = csv.DictWriter(stream, fieldnames=[*columns, *beside], lineterminator="\n")
        writer.writeheader()
        writer.writerows({**item, **beside} for item in document["rows"])
    print(f"written: {out.with_suffix('.json')}, {out.with_suffix('.csv')}")


def main() -> int:
    """Measure, print and write; 1 where a figure to beat was not beaten or a precision loses too much."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbones", nargs="+", default=list(BACKBONES), metavar="NAME")
    parser.add_argument("--images", type=Path, help="a folder of photographs; drawn ones without")
    parser.add_argument("--count", type=int, default=64, help="photographs that agreement is judged on")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--threads", type=int, default=cpu_quota())
    parser.add_argument("--out", type=Path, default=RESULTS / "runtimes.json")
    parser.add_argument("--bundle", type=Path, help="judge this bundle's precisions too")
    parser.add_argument("--data", type=Path, help="with --bundle: the dataset folder that it is judged on")
    given = parser.parse_args()
    if (given.bundle is None) != (given.data is None):
        parser.error("--bundle and --data go together.")
    warnings.simplefilter("ignore")
    images, shown = photographs(given.images, _CALIBRATION + 8 + given.count)
    with tempfile.TemporaryDirectory() as name:
        document = run(given.backbones, images, shown, given.rounds, given.threads, Path(name))
    write(document, given.out)
    passed = bool(document["passed"])
    if given.bundle is not None:
        from benchmarks.precisions import report

        passed &= report(given.bundle, given.data, given.out.with_name("precisions"))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
