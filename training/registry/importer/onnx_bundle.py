"""An imported ONNX graph as a bundle, through proofs of its own: there is no torch model to hold it against.

What came is run as it came, on images normalised by numpy; what is served must answer the same.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import tempfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from data.errors import ParityError
from data.provenance import code_digest, cpu_quota
from serving.core.bundle import (
    GOLDEN,
    REFERENCE,
    Bundle,
    Card,
    ExplanationCard,
    HeadCard,
    InputCard,
    PrecisionCard,
    WeightsCard,
    write_bundle,
)
from serving.core.decisions import decide

from .foreign import Foreign, Triple
from .graph import Original, Wrapped, normalised

if TYPE_CHECKING:
    from data.dataset import Dataset
    from training.calibrate import HeadCalibration
    from training.task import Task

MODEL = "model.onnx"
TOLERANCE = 1e-3
CAM_TOLERANCE = 1e-4
_IMAGES = 128
_SERVED = 8
_BATCH = 16


@dataclasses.dataclass(frozen=True, slots=True)
class Imported:
    """The graph as it came and as it will serve, with its normalisation and the order of its classes."""

    original: Original
    wrapped: Wrapped
    mean: Triple
    std: Triple
    order: tuple[int, ...] | None
    outputs: tuple[str, ...]  # of the original that the logits come from
    probabilities: bool


def card_of(
    task: Task,
    dataset: Dataset,
    foreign: Foreign,
    imported: Imported,
    heads: tuple[HeadCard, ...],
    evaluation: Mapping[str, Any],
    run_id: str | None,
) -> Card:
    """The card of an imported graph, without its proofs."""
    from training.export.origin import dataset_card, limits_of

    learned_from = dataset_card(dataset)
    probe = _session(imported.wrapped.data).run(
        list(imported.wrapped.outputs), {"image": np.zeros((1, *task.input_size, 3), np.uint8)}
    )
    wrapped = imported.wrapped
    return Card(
        task=task.name,
        kind=task.kind,
        title=task.title,
        created_at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        retiderm_version=metadata.version("retiderm"),
        code_digest=code_digest("data", "training", "serving"),
        backbone=foreign.architecture or f"imported {foreign.weights.suffix.lstrip('.')}",
        input=InputCard(size=task.input_size, mean=imported.mean, std=imported.std),
        preprocessing=task.preprocessing.to_dict(),
        preprocessing_digest=task.preprocessing.digest,
        quality=task.quality.to_dict(),
        dataset=learned_from,
        heads=heads,
        weights=WeightsCard(
            f"imported: {foreign.weights.name}", foreign.licence, foreign.sha256, foreign.forbids
        ),
        outputs={name: tuple(value.shape[1:]) for name, value in zip(wrapped.outputs, probe, strict=True)},
        explanation=ExplanationCard("closed-form" if wrapped.maps else "none", reason=wrapped.reason),
        precisions={"fp32": PrecisionCard(MODEL)},
        metrics=evaluation,
        licence="; ".join(dict.fromkeys(item for item in (*learned_from.licences, foreign.licence) if item)),
        forbids=tuple(sorted({*learned_from.forbids, *foreign.forbids})),
        intended_use=task.intended_use,
        limits=limits_of(task, dataset),
        references=task.references,
        run_id=run_id,
        extra={"profile": task.profile, "task_digest": task.digest, "imported": True},
    )


def bundle_of(
    task: Task,
    dataset: Dataset,
    foreign: Foreign,
    imported: Imported,
    calibration: Mapping[str, HeadCalibration],
    evaluation: Mapping[str, Any],
    out: Path,
    *,
    run_id: str | None = None,
    seed: int = 0,
) -> Bundle:
    """Prove the wrapped graph equal to the original, serve it once, and write the bundle.

    Raises:
        ParityError: it isn't equal.
    """
    from serving.core.runtimes.onnx import OnnxRuntime
    from training.export.images import load_pixels, sample
    from training.export.reference import golden, reference
    from training.export.served import served_parity

    heads = tuple(calibration[head.name].card(head) for head in task.heads)
    card = card_of(task, dataset, foreign, imported, heads, evaluation, run_id)
    test = dataset.split("test")
    pixels = load_pixels(dataset, sample(test, _IMAGES, seed, "test"), task.preprocessing)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        (work / MODEL).write_bytes(imported.wrapped.data)
        runtime = OnnxRuntime(work / MODEL, card, "fp32")
        try:
            parity = {
                "onnx": _same_logits(runtime, imported, pixels, heads),
                "cam": _cam(runtime, imported, pixels),
            }
            files: dict[str, Path | bytes] = {
                MODEL: imported.wrapped.data,
                GOLDEN: golden(runtime, pixels),
                REFERENCE: reference(runtime, dataset, task.preprocessing, heads, seed=seed),
            }
        finally:
            runtime.close()
        explanation = card.explanation
        if explanation.method != "none":
            explanation = dataclasses.replace(explanation, max_error=parity["cam"]["max_difference"])
        card = dataclasses.replace(card, parity=parity, explanation=explanation)
        draft = write_bundle(work / "bundle", card, files)
        gradable = test[test["verdict"] == "gradable"]
        rows = sample(gradable if len(gradable) else test, _SERVED, seed, "test")
        encoded = [dataset.image_path(path).read_bytes() for path in rows["path"]]
        logits = original_logits(imported, load_pixels(dataset, rows, task.preprocessing))
        expected = [
            {head.name: decide(row[None, card.slices[head.name]], head) for head in heads} for row in logits
        ]
        parity["served"] = served_parity(draft, encoded, expected)
        return write_bundle(out, dataclasses.replace(card, parity=parity), files)


def original_logits(imported: Imported, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What the graph says as it came, without any node of ours: logits [N, C] in the task's order."""
    original = imported.original
    session = _session(original.model.SerializeToString())
    names = [item.name for item in session.get_outputs()]
    wanted = [name for name in names if name.removeprefix("original/") in imported.outputs]
    wanted.sort(key=lambda name: imported.outputs.index(name.removeprefix("original/")))
    fixed = isinstance(session.get_inputs()[0].shape[0], int)
    step = 1 if fixed else _BATCH
    rows = []
    for start in range(0, len(images), step):
        batch = normalised(images[start : start + step], original, imported.mean, imported.std)
        parts = session.run(wanted, {original.input: batch})
        if imported.probabilities:
            parts = [np.log(np.clip(part, 1e-12, 1.0)) for part in parts]
        rows.append(np.concatenate(parts, axis=1))
    logits = np.concatenate(rows).astype(np.float32)
    return logits if imported.order is None else logits[:, list(imported.order)]


