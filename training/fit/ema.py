"""A moving average of the weights, which is what is evaluated and kept."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class Ema:
    """A second model that follows the first: ``average = decay * average + (1 - decay) * weights`` a step.

    Early on the decay is smaller, ``(1 + t) / (10 + t)``, so that short runs aren't held back by their
    beginning. Batch statistics are averaged too; counters are copied.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self.steps = 0
        pairs = list(zip(self.model.state_dict().values(), model.state_dict().values(), strict=True))
        self._floats = [pair for pair in pairs if pair[0].is_floating_point()]
        self._others = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self) -> None:
        """Move one step towards the model's present weights."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        ours: list[Tensor] = [pair[0] for pair in self._floats]
        theirs: list[Tensor] = [pair[1] for pair in self._floats]
        torch._foreach_lerp_(ours, theirs, 1 - decay)
        for own, other in self._others:
            own.copy_(other)
