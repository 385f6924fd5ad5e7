"""The small networks of the older face-scan service, so that its weights can be taken over.

Three or four blocks of 3×3 convolution, ReLU and 2×2 max-pooling (32, 64, 128 and 256 channels), the last map
flattened, a linear layer of 512 with ReLU, and the classes. They go by names that say their shape::

    face_cnn3, face_cnn4         at 224 × 224; the map is 28 × 28 × 128 or 14 × 14 × 256
    …_valid                      convolutions without padding
    …_avg7                       the map is averaged to 7 × 7 before it is flattened

:func:`name_of` reads a state dict's shape off its tensors. A task can name one as its backbone, though a
pretrained one learns more from few images.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.nn import functional

from data.errors import TaskError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

CHANNELS = (32, 64, 128, 256)
HIDDEN = 512
#: Pixels a side of the images that the service gave them.
SIDE = 224
#: For people.
SHAPE = "Those have 3 or 4 convolutions of 3×3 with 32, 64, 128 (and 256) channels, then 512 and the classes."
_NAME = re.compile(r"face_cnn([34])(_valid)?(?:_avg(\d{1,2}))?")


class FaceCnn(nn.Module):
    """The network without its last layer, with what timm's models offer: a map, and an embedding of it.

    ``forward_features`` takes [N, 3, 224, 224] (any size where ``average``) and gives [N, K, h, w];
    ``forward_head`` takes that and gives [N, 512].
    """

    def __init__(self, blocks: int, *, padded: bool = True, average: int | None = None) -> None:
        super().__init__()
        self.num_features = CHANNELS[blocks - 1]
        self.average = average
        self.default_cfg: dict[str, Any] = {
            "input_size": (3, SIDE, SIDE),
            "mean": (0.485, 0.456, 0.406),
            "std": (0.229, 0.224, 0.225),
        }
        widths = (3, *CHANNELS[:blocks])
        padding = 1 if padded else 0
        self.convolutions = nn.ModuleList(
            nn.Conv2d(widths[i], widths[i + 1], 3, padding=padding) for i in range(blocks)
        )
        side = average or map_side(blocks, padded=padded)
        self.hidden = nn.Linear(self.num_features * side * side, HIDDEN)

    def forward_features(self, images: Tensor) -> Tensor:
        """The last block's map."""
        for convolution in self.convolutions:
            images = functional.max_pool2d(functional.relu(convolution(images)), 2)
        return images

    def flat(self, features: Tensor) -> Tensor:
        """The map as one vector an image, averaged to its few places first where the network does so."""
        if self.average is not None:
            features = functional.adaptive_avg_pool2d(features, self.average)
        return features.flatten(1)

    def forward_head(self, features: Tensor, pre_logits: bool = True) -> Tensor:
        """The embedding of a map. There is no classifier here, so ``pre_logits`` changes nothing."""
        del pre_logits
        return functional.relu(self.hidden(self.flat(features)))

    def forward(self, images: Tensor) -> Tensor:
        """The embedding [N, 512] of images."""
        return self.forward_head(self.forward_features(images))


def map_side(blocks: int, *, padded: bool, side: int = SIDE) -> int:
    """Places a side of the last map."""
    for _ in range(blocks):
        side = (side if padded else side - 2) // 2
    return side


def is_name(name: str) -> bool:
    """Whether a backbone's name is one of these."""
    return name.startswith("face_cnn")


def build(name: str) -> FaceCnn:
    """The network of that name, with random weights.

    Raises:
        TaskError: there is none.
    """
    found = _NAME.fullmatch(name)
    if not found or found[3] == "0":
        raise TaskError(
            f"There is no backbone {name!r}.", hint="face_cnn3 or face_cnn4; see docs/registry.md."
        )
    average = int(found[3]) if found[3] else None
    return FaceCnn(int(found[1]), padded=found[2] is None, average=average)


def name_of(state: Mapping[str, Tensor]) -> str:
    """The name of the network that a state dict belongs to, whatever its tensors are called.

    Raises:
        UsageError: it is none of these; says what doesn't fit.
    """
    convolutions, linears = _layers(state)
    widths = tuple(len(weight) for weight in convolutions)
    if widths not in (CHANNELS[:3], CHANNELS) or any(w.shape[2:] != (3, 3) for w in convolutions):
        shapes = ", ".join("×".join(map(str, weight.shape)) for weight in convolutions) or "none"
        raise _no(f"its convolutions are {shapes}")
    if len(linears) != 2 or len(linears[0]) != HIDDEN:
        raise _no(f"its linear layers give {', '.join(str(len(w)) for w in linears) or 'nothing'}")
    blocks = len(widths)
    places, rest = divmod(linears[0].shape[1], widths[-1])
    side = round(places**0.5)
    if rest or side * side != places:
        raise _no(
            f"its first linear layer takes {linears[0].shape[1]} numbers, no square map of {widths[-1]}"
        )
    padded = map_side(blocks, padded=True)
    if side == padded:
        return f"face_cnn{blocks}"
    if side == map_side(blocks, padded=False):
        return f"face_cnn{blocks}_valid"
    if side < padded:
        return f"face_cnn{blocks}_avg{side}"
    raise _no(f"its map is {side} × {side}, more than {padded} × {padded}")


def as_ours(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under this module's names, and the last layer's as ``head.weight`` and ``head.bias``.

    Raises:
        UsageError: it is none of these networks, or has tensors beside theirs.
    """
    name_of(state)
    convolutions, linears = _layers(state)
    ours: dict[str, Tensor] = {}
    places = [*(f"backbone.convolutions.{i}" for i in range(len(convolutions))), "backbone.hidden", "head"]
    taken: set[str] = set()
    for place, weight in zip(places, [*convolutions, *linears], strict=True):
        key = next(key for key, value in state.items() if value is weight)
        bias = key.removesuffix("weight") + "bias"
        if not key.endswith("weight") or bias not in state:
            raise _no(f"{key} has no bias beside it")
        ours[f"{place}.weight"], ours[f"{place}.bias"] = weight, state[bias]
        taken |= {key, bias}
    if extra := sorted(set(state) - taken):
        raise _no(f"it has {extra[0]} besides")
    return ours


def _layers(state: Mapping[str, Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Convolutions and linear layers in the order of their data: each takes what the one before gives.

    By shape rather than by name or place, since safetensors sorts its names.
    """
    convolutions = _chain([value for value in state.values() if value.ndim == 4], 3)
    linears = [value for value in state.values() if value.ndim == 2]
    # The first is the one whose input none of the others gives.
    outputs = {len(weight) for weight in linears}
    linears.sort(key=lambda weight: weight.shape[1] in outputs)
    return convolutions, linears


def _chain(weights: Sequence[Tensor], first: int) -> list[Tensor]:
    chain: list[Tensor] = []
    left, wanted = list(weights), first
    while left:
        following = next((weight for weight in left if weight.shape[1] == wanted), None)
        if following is None:
            return list(weights)
        chain.append(following)
        left = [weight for weight in left if weight is not following]
        wanted = len(following)
    return chain


def _no(why: str) -> UsageError:
    return UsageError(
        f"These weights are no network of the face-scan service: {why}.",
        hint=SHAPE,
    )
