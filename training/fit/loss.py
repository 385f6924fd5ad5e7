"""The loss over all heads. A label of -1 is absent and counts nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from training.fit.order import class_weights
from training.spec.parts import HeadSpec
from training.spec.recipe import Recipe


class HeadLoss(nn.Module):
    """One head's loss, an image at a time."""

    targets: Tensor
    weights: Tensor
    adjust: Tensor

    def __init__(self, head: HeadSpec, labels: NDArray[np.int64], recipe: Recipe) -> None:
        super().__init__()
        count = len(head.classes)
        self.focal = recipe.focal_gamma if recipe.loss == "focal" else 0.0
        self.emd = recipe.emd_weight if head.ordinal else 0.0
        balance = recipe.balance
        power = balance.power if balance.kind == "weights" else 0.0
        counts = np.bincount(labels[labels >= 0], minlength=count).astype(np.float64)
        # An absent class gets half an image: its logarithm must exist, and it should stay improbable.
        prior = np.log(np.maximum(counts, 0.5) / max(counts.sum(), 1))
        tau = recipe.adjust_tau if recipe.loss == "logit_adjusted" else 0.0
        self.register_buffer("targets", torch.tensor(_targets(head, recipe), dtype=torch.float32))
        self.register_buffer(
            "weights", torch.tensor(class_weights(labels, count, power), dtype=torch.float32)
        )
        self.register_buffer("adjust", torch.tensor(tau * prior, dtype=torch.float32))

    def forward(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Weighted losses and weights ``[N]``; both 0 where the label is absent."""
        safe = labels.clamp(min=0)
        weight = torch.where(labels >= 0, self.weights[safe], 0.0)
        log_probabilities = functional.log_softmax(logits.float() + self.adjust, dim=1)
        loss = -(self.targets[safe] * log_probabilities).sum(1)
        if self.focal:
            right = log_probabilities.gather(1, safe[:, None]).squeeze(1).exp()
            loss = loss * (1 - right).clamp(min=1e-6) ** self.focal
        if self.emd:
            gap = log_probabilities.exp().cumsum(1) - self.targets[safe].cumsum(1)
            loss = loss + self.emd * (gap**2).sum(1)
        return loss * weight, weight


class TaskLoss(nn.Module):
    """The heads' losses, each averaged over the images that have the label, summed by the heads' weights."""

    def __init__(
        self, heads: Sequence[HeadSpec], labels: Mapping[str, NDArray[np.int64]], recipe: Recipe
    ) -> None:
        super().__init__()
        self.weights = {head.name: head.weight for head in heads}
        self.parts = nn.ModuleDict({head.name: HeadLoss(head, labels[head.name], recipe) for head in heads})

    def sums(
        self,
        logits: Mapping[str, Tensor],
        labels: Mapping[str, Tensor],
        mixed: tuple[Mapping[str, Tensor], Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """``[heads]`` sums of losses and ``[heads]`` sums of weights.

        ``mixed`` holds a second set of labels and the share ``[N]`` of the first.
        """
        losses, weights = [], []
        for name, part in self.parts.items():
            loss, weight = part(logits[name], labels[name])
            if mixed is not None:
                other, share = mixed
                second, second_weight = part(logits[name], other[name])
                loss = share * loss + (1 - share) * second
                weight = share * weight + (1 - share) * second_weight
            losses.append(loss.sum())
            weights.append(weight.sum())
        return torch.stack(losses), torch.stack(weights)

    def combine(self, losses: Tensor, weights: Tensor) -> Tensor:
        """The heads' mean losses in one number; a head without a label in the batch gives 0."""
        factors = torch.tensor([self.weights[name] for name in self.parts], device=losses.device)
        return (factors * losses / weights.clamp(min=1e-8)).sum()


def _targets(head: HeadSpec, recipe: Recipe) -> NDArray[np.float64]:
    """What is aimed at for each class: a row of probabilities, smoothed as the recipe says."""
    count = len(head.classes)
    table = np.eye(count)
    if recipe.loss == "ordinal" and head.ordinal:
        distance = np.subtract.outer(np.arange(count), np.arange(count))
        table = np.exp(-(distance**2) / (2 * recipe.ordinal_sigma**2))
        table /= table.sum(1, keepdims=True)
    smoothing = recipe.label_smoothing
    result: NDArray[np.float64] = (1 - smoothing) * table + smoothing / count
    return result
