"""Proof that an anomaly bundle scores as it was judged; a difference blocks the export."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from data.errors import ParityError, ServingError
from serving.core.bundle import Bundle
from serving.core.patchcore.detector import Scorer
from serving.core.patchcore.rule import SCORE_TOLERANCE
from training.labels import read_rows
from training.patchcore.features import PatchFeatures, embed
from training.patchcore.scoring import Scored, score_rows

if TYPE_CHECKING:
    from data.dataset import Dataset
    from training.task import Task


def features_parity(
    features: PatchFeatures, scorer: Scorer, dataset: Dataset, task: Task, exported: Scored, threshold: float
) -> dict[str, Any]:
    """Score the whole test set with torch's features, and compare with the exported extractor's scores.

    Raises:
        ParityError: a score differs by more than ``SCORE_TOLERANCE``, or a decision differs.
    """

    def by_torch(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return next(embed(features, [images], device="cpu"))

    rows = read_rows(dataset, "test", task.heads)
    found = score_rows(scorer, dataset, rows, embed=by_torch, what="test images by torch")
    if not np.array_equal(found.ids, exported.ids):
        raise ParityError("The stored scores are not those of the test images.", hint="Evaluate again.")
    worst = float(np.abs(found.score - exported.score).max(initial=0.0))
    changed = int(((_wide(found.score) >= threshold) != (_wide(exported.score) >= threshold)).sum())
    result = {
        "images": len(found),
        "max_difference": worst if math.isfinite(worst) else math.inf,
        "tolerance": SCORE_TOLERANCE,
        "labels_changed": changed,
        "passed": worst <= SCORE_TOLERANCE and not changed,
    }
    if not result["passed"]:
        raise ParityError(
            f"Scores from torch's features and from the exported ones differ on {len(found)} test images: by "
            f"up to {worst:.1e} (allowed: {SCORE_TOLERANCE:g}), with {changed} decisions changed.",
            hint="The exported graph is not the network: try another backbone or torch version.",
        )
    return result


def served_parity(
    bundle: Bundle, files: Sequence[bytes], expected: Sequence[float], threshold: float, *, batch: int = 4
) -> dict[str, Any]:
    """Serve the bundle in processes of its own, send encoded images, and compare with the offline scores.

    An image that the quality gate refuses gets no score and is not compared; at least one must be scored.

    Raises:
        ParityError: a score or a decision differs, or none was given.
        ServingError: the server did not start, or answered something else.
    """
    from training.export.served import post, started

    with started(bundle.root) as url:
        return compare_served(
            lambda some: post(url, bundle.card.task, some), files, expected, threshold, batch=batch
        )


def compare_served(
    ask: Callable[[Sequence[bytes]], dict[str, Any]],
    files: Sequence[bytes],
    expected: Sequence[float],
    threshold: float,
    *,
    batch: int = 4,
) -> dict[str, Any]:
    """As :func:`served_parity`, with what sends a few files and gives the V2 document."""
    given: list[float] = []
    for start in range(0, len(files), batch):
        some = files[start : start + batch]
        given += _scores(ask(some), len(some))
    pairs = [(one, other) for one, other in zip(given, expected, strict=True) if not math.isnan(one)]
    if not pairs:
        raise ParityError(
            f"The started server refused all {len(files)} test images for their quality.",
            hint="The task's quality profile doesn't fit its images: retiderm data calibrate-quality.",
        )
    worst = max(abs(one - other) for one, other in pairs)
    changed = sum((one >= threshold) != (other >= threshold) for one, other in pairs)
    passed = worst <= SCORE_TOLERANCE and not changed
    if not passed:
        raise ParityError(
            f"The started server's scores differ from the offline ones on {len(pairs)} test images: by up to "
            f"{worst:.1e} (allowed: {SCORE_TOLERANCE:g}), {changed} decisions changed.",
            hint="Training and serving don't prepare images alike: compare their preprocessing.",
        )
    return {
        "images": len(files),
        "answered": len(pairs),
        "max_difference": worst,
        "tolerance": SCORE_TOLERANCE,
        "labels_changed": changed,
        "passed": passed,
    }


def _scores(document: dict[str, Any], count: int) -> list[float]:
    """The V2 document's ``anomaly.score``; NaN where an image has none."""
    outputs = {item.get("name"): item for item in document.get("outputs", [])}
    try:
        found = [math.nan if item is None else float(item) for item in outputs["anomaly.score"]["data"]]
    except (KeyError, TypeError, ValueError) as error:
        raise ServingError(
            f"The server's answer is not of the V2 form ({error!r}).", hint="Its log says more."
        ) from error
    if len(found) != count:
        raise ServingError(f"The server gave {len(found)} scores for {count} images.")
    return found


def _wide(scores: NDArray[np.float32]) -> NDArray[np.float64]:
    """In float64, as a decision is made: numpy would round the threshold to the scores' float32."""
    return scores.astype(np.float64)
