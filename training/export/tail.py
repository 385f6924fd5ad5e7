"""The analytic vector–Jacobian product of what lies between the pooled map and the head's linear layer.

Most backbones have nothing there, and Grad-CAM is the closed form. MobileNetV3 puts a convolution after the
pooling, ConvNeXt a layer norm. Those layers act on one vector an image, so their derivative is written down
here layer by layer, and the exported graph needs no backward pass.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, linear

from training.face_cnn import FaceCnn
from training.model import Classifier

Saved = tuple[Tensor, ...]


class UnknownTail(Exception):
    """A layer after the pooling has no rule here; the message says which."""


class Step(nn.Module, ABC):
    """One layer on vectors: ``forward`` [N, D] gives its output, ``back`` pulls [N, C, D_out] back."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """The layer itself."""

    @abstractmethod
    def back(self, x: Tensor, gradient: Tensor) -> Tensor:
        """The gradient with respect to the input ``x``."""


class Affine(Step):
    """A linear layer, or a 1×1 convolution on a 1×1 map."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.register_buffer("weight", weight.detach().flatten(1))
        self.register_buffer("shift", torch.zeros(len(weight)) if bias is None else bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        """See ``Step``."""
        return linear(x, self.weight, self.shift)  # type: ignore[arg-type]

    def back(self, x: Tensor, gradient: Tensor) -> Tensor:
        """See ``Step``."""
        return gradient @ self.weight  # type: ignore[operator]


class Scale(Step):
    """A batch norm with fixed statistics."""

    def __init__(self, layer: nn.BatchNorm2d | nn.BatchNorm1d) -> None:
        super().__init__()
        assert layer.running_mean is not None
        assert layer.running_var is not None
        factor = (layer.weight if layer.affine else 1.0) / torch.sqrt(layer.running_var + layer.eps)
        shift = (layer.bias if layer.affine else 0.0) - layer.running_mean * factor
        self.register_buffer("factor", factor.detach())
        self.register_buffer("shift", shift.detach())

    def forward(self, x: Tensor) -> Tensor:
        """See ``Step``."""
        return x * self.factor + self.shift  # type: ignore[operator]

    def back(self, x: Tensor, gradient: Tensor) -> Tensor:
        """See ``Step``."""
        return gradient * self.factor  # type: ignore[operator]


class Norm(Step):
    """A layer norm over the vector."""

    def __init__(self, layer: nn.LayerNorm) -> None:
        super().__init__()
        self.eps = float(layer.eps)
        width = int(layer.normalized_shape[-1])
        weight: Any = layer.weight if layer.elementwise_affine else torch.ones(width)
        bias: Any = layer.bias if layer.bias is not None else torch.zeros(width)
        self.register_buffer("weight", weight.detach())
        self.register_buffer("shift", bias.detach())

    def _normal(self, x: Tensor) -> tuple[Tensor, Tensor]:
        centred = x - x.mean(-1, keepdim=True)
        inverse = torch.rsqrt((centred * centred).mean(-1, keepdim=True) + self.eps)
        return centred * inverse, inverse

    def forward(self, x: Tensor) -> Tensor:
        """See ``Step``."""
        return self._normal(x)[0] * self.weight + self.shift  # type: ignore[operator]

    def back(self, x: Tensor, gradient: Tensor) -> Tensor:
        """See ``Step``."""
        normal, inverse = self._normal(x)
        normal, inverse = normal.unsqueeze(1), inverse.unsqueeze(1)
        inner = gradient * self.weight  # type: ignore[operator]
        along = (inner * normal).mean(-1, keepdim=True)
        return inverse * (inner - inner.mean(-1, keepdim=True) - normal * along)


class Activation(Step):
    """An elementwise function with a known derivative."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        """See ``Step``."""
        return _FUNCTIONS[self.kind][0](x)  # type: ignore[no-any-return]

    def back(self, x: Tensor, gradient: Tensor) -> Tensor:
        """See ``Step``."""
        slope: Tensor = _FUNCTIONS[self.kind][1](x)
        return gradient * slope.unsqueeze(1)


def _hardswish_slope(x: Tensor) -> Tensor:
    inside = (x > -3).to(x.dtype) * (x < 3).to(x.dtype)
    return inside * (2 * x + 3) / 6 + (x >= 3).to(x.dtype)


def _silu_slope(x: Tensor) -> Tensor:
    gate = torch.sigmoid(x)
    return gate * (1 + x * (1 - gate))


def _gelu_slope(x: Tensor) -> Tensor:
    below = 0.5 * (1 + torch.erf(x * 0.7071067811865476))
    return below + x * torch.exp(-0.5 * x * x) * 0.3989422804014327


_FUNCTIONS: dict[str, tuple[Any, Any]] = {
    "relu": (torch.relu, lambda x: (x > 0).to(x.dtype)),
    "relu6": (lambda x: x.clamp(0, 6), lambda x: (x > 0).to(x.dtype) * (x < 6).to(x.dtype)),
    "hardswish": (lambda x: x * (x + 3).clamp(0, 6) / 6, _hardswish_slope),
    "silu": (lambda x: x * torch.sigmoid(x), _silu_slope),
    "gelu": (gelu, _gelu_slope),
}


class Tail(nn.Module):
    """The layers after the pooling, as steps: ``forward`` [N, K] → [N, D], ``back`` [N, C, D] → [N, C, K]."""

    def __init__(self, steps: Sequence[Step]) -> None:
        super().__init__()
        self.steps = nn.ModuleList(steps)

    def start(self, features: Tensor) -> Tensor:
        """What the first step takes, of a map [N, K, h, w]: its mean."""
        return features.mean((2, 3))

    def trace(self, pooled: Tensor) -> list[Tensor]:
        """The input of every step, and at the end the embedding."""
        values = [pooled]
        for step in self.steps:
            values.append(step(values[-1]))
        return values

    def forward(self, pooled: Tensor) -> Tensor:
        """The embedding."""
        return self.trace(pooled)[-1]

    def back(self, values: Sequence[Tensor], gradient: Tensor) -> Tensor:
        """Pull a gradient with respect to the embedding back to the pooled map."""
        for step, value in zip(reversed(self.steps), reversed(values[:-1]), strict=True):
            gradient = step.back(value, gradient)  # type: ignore[operator]
        return gradient


class Spread(Affine):
    """A linear layer over all places of a map. Pulled back to the sum over the places, a channel each."""

    def __init__(self, weight: Tensor, bias: Tensor | None, channels: int) -> None:
        super().__init__(weight, bias)
        self.register_buffer("summed", weight.detach().reshape(len(weight), channels, -1).sum(-1))

    def back(self, x: Tensor, gradient: Tensor) -> Tensor:
        """[N, C, D] to [N, C, K]: Grad-CAM needs the gradient's sum over the places, not each of them."""
        return gradient @ self.summed  # type: ignore[operator]


class MapTail(Tail):
    """A tail that begins with a flattened map instead of its mean."""

    def __init__(self, backbone: FaceCnn) -> None:
        hidden = backbone.hidden
        super().__init__([Spread(hidden.weight, hidden.bias, backbone.num_features), Activation("relu")])
        self.backbone = backbone

    def start(self, features: Tensor) -> Tensor:
        """The flattened map. Averaging it to fewer places first leaves the gradient's sum as it is."""
        return self.backbone.flat(features)


def find_tail(model: Classifier) -> Tail:
    """Read the layers after the pooling off the model, and try them against it.

    Raises:
        UnknownTail: a layer has no rule, or the layers in a row don't give what the model gives.
    """
    if isinstance(model.backbone, FaceCnn):
        return MapTail(model.backbone).eval()
    called: list[nn.Module] = []
    inside: list[nn.Module] = []

    def enter(module: nn.Module, _: Any) -> None:
        if not inside and (_step(module, probe=True) or not list(module.children())):
            called.append(module)
            inside.append(module)

    def leave(module: nn.Module, *_: Any) -> None:
        if inside and inside[-1] is module:
            inside.pop()

    hooks = []
    for module in model.backbone.modules():
        hooks += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    generator = torch.Generator().manual_seed(0)
    probe = torch.randn((2, model.feature_channels, 5, 5), generator=generator)
    try:
        with torch.no_grad():
            wanted = model.pool(probe)
    finally:
        for hook in hooks:
            hook.remove()
    steps = [step for module in called for step in _step(module)]
    tail = Tail(steps).eval()
    with torch.no_grad():
        try:
            got = tail(probe.mean((2, 3)))
        except RuntimeError as error:
            raise UnknownTail("The layers between pooling and head don't act on one vector.") from error
    if got.shape != wanted.shape or not torch.allclose(got, wanted, rtol=1e-4, atol=1e-4):
        raise UnknownTail("The layers between the last map and the head are more than pooling and a chain.")
    return tail


def _step(module: nn.Module, *, probe: bool = False) -> list[Step]:
    """A module as steps. A layer that changes nothing, and pooling itself, is no step; an unknown one raises.

    With ``probe`` an unknown one is no step either: it only tells whether a module counts as one layer.
    """
    name = type(module).__name__
    if isinstance(module, nn.Linear):
        return [Affine(module.weight, module.bias)]
    if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.groups == 1:
        return [Affine(module.weight, module.bias)]
    if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
        inner = [_step(child, probe=probe) for child in module.children()]
        return [Scale(module), *(step for steps in inner for step in steps)]
    if isinstance(module, nn.LayerNorm):
        return [Norm(module)]
    kind = name.lower().removesuffix("me")
    if kind in _FUNCTIONS and getattr(module, "approximate", "none") == "none":
        return [Activation(kind)]
    harmless = ("Identity", "Flatten", "Dropout", "DropPath")
    if (
        probe
        or isinstance(module, nn.Identity | nn.Flatten | nn.Dropout)
        or name in harmless
        or "Pool" in name
    ):
        return []
    raise UnknownTail(f"After the pooling comes a {name}, whose derivative isn't known here.")
