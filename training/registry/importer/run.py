"""A model that was trained elsewhere becomes a version: proofs, evaluation, calibration, register, gate."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.errors import UsageError
from data.progress import track
from training.registry.client import Registry
from training.registry.gate import GateDecision, GateRules, judge
from training.registry.ledger import Ledger
from training.registry.version import Version

from .foreign import IMAGENET_MEAN, IMAGENET_STD, Foreign, order_of

if TYPE_CHECKING:
    from data.dataset import Dataset
    from training.predict import Predictions
    from training.task import Task

    from .onnx_bundle import Imported


SPLITS = ("val", "test")
#: The architecture's name for the older face-scan service's networks, whichever of them it is.
FACE_CNN = "face_cnn"
_BLOCK = 64


def import_model(
    registry: Registry,
    task: str,
    foreign: Foreign,
    data: Path,
    *,
    ledger: Ledger | None = None,
    seed: int = 0,
) -> tuple[Version, GateDecision]:
    """Import a model for a task and judge it on a canonical dataset's test images.

    Nothing is registered unless every proof passes; a refusal by the gate is a result.

    Raises:
        UsageError: the file is no model that fits the task.
        ParityError: what would serve does not answer as what came.
    """
    from data.dataset import Dataset
    from training.face_cnn import SIDE, is_name
    from training.labels import check_heads
    from training.task import load_task

    ledger = ledger or Ledger()
    kind = foreign.kind()
    if kind == "state" and foreign.architecture in (None, FACE_CNN):
        foreign = dataclasses.replace(foreign, architecture=_found(foreign))
    dataset = Dataset.open(data)
    profile = dataset.info.get("profile")
    changes: dict[str, Any] = {"weights": {"source": "none"}}
    if kind == "state":
        changes["backbone"] = foreign.architecture
        if is_name(foreign.architecture or ""):
            changes["input_size"] = SIDE  # its linear layer takes the whole map, so that the size is given
    spec = load_task(task, profile=profile, overrides=changes)
    if spec.kind != "classification":
        raise UsageError(
            f"Task {spec.name} is of kind {spec.kind}; only classifiers can be imported.",
            hint=f"Make its memory with the pipeline: retiderm run {spec.name} --data KIND:PATH.",
        )
    check_heads(dataset, spec.heads)
    order = order_of(foreign.classes, [name for head in spec.heads for name in head.classes])
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        if kind == "state":
            bundle, predictions, evaluation = _from_state(foreign, spec, dataset, order, work, seed)
        else:
            if kind == "torchscript":
                from .torchscript import to_onnx

                to_onnx(foreign.weights, work / "imported.onnx", spec.input_size, trust=foreign.trust)
                graph = work / "imported.onnx"
            else:
                graph = foreign.weights
            bundle, predictions, evaluation = _from_graph(
                foreign, graph, spec, dataset, order, work, seed, task=task, profile=profile
            )
        version = registry.register(
            bundle,
            None,
            predictions,
            evaluation=evaluation,
            files=sorted((work / "pictures").glob("*.png")),
            tags={
                "origin": "imported",
                "imported.sha256": foreign.sha256,
                "imported.file": foreign.weights.name,
            },
        )
        ledger.append(
            "import",
            task=version.task,
            version=version.version,
            digest=version.digest,
            why=f"{kind} {foreign.weights.name}",
            data={"sha256": foreign.sha256, "architecture": foreign.architecture, "licence": foreign.licence},
        )
        decision = judge(registry, version, GateRules.of(spec.gate), dataset=dataset, ledger=ledger)
    return registry.get(version.task, version.version), decision


def _found(foreign: Foreign) -> str:
    """The architecture of a state dict that names none: one of the older face-scan service's networks."""
    from training.face_cnn import SHAPE

    from .state import architecture

    found = architecture(foreign)
    if found is not None:
        return found
    if foreign.architecture == FACE_CNN:
        raise UsageError(
            f"{foreign.weights.name} is no network of the face-scan service.",
            hint=SHAPE,
        )
    raise UsageError(
        f"{foreign.weights.name} is a state dict: numbers without a model.",
        hint="Name the timm model that they belong to: --architecture resnet50.",
    )


def _from_state(
    foreign: Foreign, spec: Task, dataset: Dataset, order: tuple[int, ...] | None, work: Path, seed: int
) -> tuple[Any, Path, dict[str, Any]]:
    from training.export import package
    from training.predict import predict

    from .state import classifier

    model = classifier(foreign, spec, order)
    said = {split: predict(model, dataset, split, task=spec) for split in SPLITS}
    calibration, evaluation = _judged(said, spec, dataset, work)
    bundle = package(model, spec, dataset, evaluation, calibration, work / "bundle", seed=seed)
    said["test"].save(work / "test.npz")
    return bundle, work / "test.npz", evaluation


def _from_graph(
    foreign: Foreign,
    path: Path,
    spec: Task,
    dataset: Dataset,
    order: tuple[int, ...] | None,
    work: Path,
    seed: int,
    *,
    task: str,
    profile: str | None,
) -> tuple[Any, Path, dict[str, Any]]:
    from training.task import load_task

    from .graph import read, wrap
    from .onnx_bundle import Imported, bundle_of

    original = read(path)
    if original.size is not None and original.size != spec.input_size:
        # A graph of a fixed size decides; the preprocessing follows it.
        size = list(original.size)
        spec = load_task(task, profile=profile, overrides={"input_size": size, "weights": {"source": "none"}})
    mean, std = foreign.mean or IMAGENET_MEAN, foreign.std or IMAGENET_STD
    classes = sum(len(head.classes) for head in spec.heads)
    wrapped = wrap(
        original,
        size=spec.input_size,
        mean=mean,
        std=std,
        classes=classes,
        order=order,
        output=foreign.output,
        probabilities=foreign.probabilities,
    )
    names = tuple(n.strip() for n in foreign.output.split(",")) if foreign.output else original.outputs[:1]
    imported = Imported(original, wrapped, mean, std, order, names, foreign.probabilities)
    said = {split: _asked(imported, dataset, split, spec) for split in SPLITS}
    calibration, evaluation = _judged(said, spec, dataset, work)
    bundle = bundle_of(spec, dataset, foreign, imported, calibration, evaluation, work / "bundle", seed=seed)
    said["test"].save(work / "test.npz")
    return bundle, work / "test.npz", evaluation


def _judged(
    said: dict[str, Any], spec: Task, dataset: Dataset, work: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    from training.calibrate import calibrate_heads
    from training.evaluate import evaluate

    calibration = calibrate_heads(said["val"], spec)
    report = evaluate(
        said["test"], spec.heads, dataset.split("test"), calibration=calibration, pictures=work / "pictures"
    )
    return calibration, report


def _asked(imported: Imported, dataset: Dataset, split: str, spec: Task) -> Predictions:
    """What the graph says as it came about a split; a foreign model has no embedding of ours."""
    import numpy as np

    from training.export.images import load_pixels
    from training.labels import read_rows
    from training.predict import Predictions

    from .onnx_bundle import original_logits

    rows = read_rows(dataset, split, spec.heads)
    frame = dataset.split(split).set_index("id").loc[list(rows.ids)].reset_index()
    logits = [
        original_logits(imported, load_pixels(dataset, frame[start : start + _BLOCK], spec.preprocessing))
        for start in track(range(0, len(frame), _BLOCK), f"asking about the {split} images")
    ]
    said = np.concatenate(logits)
    return Predictions(np.array(rows.ids, dtype=np.str_), said, rows.labels, said, rows.slices)
