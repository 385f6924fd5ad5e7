"""Parameter groups, the optimiser, and the learning rate at a step."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from training.model import Classifier
from training.spec.recipe import Recipe


def make_optimiser(model: Classifier, recipe: Recipe, device: torch.device) -> torch.optim.AdamW:
    """AdamW with the head's and the backbone's own rates; biases and norms are not decayed.

    Each group carries ``peak``, its highest rate, which :func:`set_rates` scales.
    """
    depth = _depths(model) if recipe.layer_decay < 1 else {}
    deepest = max(depth.values(), default=0)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        decay = recipe.weight_decay if parameter.ndim > 1 else 0.0
        if name.startswith("head."):
            peak = recipe.lr
        else:
            layers = deepest - depth.get(name.removeprefix("backbone."), deepest)
            peak = recipe.backbone_lr * recipe.layer_decay**layers
        groups.setdefault((peak, decay), []).append(parameter)
    described: list[dict[str, Any]] = [
        {"params": parameters, "peak": peak, "lr": peak, "weight_decay": decay}
        for (peak, decay), parameters in groups.items()
    ]
    return torch.optim.AdamW(described, fused=device.type in {"cpu", "cuda"})


def set_rates(optimiser: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's rate to ``factor`` of its peak."""
    for group in optimiser.param_groups:
        group["lr"] = group["peak"] * factor


def rate_factor(step: int, per_epoch: int, recipe: Recipe) -> float:
    """The part of the peak rate at a step counted from the beginning: a linear rise, then half a cosine."""
    total = max(1, recipe.epochs * per_epoch)
    warmup = min(total - 1, round(recipe.warmup_epochs * per_epoch))
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1, total - warmup)
    return recipe.final_lr + (1 - recipe.final_lr) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def _depths(model: Classifier) -> dict[str, int]:
    """Each backbone parameter's layer, counted from the image, by timm's own grouping."""
    from timm.models import group_parameters

    backbone: Any = model.backbone
    if not hasattr(backbone, "group_matcher"):
        return {}
    grouped = group_parameters(backbone, backbone.group_matcher(coarse=False), reverse=True)
    return {str(name): int(layer) for name, layer in grouped.items()}
