"""From extractor, memory and threshold to a bundle, through every proof."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from data.files import write_json
from data.provenance import code_digest
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
from serving.core.patchcore import rule
from serving.core.patchcore.calibrate import Calibration
from serving.core.patchcore.detector import Scorer, open_detector
from serving.core.patchcore.extractor import INPUT, OUTPUT
from training.export.images import sample
from training.export.origin import dataset_card, limits_of, made_at
from training.export.reference import (
    GOLDEN_IMAGES,
    REFERENCE_IMAGES,
    drift_sample,
    nearest_others,
    npz,
    training_statistics,
)
from training.labels import read_rows
from training.patchcore.build import NG, OK, network, of_class, pixels_of
from training.patchcore.features import PatchFeatures
from training.patchcore.proofs import features_parity, served_parity
from training.patchcore.scoring import Scored, open_scorer, score_rows

if TYPE_CHECKING:
    from data.dataset import Dataset
    from training.task import Task

SERVED_IMAGES = 8

_NOTES = (
    "The stored test answers, [0, 4·(score − threshold)], rank as the scores do and are no probabilities.",
)
_PERCENTILES = np.linspace(0, 100, 101)


def package(
    task: Task,
    dataset: Dataset,
    extractor: Path,
    memory: Path,
    calibration: Calibration,
    scored: Scored,
    evaluation: Mapping[str, Any],
    out: Path,
    *,
    run_id: str | None = None,
    served: bool = True,
    seed: int = 0,
) -> Bundle:
    """Write an anomaly bundle to ``out`` and prove it: torch ↔ ONNX on the whole test set, served ↔ offline.

    ``extractor`` and ``memory`` are the folders that the pipeline's steps made, ``scored`` the test images'
    scores from them, ``evaluation`` the test document. ``served=False`` leaves the last proof out, so that
    the bundle can't be registered. Until every proof has passed nothing is at ``out``; a bundle that was
    there stays.

    Raises:
        ParityError: two ways to the same score differ.
        DataError: the dataset lacks a split.
    """
    out = Path(out)
    scorer = open_scorer(task, extractor, memory)
    features = network(task)
    threshold = calibration.threshold
    parity: dict[str, Any] = {"features": features_parity(features, scorer, dataset, task, scored, threshold)}
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.", suffix=".part") as name:
        work = Path(name)
        write_json(work / rule.CALIBRATION, calibration.to_dict())
        files: dict[str, Path | bytes] = {
            rule.EXTRACTOR: extractor / rule.EXTRACTOR,
            rule.EXTRACTOR_CARD: extractor / rule.EXTRACTOR_CARD,
            rule.MEMORY: memory / rule.MEMORY,
            rule.INDEX: memory / rule.INDEX,
            rule.CALIBRATION: work / rule.CALIBRATION,
            GOLDEN: _golden(scorer, dataset, task, seed),
            REFERENCE: _reference(scorer, dataset, task, seed),
        }
        card = _card(task, dataset, scorer, features, calibration, evaluation, run_id, parity)
        draft = write_bundle(work / "bundle", card, files)
        open_detector(draft)  # golden scores hold from the very files that will serve
        if served:
            parity["served"] = _serve(draft, dataset, scored, threshold, seed)
            card = dataclasses.replace(card, parity=parity)
        return write_bundle(out, card, files)


def _golden(scorer: Scorer, dataset: Dataset, task: Task, seed: int) -> bytes:
    """Preprocessed test images of both classes where there are, and what the memory says about them."""
    rows = read_rows(dataset, "test", task.heads)
    rng = np.random.default_rng(seed)
    kinds = [of_class(rows, task.heads[0].name, which) for which in (OK, NG)]
    kinds = [kind for kind in kinds if len(kind)] or [np.arange(len(rows))]
    share = GOLDEN_IMAGES // len(kinds)
    chosen = np.concatenate(
        [np.sort(rng.choice(kind, min(share, len(kind)), replace=False)) for kind in kinds]
    )
    images = np.concatenate(list(pixels_of(dataset, task.preprocessing, rows, chosen)))
    found = scorer.score(images)
    return npz(images=images, scores=found.score, distances=found.distances)


def _reference(scorer: Scorer, dataset: Dataset, task: Task, seed: int) -> bytes:
    """``reference.npz``: embeddings and pixels of OK training images, scores of OK validation images."""
    head = task.heads[0].name
    rng = np.random.default_rng(seed)

    def some(split: str) -> tuple[Any, NDArray[np.intp]]:
        rows = read_rows(dataset, split, task.heads)
        ok = of_class(rows, head, OK)
        return rows, np.sort(rng.choice(ok, min(REFERENCE_IMAGES, len(ok)), replace=False))

    rows, chosen = some("train")
    pixels = np.concatenate(list(pixels_of(dataset, task.preprocessing, rows, chosen)))
    train = score_rows(scorer, dataset, rows, chosen, what="training images for reference")
    val = score_rows(scorer, dataset, *some("val"), what="validation images for reference")
    counts = np.bincount(rows.labels[head][rows.labels[head] >= 0], minlength=2).astype(np.float32)
    frame = dataset.split("train")
    arrays = training_statistics(train.embedding, pixels, frame)
    # Nothing of the extractor is learned here, so its training images are as good as any other for drift;
    # their scores aren't, since the memory holds their own patches.
    kept = frame.set_index(frame["id"].astype(str)).loc[[rows.ids[i] for i in chosen]]
    distance = nearest_others(arrays["embedding_sample"])
    return npz(
        **arrays,
        **drift_sample(kept, pixels, train.embedding, arrays, distance=distance),
        **{"drift.normal_score": val.score.astype(np.float32)},
        **{f"{head}.prior": counts / max(1.0, float(counts.sum()))},
        score_percentiles=np.percentile(val.score, _PERCENTILES).astype(np.float32),
    )


def _serve(draft: Bundle, dataset: Dataset, scored: Scored, threshold: float, seed: int) -> dict[str, Any]:
    """Encoded test images, gradable ones where there are some, against the scores that were judged."""
    test = dataset.split("test")
    gradable = test[test["verdict"] == "gradable"]
    rows = sample(gradable if len(gradable) else test, SERVED_IMAGES, seed, "test")
    score = dict(zip(scored.ids.tolist(), scored.score.tolist(), strict=True))
    files = [dataset.image_path(path).read_bytes() for path in rows["path"]]
    return served_parity(draft, files, [score[str(key)] for key in rows["id"]], threshold)


def _card(
    task: Task,
    dataset: Dataset,
    scorer: Scorer,
    features: PatchFeatures,
    calibration: Calibration,
    evaluation: Mapping[str, Any],
    run_id: str | None,
    parity: Mapping[str, Any],
) -> Card:
    weights, origin = features.weights_info, dataset_card(dataset)
    extractor = scorer.extractor.card
    head = task.heads[0]
    return Card(
        task=task.name,
        kind=task.kind,
        title=task.title,
        created_at=made_at(),
        retiderm_version=metadata.version("retiderm"),
        code_digest=code_digest("data", "training", "serving"),
        backbone=task.backbone,
        input=InputCard(size=task.input_size, mean=features.mean, std=features.std, name=INPUT),
        preprocessing=task.preprocessing.to_dict(),
        preprocessing_digest=task.preprocessing.digest,
        quality=task.quality.to_dict(),
        dataset=origin,
        heads=(HeadCard(head.name, head.classes, titles=head.titles, notes=_NOTES),),
        weights=WeightsCard(weights.source, weights.licence or "", weights.sha256, weights.forbids),
        outputs={OUTPUT: (*extractor.grid, extractor.dim)},
        explanation=ExplanationCard("none", reason="The map of distances is the explanation."),
        precisions={"fp32": PrecisionCard(rule.EXTRACTOR, tolerance=rule.SCORE_TOLERANCE)},
        metrics=evaluation,
        parity=dict(parity),
        licence="; ".join(dict.fromkeys(item for item in (*origin.licences, weights.licence) if item)),
        forbids=tuple(sorted({*origin.forbids, *weights.forbids})),
        intended_use=task.intended_use,
        limits=limits_of(task, dataset),
        references=task.references,
        run_id=run_id,
        extra={
            "profile": task.profile,
            "task_digest": task.digest,
            "weights_note": weights.note,
            "threshold": calibration.threshold,
            rule.KEY: scorer.settings.to_dict(),
        },
    )
