"""What int8 and bf16 cost a trained model on real images: its own metric, against fp32.

Run: ``python -m benchmarks.precisions --bundle DIR --data DATASET [--run DIR]``.

The precisions are built anew from the bundle's ``model.onnx``, with ranges from the dataset's training
images, so that a bundle exported in fp32 alone can be judged; with ``--run`` (the training's folder, which
holds the torch model) TFLite too. The dataset must be the one that the bundle was judged on. A precision
passes when it loses at most ``--loss`` of the metric both on validation images, by which an export approves
it, and on test images.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

from data.files import atomic_path, write_json
from data.provenance import code_digest, hardware, versions

PACKAGES = ("onnxruntime", "openvino", "ai-edge-litert", "litert-torch", "torch", "numpy")
RESULTS = Path(__file__).parent / "results"
_ALL = 10**9


def judge_bundle(
    bundle: Path, data: Path, *, run: Path | None = None, loss: float = 0.01, metric: str = "auc"
) -> dict[str, Any]:
    """Build, judge on all validation and test images, and say of each precision whether it passes."""
    from data.dataset import Dataset
    from data.errors import UsageError
    from data.preprocess import Preprocessing
    from serving.core.bundle import Bundle
    from training.export.images import load_pixels, sample
    from training.export.judge import judge, latency, verdict
    from training.export.precisions import build_files, open_files
    from training.model import load_model
    from training.spec.export import ExportSpec

    opened, dataset = Bundle.open(bundle), Dataset.open(data)
    card = opened.card
    if dataset.test_digest != card.dataset.test_digest:
        raise UsageError(
            f"{data} has other test images than those that the bundle was judged on.",
            hint="Name the dataset that it was trained on.",
        )
    model = load_model(run)[0] if run is not None else None
    spec = ExportSpec(metric=metric, loss=loss, judged_images=_ALL)  # type: ignore[arg-type]
    wanted = ["bf16", "int8", *(["tflite", "tflite_int8"] if model is not None else [])]
    rows = sample(dataset.split("train"), spec.calibration_images, 0, "training")
    images = load_pixels(dataset, rows, Preprocessing.from_dict(dict(card.preprocessing)))
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        fp32 = opened.path(card.precisions["fp32"].file)
        made = build_files(model, card.input.size, fp32, images, work, wanted, explain="cam" in card.outputs)
        runtimes, left_out = open_files(made, card)
        found = judge(runtimes, dataset, card, spec)
        table = []
        for precision, runtime in runtimes.items():
            path = made[precision]
            assert isinstance(path, Path)
            why = verdict(found[precision]["val"], spec) or _on_test(found[precision]["test"], spec.loss)
            table.append(
                {
                    "precision": precision,
                    "runtime": runtime.name,
                    "bytes": path.stat().st_size,
                    **latency(runtime, images[:1]),
                    **found[precision],
                    "passed": why is None,
                    "reason": why,
                }
            )
            runtime.close()
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "task": card.task,
        "bundle": opened.digest,
        "dataset": dataset.digest,
        "source": card.dataset.source,
        "synthetic": card.dataset.synthetic,
        "metric": metric,
        "allowed": loss,
        "hardware": hardware(),
        "versions": versions(*PACKAGES),
        "code_digest": code_digest("data", "training", "serving"),
        "precisions": table,
        "left_out": left_out,
        "passed": not left_out.get("int8") and all(item["passed"] for item in table),
    }


def _on_test(found: dict[str, Any], allowed: float) -> str | None:
    if found["loss"] is None:
        return "The test images don't tell."
    return None if found["loss"] <= allowed else f"It loses {found['loss']:.4f} on the test images."


def report(bundle: Path, data: Path, out: Path, **options: Any) -> bool:
    """Judge, print, write ``out`` as JSON and CSV; whether every precision passes."""
    document = judge_bundle(bundle, data, **options)
    print(f"== {document['task']} {document['bundle'][7:19]}, {document['metric']} on {document['source']}")
    flat = [_flat(document, item) for item in document["precisions"]]
    for item in flat:
        print(
            f"{item['precision']:12} val {item['val']:.4f} (loses {item['val_loss']:+.4f})  "
            f"test {item['test']:.4f} (loses {item['test_loss']:+.4f}, labels changed "
            f"{item['test_labels_changed']:.3f})  {item['bytes'] / 1e6:.1f} MB  "
            f"{'passes' if item['passed'] else item['reason']}"
        )
    for name, why in document["left_out"].items():
        print(f"{name:12} left out: {why}")
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out.with_suffix(".json"), document)
    with (
        atomic_path(out.with_suffix(".csv")) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as stream,
    ):
        writer = csv.DictWriter(stream, fieldnames=list(flat[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(flat)
    print(f"written: {out.with_suffix('.json')}, {out.with_suffix('.csv')}")
    return bool(document["passed"])


def _flat(document: dict[str, Any], item: dict[str, Any]) -> dict[str, Any]:
    """A precision as a row: of several heads the one that loses most."""
    found: dict[str, Any] = {key: document[key] for key in ("task", "source", "metric", "allowed")}
    found |= {key: item[key] for key in ("precision", "runtime", "bytes", "passed", "reason")}
    found["median_ms"] = item.get("latency_ms", {}).get("median")
    for split in ("val", "test"):
        heads = item[split]["heads"]
        losses = {name: head["loss"] for name, head in heads.items() if head["loss"] is not None}
        worst = max(losses, key=lambda name: losses[name], default=None)
        found[f"{split}_images"] = item[split]["images"]
        found[f"{split}_head"] = worst
        found[f"{split}_fp32"] = heads[worst]["fp32"] if worst else float("nan")
        found[split] = heads[worst]["value"] if worst else float("nan")
        found[f"{split}_loss"] = losses[worst] if worst else float("nan")
        found[f"{split}_max_difference"] = item[split].get("max_difference")
        found[f"{split}_labels_changed"] = item[split].get("labels_changed", 1.0)
    machine = document["hardware"]
    packages = " ".join(f"{name}={value}" for name, value in document["versions"].items())
    return {**found, "cpu": machine["cpu"], "versions": packages, "date": document["date"]}


def main() -> int:
    """Judge one bundle; 1 where a precision loses too much."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="the dataset folder that it was trained on")
    parser.add_argument("--run", type=Path, help="the training's folder, for TFLite")
    parser.add_argument("--metric", default="auc")
    parser.add_argument("--loss", type=float, default=0.01)
    parser.add_argument("--out", type=Path, default=RESULTS / "precisions.json")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    options = {"run": given.run, "loss": given.loss, "metric": given.metric}
    return 0 if report(given.bundle, given.data, given.out, **options) else 1


if __name__ == "__main__":
    sys.exit(main())
