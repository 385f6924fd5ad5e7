"""Proof that the bundle answers as the trained model does; a difference blocks the export."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from data.errors import ParityError
from serving.core.bundle import HeadCard
from serving.core.decisions import decide
from serving.core.runtimes import Runtime
from training.model import Classifier

PROBABILITY_TOLERANCE = 1e-3
CAM_TOLERANCE = 1e-4

_BATCH = 16


def onnx_parity(
    model: Classifier, runtime: Runtime, images: NDArray[np.uint8], heads: Sequence[HeadCard]
) -> dict[str, Any]:
    """Compare torch with the runtime on preprocessed test images [N, H, W, 3], in batches and one alone.

    Calibrated probabilities must agree within ``PROBABILITY_TOLERANCE``, labels must be the same, and what is
    not a finite number fails.

    Raises:
        ParityError: they don't.
    """
    wanted = np.concatenate([torch_logits(model, batch) for batch in _batches(images)])
    given = np.concatenate([runtime.run(batch)["logits"] for batch in _batches(images)])
    alone = runtime.run(images[:1])["logits"]
    difference, changed = compare(np.concatenate([wanted, wanted[:1]]), np.concatenate([given, alone]), heads)
    result = {
        "images": len(images),
        "max_difference": difference,
        "tolerance": PROBABILITY_TOLERANCE,
        "labels_changed": changed,
        "passed": difference <= PROBABILITY_TOLERANCE and not changed,
    }
    if not result["passed"]:
        raise ParityError(
            f"ONNX Runtime differs from torch on {len(images)} test images: by up to {difference:.1e} in "
            f"probability (allowed: {PROBABILITY_TOLERANCE:g}), with {changed} labels changed.",
            hint="The exported graph is not the model: try another backbone or torch version.",
        )
    return result


def cam_parity(model: Classifier, runtime: Runtime, images: NDArray[np.uint8]) -> dict[str, Any]:
    """Compare the graph's ``cam`` with autograd's Grad-CAM for every class of a few test images.

    The difference is absolute, or relative to the image's strongest map value where that is above 1.

    Raises:
        ParityError: it is above ``CAM_TOLERANCE``.
    """
    worst = 0.0
    for batch in _batches(images, 4):
        wanted = autograd_cam(model, batch)
        given = runtime.run(batch, ("logits", "cam"))["cam"]
        scale = np.maximum(1.0, wanted.max(axis=(1, 2, 3), keepdims=True))
        worst = max(worst, float((np.abs(given - wanted) / scale).max()))
    result = {
        "images": len(images),
        "max_difference": worst,
        "tolerance": CAM_TOLERANCE,
        "passed": worst <= CAM_TOLERANCE,
    }
    if not result["passed"]:
        raise ParityError(
            f"The exported Grad-CAM differs from autograd's by {worst:.1e} (allowed: {CAM_TOLERANCE:g}).",
            hint="The backbone's pooling isn't what the closed form assumes: export without an explanation.",
        )
    return result


def compare(
    wanted: NDArray[np.floating[Any]], given: NDArray[np.floating[Any]], heads: Sequence[HeadCard]
) -> tuple[float, int]:
    """The largest difference in calibrated probability over all heads, and how many labels differ."""
    if wanted.shape != given.shape or not (np.isfinite(wanted).all() and np.isfinite(given).all()):
        return float("inf"), len(wanted)
    worst, changed, start = 0.0, 0, 0
    for head in heads:
        part = slice(start, start + len(head.classes))
        start = part.stop
        one, other = decide(wanted[:, part], head), decide(given[:, part], head)
        worst = max(worst, float(np.abs(one.probabilities - other.probabilities).max()))
        changed += int((one.label != other.label).sum())
    return worst, changed


def torch_logits(model: Classifier, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The torch model's logits in float32 on the CPU."""
    with torch.no_grad():
        logits = model(model.normalise(torch.from_numpy(np.ascontiguousarray(images))))
    return np.asarray(logits.numpy(), dtype=np.float32)


def autograd_cam(model: Classifier, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Grad-CAM by backpropagation, [N, C, h, w]: ReLU(Σₖ αₖ Aₖ), αₖ the mean over positions of ∂logit/∂Aₖ."""
    with torch.no_grad():
        features = model.features(model.normalise(torch.from_numpy(np.ascontiguousarray(images))))
    features = features.detach().requires_grad_(True)
    logits = model.head(model.pool(features))
    maps = []
    for c in range(logits.shape[1]):
        # Images don't touch each other in evaluation mode, so one sum gives every image's own gradient.
        (gradient,) = torch.autograd.grad(logits[:, c].sum(), features, retain_graph=True)
        alpha = gradient.mean((2, 3), keepdim=True)
        maps.append(torch.relu((alpha * features).sum(1)).detach())
    return np.asarray(torch.stack(maps, 1).numpy(), dtype=np.float32)


def _batches(images: NDArray[np.uint8], size: int = _BATCH) -> list[NDArray[np.uint8]]:
    return [images[start : start + size] for start in range(0, len(images), size)]
