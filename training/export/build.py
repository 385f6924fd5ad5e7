"""From a finished training run to a bundle, through every proof."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from data.dataset import Dataset
from data.errors import DataError
from data.files import sha256_file
from data.provenance import code_digest
from serving.core.bundle import (
    GOLDEN,
    REFERENCE,
    Bundle,
    Card,
    HeadCard,
    InputCard,
    PrecisionCard,
    WeightsCard,
    write_bundle,
)
from serving.core.decisions import decide
from serving.core.runtimes.onnx import OnnxRuntime
from training.calibrate import HeadCalibration
from training.export.graph import Exported, export_onnx
from training.export.images import load_pixels, sample
from training.export.origin import dataset_card, limits_of, made_at
from training.export.parity import cam_parity, onnx_parity, torch_logits
from training.export.precisions import build_precisions
from training.export.reference import GOLDEN_IMAGES, golden, reference
from training.export.served import served_parity
from training.model import Classifier, load_model
from training.task import Task

MODEL = "model.onnx"
PARITY_IMAGES = 256
CAM_IMAGES = 8
SERVED_IMAGES = 8


def build_bundle(
    run_dir: Path,
    dataset: Dataset,
    evaluation: Mapping[str, Any],
    calibration: Mapping[str, HeadCalibration],
    out: Path,
    *,
    run_id: str | None = None,
    served: bool = True,
    explain: bool = True,
    seed: int = 0,
) -> Bundle:
    """Export a finished run to ``out`` and prove it; see :func:`package`.

    ``run_dir`` is what :func:`training.fit.fit` filled, ``evaluation`` the test document.
    """
    model, task = load_model(Path(run_dir))
    return package(
        model,
        task,
        dataset,
        evaluation,
        calibration,
        out,
        run_id=run_id,
        served=served,
        explain=explain,
        seed=seed,
        extra=trained(Path(run_dir)),
    )


def trained(run_dir: Path) -> dict[str, Any]:
    """For the card: the SHA-256 of the weights in ``run_dir``, so that a warm start can prove it has them."""
    return {"trained_sha256": sha256_file(run_dir / "model.safetensors")}


def package(
    model: Classifier,
    task: Task,
    dataset: Dataset,
    evaluation: Mapping[str, Any],
    calibration: Mapping[str, HeadCalibration],
    out: Path,
    *,
    run_id: str | None = None,
    served: bool = True,
    explain: bool = True,
    seed: int = 0,
    extra: Mapping[str, Any] | None = None,
) -> Bundle:
    """Export a model to ``out`` and prove it: torch ↔ ONNX Runtime, Grad-CAM ↔ autograd, served ↔ offline.

    ``served=False`` leaves the last proof out, so that the bundle can't be registered; ``explain=False``
    leaves Grad-CAM out of the graph. Until every proof has passed nothing is at ``out``; a bundle that was
    there stays. The precisions that ``task.export`` asks for beside fp32 come last, and stop nothing.
    ``extra`` is added to the card's.

    Raises:
        ParityError: two ways to the same answer differ, or the backbone can't be exported.
        DataError: the dataset lacks a split, or the calibration a head.
    """
    out = Path(out)
    heads = _heads(task, calibration)
    test = sample(dataset.split("test"), PARITY_IMAGES, seed, "test")
    pixels = load_pixels(dataset, test, task.preprocessing)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.", suffix=".part") as name:
        work = Path(name)
        exported = export_onnx(model, task.input_size, work / MODEL, explain=explain)
        card = _card(model, task, heads, dataset, evaluation, exported, run_id)
        card = dataclasses.replace(card, extra={**card.extra, **(extra or {})})
        runtime = OnnxRuntime(exported.path, card, "fp32")
        try:
            parity = {"onnx": onnx_parity(model, runtime, pixels, heads)}
            explanation = exported.explanation
            if explanation.method == "none":
                parity["cam"] = {"passed": True, "skipped": explanation.reason}
            else:
                parity["cam"] = cam_parity(model, runtime, pixels[:CAM_IMAGES])
                explanation = dataclasses.replace(explanation, max_error=parity["cam"]["max_difference"])
            files: dict[str, Path | bytes] = {
                MODEL: exported.path,
                GOLDEN: golden(runtime, pixels),
                REFERENCE: reference(runtime, dataset, task.preprocessing, heads, seed=seed),
            }
        finally:
            runtime.close()
        card = dataclasses.replace(card, parity=parity, explanation=explanation)
        if served:
            draft = write_bundle(work / "bundle", card, files)
            parity["served"] = _serve(model, task, heads, dataset, draft, seed)
            card = dataclasses.replace(card, parity=parity)
        built = build_precisions(
            model,
            task,
            dataset,
            card,
            exported.path,
            pixels[:GOLDEN_IMAGES],
            work,
            explain=explain,
            seed=seed,
        )
        told = {**card.extra, "precisions_left_out": built.left_out} if built.left_out else card.extra
        card = dataclasses.replace(card, precisions=built.cards, extra=told)
        return write_bundle(out, card, {**files, **built.files})


def _heads(task: Task, calibration: Mapping[str, HeadCalibration]) -> tuple[HeadCard, ...]:
    missing = [head.name for head in task.heads if head.name not in calibration]
    if missing:
        raise DataError(
            f"There is no calibration for head {missing[0]!r}.", hint="Run the calibration step again."
        )
    return tuple(calibration[head.name].card(head) for head in task.heads)


def _serve(
    model: Classifier, task: Task, heads: Sequence[HeadCard], dataset: Dataset, draft: Bundle, seed: int
) -> dict[str, Any]:
    """Encoded test images, gradable ones where there are some, against torch's offline answers."""
    test = dataset.split("test")
    gradable = test[test["verdict"] == "gradable"]
    rows = sample(gradable if len(gradable) else test, SERVED_IMAGES, seed, "test")
    files = [dataset.image_path(path).read_bytes() for path in rows["path"]]
    logits = torch_logits(model, load_pixels(dataset, rows, task.preprocessing))
    expected = []
    for i in range(len(logits)):
        parts = draft.card.slices
        expected.append({head.name: decide(logits[i : i + 1, parts[head.name]], head) for head in heads})
    return served_parity(draft, files, expected)


