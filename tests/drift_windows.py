"""Answers of a made-up model: as a bundle's reference keeps them, and as windows, with shifts to choose."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.core.bundle import HeadCard
from serving.core.drift import Reference, Window

WIDTH, KEPT = 16, 6
HEAD = HeadCard("grade", ("a", "b", "c"), titles=("Alpha", "Beta", "Gamma"), uncertain_below=0.5)
PRIOR = (0.6, 0.3, 0.1)
METRICS: dict[str, Any] = {
    "heads": {
        "grade": {
            "n": 1000,
            "accuracy": {"value": 0.85, "low": 0.828, "high": 0.872},
            "calibration": {"ece_after": 0.02, "ece_band": [0.01, 0.04]},
        }
    }
}


def window(
    images: int,
    seed: int = 0,
    *,
    prior: tuple[float, ...] = PRIOR,
    moved: float = 0.0,
    warmer: float = 0.0,
    blurrier: float = 0.0,
    refused: float = 0.0,
    labelled: bool = False,
    wrong: float = 0.0,
) -> Window:
    """Images from one source; the keywords say what is otherwise.

    ``moved`` shifts the embeddings (deviations), ``warmer`` reds (grey levels), ``blurrier`` sharpness,
    ``refused`` is the share without an answer, ``wrong`` the share of the truth that is another class than
    the calibrated one.
    """
    rng = np.random.default_rng([seed, 99])
    truth = rng.choice(3, images, p=prior)
    logits = rng.normal(0, 1, (images, 3)) + 3.0 * np.eye(3)[truth]
    probabilities = np.exp(logits + np.log(prior))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    embedding = rng.normal(0, 1, (images, WIDTH)) + np.eye(3, WIDTH)[truth]
    embedding[:, 4] += moved
    colour = np.concatenate(
        [rng.normal([180, 120, 110], 15, (images, 3)), rng.normal(30, 4, (images, 3))], axis=1
    )
    colour[:, 0] += warmer
    gradable = rng.random(images) >= refused
    truth = np.where(rng.random(images) < wrong, (truth + 1) % 3, truth)
    for values in (embedding, colour, probabilities):
        values[~gradable] = np.nan
    return Window(
        images=images,
        gradable=gradable,
        sharpness=rng.normal(0.65, 0.08, images) - blurrier,
        exposure=rng.normal(140, 20, images),
        colour=colour,
        embedding=embedding,
        probabilities={"grade": probabilities},
        truth={"grade": truth} if labelled else {},
    )


def arrays(images: int = 400, seed: int = 1) -> dict[str, NDArray[Any]]:
    """A ``reference.npz``'s arrays, those about drift in particular."""
    known = window(300, seed + 1000).embedding
    held = window(images, seed)
    assert known is not None
    assert held.embedding is not None
    mean = known.mean(axis=0)
    components = np.linalg.svd(known - mean, full_matrices=False)[2][:KEPT]
    from serving.core.drift import NEIGHBOURS
    from serving.core.drift.features import neighbour_distance, principal

    return {
        "embedding_mean": mean.astype(np.float32),
        "embedding_components": components.astype(np.float32),
        "embedding_sample": known.astype(np.float16),
        "sharpness_percentiles": np.quantile(held.sharpness, np.linspace(0, 1, 101)),
        "exposure_percentiles": np.quantile(held.exposure, np.linspace(0, 1, 101)),
        "grade.labels": np.bincount(held.probabilities["grade"].argmax(axis=1), minlength=3),
        "grade.uncertain_share": np.float32((held.probabilities["grade"].max(axis=1) < 0.5).mean()),
        "drift.group": np.arange(images, dtype=np.int32),
        "drift.gradable": held.gradable,
        "drift.sharpness": held.sharpness,
        "drift.exposure": held.exposure,
        "drift.colour": held.colour,
        "drift.scores": principal(held.embedding, mean, components),
        "drift.distance": neighbour_distance(held.embedding, known, NEIGHBOURS),
        "grade.probabilities": held.probabilities["grade"],
    }


def reference(images: int = 400, seed: int = 1) -> Reference:
    """The same, opened."""
    return Reference.of_arrays(
        arrays(images, seed), (HEAD,), task="demo", digest="sha256:" + "0" * 64, metrics=METRICS
    )
