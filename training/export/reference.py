"""What a bundle remembers of its data: golden answers, and statistics for unusualness and drift."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from serving.core.bundle import HeadCard
from serving.core.decisions import decide
from serving.core.drift.features import neighbour_distance as distance_to
from serving.core.drift.features import principal
from serving.core.drift.reference import NEIGHBOURS
from serving.core.runtimes import Runtime
from training.export.images import load_pixels, sample

if TYPE_CHECKING:
    import pandas as pd

    from data.dataset import Dataset
    from data.preprocess import Preprocessing

GOLDEN_IMAGES = 8
REFERENCE_IMAGES = 512
_COMPONENTS = 64
_HISTOGRAM_BINS = 20
_PERCENTILES = np.linspace(0, 1, 101)
_BATCH = 16


def golden(runtime: Runtime, images: NDArray[np.uint8]) -> bytes:
    """``golden.npz``: a few preprocessed images and what this model says about them."""
    chosen = images[:GOLDEN_IMAGES]
    return npz(images=chosen, logits=runtime.run(chosen)["logits"])


def reference(
    runtime: Runtime,
    dataset: Dataset,
    preprocessing: Preprocessing,
    heads: Sequence[HeadCard],
    *,
    count: int = REFERENCE_IMAGES,
    seed: int = 0,
) -> bytes:
    """``reference.npz``; ``docs/bundle.md`` lists its arrays.

    From a sample of the training images: embeddings, their principal components and nearest-neighbour
    distances, pixel statistics. From a sample of the validation images, which the model did not learn:
    outputs as they will be served, since a model is surer of what it learned.
    """
    frame = dataset.frame()
    train = frame[frame["split"] == "train"]
    pixels = load_pixels(dataset, sample(train, count, seed, "training"), preprocessing)
    arrays = training_statistics(_run(runtime, pixels, "embedding")["embedding"], pixels, train)
    val = sample(frame[frame["split"] == "val"], count, seed, "validation")
    pixels = load_pixels(dataset, val, preprocessing)
    found = _run(runtime, pixels, "logits", "embedding")
    arrays |= drift_sample(val, pixels, found["embedding"], arrays)
    start = 0
    for head in heads:
        part = found["logits"][:, start : start + len(head.classes)]
        start += len(head.classes)
        arrays |= _outputs(head, part, train, answered=arrays["drift.gradable"])
    return npz(**arrays)


def training_statistics(
    embedding: NDArray[np.float32], pixels: NDArray[np.uint8], frame: pd.DataFrame
) -> dict[str, NDArray[Any]]:
    """What every bundle keeps of its training images: embeddings [n, D], pixels, the split's quality."""
    return {**_embeddings(embedding), **_pixels(pixels), **_quality(frame)}


def drift_sample(
    rows: pd.DataFrame,
    pixels: NDArray[np.uint8],
    embedding: NDArray[np.float32],
    arrays: Mapping[str, NDArray[Any]],
    *,
    distance: NDArray[np.floating[Any]] | None = None,
) -> dict[str, NDArray[Any]]:
    """What drift is measured against: images that the model did not learn from, one row each.

    ``rows`` are the manifest's, ``arrays`` what ``training_statistics`` gave, ``distance`` [n] the images'
    own to the sample, where it isn't simply measured. Images that serving would refuse keep their quality
    scores and nothing else, as in a server's window.
    """
    values = embedding.astype(np.float64)
    if distance is None:
        distance = distance_to(values, arrays["embedding_sample"].astype(np.float64), NEIGHBOURS)
    answered = (rows["verdict"] == "gradable").to_numpy()
    mean, components = (arrays[f"embedding_{name}"].astype(np.float64) for name in ("mean", "components"))
    found: dict[str, NDArray[Any]] = {
        "drift.scores": principal(values, mean, components),
        "drift.distance": np.asarray(distance),
        "drift.colour": channels(pixels),
    }
    for value in found.values():
        value[~answered] = np.nan
    for name in ("sharpness", "exposure"):
        if name in rows:
            found[f"drift.{name}"] = rows[name].to_numpy(dtype=np.float64)
    # Numbers, not names: which images belong together, and nothing about whose they are.
    named = rows["group"].where(rows["group"].notna(), "\0" + rows["id"].astype(str)).astype(str)
    groups = np.unique(named.to_numpy(), return_inverse=True)[1]
    return {
        **{name: value.astype(np.float32) for name, value in found.items()},
        "drift.gradable": answered,
        "drift.group": groups.astype(np.int32),
    }