def _joined(*licences: str | None) -> str:
    """Licences in a row, each once; one may itself be several in a row."""
    return "; ".join(dict.fromkeys(each for some in licences if some for each in some.split("; ")))


def _card(
    model: Classifier,
    task: Task,
    heads: tuple[HeadCard, ...],
    dataset: Dataset,
    evaluation: Mapping[str, Any],
    exported: Exported,
    run_id: str | None,
) -> Card:
    weights = model.weights_info
    learned_from = dataset_card(dataset)
    return Card(
        task=task.name,
        kind=task.kind,
        title=task.title,
        created_at=made_at(),
        retiderm_version=metadata.version("retiderm"),
        code_digest=code_digest("data", "training", "serving"),
        backbone=task.backbone,
        input=InputCard(size=task.input_size, mean=model.mean, std=model.std),
        preprocessing=task.preprocessing.to_dict(),
        preprocessing_digest=task.preprocessing.digest,
        quality=task.quality.to_dict(),
        dataset=learned_from,
        heads=heads,
        weights=WeightsCard(weights.source, weights.licence or "", weights.sha256, weights.forbids),
        outputs=exported.outputs,
        explanation=exported.explanation,
        precisions={"fp32": PrecisionCard(MODEL)},
        metrics=evaluation,
        licence=_joined(*learned_from.licences, weights.licence),
        forbids=tuple(sorted({*learned_from.forbids, *weights.forbids})),
        intended_use=task.intended_use,
        limits=limits_of(task, dataset),
        references=task.references,
        run_id=run_id,
        extra={"profile": task.profile, "task_digest": task.digest, "weights_note": weights.note},
    )