def _same_logits(
    runtime: Any, imported: Imported, images: NDArray[np.uint8], heads: tuple[HeadCard, ...]
) -> dict[str, Any]:
    from training.export.parity import compare

    wanted = original_logits(imported, images)
    batches = [images[i : i + _BATCH] for i in range(0, len(images), _BATCH)]
    given = np.concatenate([runtime.run(batch)["logits"] for batch in batches])
    difference, changed = compare(wanted, given, heads)
    passed = difference <= TOLERANCE and not changed
    if not passed:
        raise ParityError(
            f"The served graph differs from the imported one on {len(images)} test images: by up to "
            f"{difference:.1e} in probability (allowed: {TOLERANCE:g}), with {changed} labels changed.",
            hint="A graph that was exported for one image only can't answer several: export it with a "
            "dynamic batch.",
        )
    return {
        "against": "the imported graph on images normalised by numpy",
        "images": len(images),
        "max_difference": difference,
        "tolerance": TOLERANCE,
        "labels_changed": changed,
        "passed": passed,
    }


def _cam(runtime: Any, imported: Imported, images: NDArray[np.uint8]) -> dict[str, Any]:
    """The maps against the closed form computed by numpy from the graph's own feature maps and weights."""
    wrapped = imported.wrapped
    if wrapped.maps is None or wrapped.weight is None:
        return {"passed": True, "skipped": wrapped.reason}
    chosen = images[:8]
    features = _feature_maps(wrapped.data, wrapped.maps, chosen)
    given = runtime.run(chosen, ("cam", "embedding"))
    wanted = np.maximum(np.einsum("ck,nkhw->nchw", wrapped.weight, features), 0)
    wanted /= features.shape[2] * features.shape[3]
    scale = np.maximum(1.0, wanted.max(axis=(1, 2, 3), keepdims=True))
    worst = float((np.abs(given["cam"] - wanted) / scale).max())
    # The closed form is Grad-CAM only where the embedding is the plain mean of the maps.
    worst = max(worst, float(np.abs(features.mean(axis=(2, 3)) - given["embedding"]).max()))
    if not worst <= CAM_TOLERANCE:
        raise ParityError(
            f"Grad-CAM's closed form differs by {worst:.1e} on the imported graph (allowed: "
            f"{CAM_TOLERANCE:g}).",
            hint="Its pooling is not a plain mean: import it as a state dict with --architecture.",
        )
    return {
        "against": "the closed form by numpy",
        "images": len(chosen),
        "max_difference": worst,
        "tolerance": CAM_TOLERANCE,
        "passed": True,
    }


def _feature_maps(data: bytes, name: str, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    import onnx
    from onnx import TensorProto, helper

    model = onnx.load_from_string(data)
    model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    return np.asarray(_session(model.SerializeToString()).run([name], {"image": images})[0])


def _session(data: bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cpu_quota()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own classes share no public base
        raise ParityError(f"ONNX Runtime can't load the imported graph: {error}") from error
