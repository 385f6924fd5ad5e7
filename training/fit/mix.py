"""Mixup and CutMix: an image with another of the batch, and both their labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from training.fit.augment import box_mask
from training.spec.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Mixed:
    """Mixed images; ``share`` ``[N]`` is the part of the first labels, the rest belongs to ``labels``."""

    images: Tensor
    labels: dict[str, Tensor]
    share: Tensor


def mix(images: Tensor, labels: Mapping[str, Tensor], recipe: Recipe, seed: int) -> Mixed | None:
    """Mix each image with its mirror place in the batch, or None when this batch is left alone.

    With both strengths set, each batch is mixed the one way or the other by a coin.
    """
    if not (recipe.mixup_alpha or recipe.cutmix_alpha):
        return None
    rng = np.random.default_rng(seed)
    if rng.random() >= recipe.mix_p:
        return None
    count = len(images)
    cut = recipe.cutmix_alpha > 0 and (recipe.mixup_alpha == 0 or rng.random() < 0.5)
    alpha = recipe.cutmix_alpha if cut else recipe.mixup_alpha
    share = torch.tensor(rng.beta(alpha, alpha, count), dtype=torch.float32, device=images.device)
    # The batch's order is random already, so its mirror image is as good as any other partner.
    partners = images.flip(0)
    if cut:
        side = (1 - share).sqrt()
        centres = torch.tensor(rng.random((count, 2)), dtype=torch.float32, device=images.device)
        low, high = (centres - side[:, None] / 2).clamp(0, 1), (centres + side[:, None] / 2).clamp(0, 1)
        inside = box_mask(torch.cat([low, high], 1), (images.shape[2], images.shape[3]))
        images = torch.where(inside, partners, images)
        share = 1 - inside.float().mean((1, 2, 3))  # what is really left, after rounding and clipping
    else:
        images = torch.lerp(partners, images, share.view(-1, 1, 1, 1))
    return Mixed(images, {name: values.flip(0) for name, values in labels.items()}, share)
