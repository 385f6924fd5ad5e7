"""The extractor as a folder that serving opens without torch: ``extractor.onnx`` and ``extractor.json``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from data.errors import ParityError
from data.files import atomic_dir, atomic_path, sha256_file
from serving.core.patchcore.extractor import (
    INPUT,
    MODEL_FILE,
    OUTPUT,
    Extractor,
    ExtractorCard,
    Weights,
    write_card,
)
from training.export.graph import write_onnx
from training.patchcore.features import PatchFeatures, embed

if TYPE_CHECKING:
    from training.task import Task

#: How far a patch may lie from torch's, as Euclidean distance of unit vectors. The squared distance to any
#: vector of a memory then differs by at most 4 times that, |a² - b²| = |a - b| (a + b) with a, b <= 2: by the
#: 1e-3 that a score may differ.
PATCH_TOLERANCE = 2.5e-4

_BATCH = 8


def export_extractor(
    features: PatchFeatures, task: Task, folder: Path, *, images: NDArray[np.uint8] | None = None
) -> ExtractorCard:
    """Write a task's extractor as a folder, replacing one that is there, whole or not at all.

    ``images``, uint8 [N, H, W, 3] as the task prepares them, are what torch and ONNX Runtime are compared on;
    made-up ones when None. What came out is in the card's ``extra["parity"]``.

    Raises:
        ParityError: torch or ONNX can't take the backbone, or the two don't give the same patches.
    """
    with atomic_dir(folder) as temporary:
        card = write_extractor(features, task, temporary)
        probe = made_up(features.input_size) if images is None else images
        parity = patch_parity(features, Extractor.open(temporary), probe)
        card = replace(card, extra={**card.extra, "parity": parity})
        write_card(temporary, card)
    return card


def write_extractor(features: PatchFeatures, task: Task, folder: Path) -> ExtractorCard:
    """Write the two files into ``folder``, unproven: :func:`patch_parity` is the proof."""
    folder.mkdir(parents=True, exist_ok=True)
    features = features.cpu()
    example = torch.zeros((2, *features.input_size, 3), dtype=torch.uint8)
    with atomic_path(folder / MODEL_FILE) as temporary:
        write_onnx(features, example, [OUTPUT], temporary, features.backbone_name, input_name=INPUT)
    info = features.weights_info
    card = ExtractorCard(
        name=task.name,
        backbone=features.backbone_name,
        layers=tuple(str(level) for level in features.layers),
        input_size=features.input_size,
        grid=features.grid,
        dim=features.dim,
        mean=features.mean,
        std=features.std,
        weights=Weights(info.source, info.licence or "not stated", info.sha256),
        digest=sha256_file(folder / MODEL_FILE),
        preprocessing=task.preprocessing.to_dict(),
        extra={
            "neighbourhood": features.neighbourhood,
            "balance": features.balance,
            "projected": features.project is not None,
            "forbids": list(info.forbids),
            "note": info.note,
        },
    )
    write_card(folder, card)
    return card


def patch_parity(features: PatchFeatures, extractor: Extractor, images: NDArray[np.uint8]) -> dict[str, Any]:
    """Compare torch's patches with the exported graph's on prepared images [N, H, W, 3].

    Raises:
        ParityError: a patch lies further from torch's than ``PATCH_TOLERANCE``.
    """
    worst = 0.0
    batches = [images[start : start + _BATCH] for start in range(0, len(images), _BATCH)]
    for batch, wanted in zip(batches, embed(features, batches, device="cpu"), strict=True):
        given = extractor.embed(batch)
        apart = np.linalg.norm(given - wanted, axis=-1).max(initial=0.0)
        worst = max(worst, float(apart) if np.isfinite(apart) else float("inf"))
    result = {
        "images": len(images),
        "max_difference": worst,
        "tolerance": PATCH_TOLERANCE,
        "passed": worst <= PATCH_TOLERANCE,
    }
    if not result["passed"]:
        raise ParityError(
            f"ONNX Runtime's patches lie up to {worst:.1e} from torch's on {len(images)} images (allowed: "
            f"{PATCH_TOLERANCE:g}).",
            hint="The exported graph is not the extractor: try another backbone or torch version.",
        )
    return result


def made_up(size: tuple[int, int], count: int = 4) -> NDArray[np.uint8]:
    """Images uint8 [count, H, W, 3] to compare on where there are no real ones: coarse blocks and noise."""
    draw = np.random.default_rng(0)
    blocks = draw.integers(0, 256, (count, -(-size[0] // 16), -(-size[1] // 16), 3))
    coarse = blocks.repeat(16, axis=1).repeat(16, axis=2)[:, : size[0], : size[1]]
    return np.clip(coarse + draw.normal(0, 20, coarse.shape), 0, 255).astype(np.uint8)