def channels(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The channel means, then deviations, of preprocessed images: [n, 6], 0 to 255."""
    # Image by image: all of them as floats at once would take a gigabyte.
    flat = [image.reshape(-1, 3) for image in pixels]
    return np.array([[*image.mean(axis=0), *image.std(axis=0)] for image in flat]).reshape(-1, 6)


def npz(**arrays: NDArray[Any]) -> bytes:
    """Arrays as the bytes of a compressed ``.npz``; equal arrays give equal bytes."""
    stream = io.BytesIO()
    # Typed as if a file's name could be among the arrays.
    np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
    return stream.getvalue()


def _run(runtime: Runtime, images: NDArray[np.uint8], *names: str) -> dict[str, NDArray[np.float32]]:
    parts = [runtime.run(images[start : start + _BATCH], names) for start in range(0, len(images), _BATCH)]
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


def _embeddings(embedding: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    values = embedding.astype(np.float64)
    mean, std = values.mean(axis=0), values.std(axis=0)
    centred = values - mean
    _, singular, directions = np.linalg.svd(centred, full_matrices=False)
    kept = min(_COMPONENTS, len(singular))
    stored = embedding.astype(np.float16)
    return {
        "embedding_mean": mean.astype(np.float32),
        "embedding_std": std.astype(np.float32),
        "embedding_components": directions[:kept].astype(np.float32),
        "embedding_variances": (singular[:kept] ** 2 / max(1, len(values) - 1)).astype(np.float32),
        "embedding_sample": stored,
        "neighbour_distance": neighbour_distance(stored),
    }


def neighbour_distance(sample: NDArray[np.float16]) -> NDArray[np.float32]:
    """For each embedding the cosine distance to its ``NEIGHBOURS``-th nearest other one, sorted [n].

    What is usual: a new image whose own distance to the sample is far beyond these is unusual.
    """
    return np.sort(nearest_others(sample))


def nearest_others(sample: NDArray[np.float16]) -> NDArray[np.float32]:
    """The same in the sample's order [n]."""
    values = sample.astype(np.float64)
    values /= np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
    distances = 1.0 - values @ values.T
    np.fill_diagonal(distances, np.inf)
    k = min(NEIGHBOURS, len(values) - 1)
    if k < 1:
        return np.zeros(len(values), np.float32)
    nearest = np.partition(distances, k - 1, axis=1)[:, k - 1]
    return np.maximum(nearest, 0.0).astype(np.float32)


def _pixels(pixels: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    colour = channels(pixels)
    return {
        "colour_mean_percentiles": np.quantile(colour[:, :3], _PERCENTILES, axis=0).astype(np.float32),
        "colour_std_percentiles": np.quantile(colour[:, 3:], _PERCENTILES, axis=0).astype(np.float32),
    }


def _quality(train: pd.DataFrame) -> dict[str, NDArray[Any]]:
    found = {}
    for name in ("sharpness", "exposure"):
        values = train[name].dropna().to_numpy(dtype=np.float64) if name in train else np.empty(0)
        if len(values):
            found[f"{name}_percentiles"] = np.quantile(values, _PERCENTILES).astype(np.float32)
    return found


def _outputs(
    head: HeadCard, logits: NDArray[np.float32], train: pd.DataFrame, *, answered: NDArray[np.bool_]
) -> dict[str, NDArray[Any]]:
    decision = decide(logits, head)
    probabilities = np.where(answered[:, None], decision.probabilities, np.nan).astype(np.float32)
    counts = train[f"label.{head.name}"].value_counts()
    prior = np.array([counts.get(name, 0) for name in head.classes], dtype=np.float64)
    confidence = np.histogram(decision.confidence, bins=_HISTOGRAM_BINS, range=(0, 1))[0]
    return {
        f"{head.name}.prior": (prior / max(1.0, prior.sum())).astype(np.float32),
        f"{head.name}.mean_probability": decision.probabilities.mean(axis=0).astype(np.float32),
        f"{head.name}.labels": np.bincount(decision.label, minlength=len(head.classes)).astype(np.int64),
        f"{head.name}.confidence_histogram": confidence.astype(np.int64),
        f"{head.name}.probabilities": probabilities,
        f"{head.name}.uncertain_share": np.float32(decision.uncertain.mean()),
    }
