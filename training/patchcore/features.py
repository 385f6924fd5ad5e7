"""Patch features of a frozen timm backbone: ``uint8 [N, H, W, 3]`` in, unit vectors ``[N, Ht, Wt, D]`` out.

As in PatchCore (Roth et al., CVPR 2022): maps of intermediate levels, each averaged over a small
neighbourhood, brought to one grid and joined. A vision transformer gives its patch tokens, after its final
norm; class and register tokens are dropped. Nothing here learns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from data.errors import TaskError
from training.spec.parts import WeightsSpec
from training.weights import start

if TYPE_CHECKING:
    from training.task import Task

Grid = tuple[int, int]
#: Strides of the two levels that PatchCore joins, taken where a task names no layers.
_AUTO_STRIDES = (8, 16)


class PatchFeatures(nn.Module):
    """The extractor as torch has it; the exported graph is this module.

    ``grid`` is (Ht, Wt), ``dim`` D, ``layers`` the levels in fact taken (from 0), ``mean`` and ``std`` of
    pixels from 0 to 1, ``weights_info`` where the weights came from. Always in evaluation mode.

    Raises :class:`TaskError`: no such backbone or level, an input size it can't take, no weights.
    """

    def __init__(
        self,
        backbone: str,
        *,
        input_size: tuple[int, int],
        layers: Sequence[int] = (),
        stride: int | None = None,
        neighbourhood: int = 3,
        balance: bool = False,
        project: int | None = None,
        weights: WeightsSpec | None = None,
        pretrained: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        begun = start(backbone, weights or WeightsSpec(), pretrained=pretrained)
        self.backbone_name = backbone
        self.backbone: Any = begun.backbone
        self.mean, self.std, self.weights_info = begun.mean, begun.std, begun.info
        self.input_size = input_size
        self.neighbourhood, self.balance = neighbourhood, balance
        strides = _strides(self.backbone, backbone)
        self.layers = _chosen(layers, strides, backbone)
        # A plain transformer's blocks all have one stride, and only its final norm makes tokens comparable.
        self._norm = len(set(strides)) == 1
        _resize(self.backbone, backbone, input_size)
        self.register_buffer("offset", (torch.tensor(self.mean) * 255).view(1, 3, 1, 1))
        self.register_buffer("factor", (1 / (torch.tensor(self.std) * 255)).view(1, 3, 1, 1))
        self.requires_grad_(False)
        super().train(False)
        with torch.no_grad():
            maps = self._maps(torch.zeros(1, 3, *input_size))
        self.grid: Grid = _grid(maps, input_size, stride)
        width = sum(int(level.shape[1]) for level in maps)
        self.project: Tensor | None
        self.register_buffer("project", None if project is None else _projection(width, project, seed))
        self.dim = width if project is None else project

    def train(self, mode: bool = True) -> PatchFeatures:
        """Stays in evaluation mode: a frozen extractor that followed its inputs would forget its memory."""
        return self

    def forward(self, image: Tensor) -> Tensor:
        """uint8 [N, H, W, 3] (RGB) to float32 [N, Ht, Wt, D], every vector of length 1."""
        # The transpose moves bytes, a quarter of what it would move after the cast.
        pixels = image.permute(0, 3, 1, 2).to(torch.float32)
        maps = self._maps((pixels - self.offset) * self.factor)  # type: ignore[operator]
        joined = []
        for level in maps:
            level = _resample(_averaged(level, self.neighbourhood), self.grid)
            joined.append(functional.normalize(level, dim=1) if self.balance else level)
        patches = torch.cat(joined, 1).permute(0, 2, 3, 1)
        if self.project is not None:
            patches = patches @ self.project
        return functional.normalize(patches, dim=-1)

    def _maps(self, images: Tensor) -> list[Tensor]:
        """The chosen levels [N, C, h, w], finest first; blocks after the last are not computed."""
        return list(
            self.backbone.forward_intermediates(
                images,
                indices=list(self.layers),
                norm=self._norm,
                stop_early=True,
                output_fmt="NCHW",
                intermediates_only=True,
            )
        )


def build_features(task: Task, *, pretrained: bool = True) -> PatchFeatures:
    """The extractor that a task of kind ``anomaly`` asks for."""
    spec = task.patchcore
    if spec is None:
        raise TaskError(f"Task {task.name} is of kind {task.kind}; only an anomaly task has an extractor.")
    return PatchFeatures(
        task.backbone,
        input_size=task.input_size,
        layers=spec.layers,
        stride=spec.stride,
        neighbourhood=spec.neighbourhood,
        balance=spec.balance,
        project=spec.project,
        weights=task.weights,
        pretrained=pretrained,
        seed=spec.seed,
    )


def embed(
    features: PatchFeatures, batches: Iterable[NDArray[np.uint8]], *, device: str = "auto"
) -> Iterator[NDArray[np.float32]]:
    """The patches [n, Ht, Wt, D] of each batch of images uint8 [n, H, W, 3], in full precision."""
    from training.fit.device import choose_device

    where = choose_device(device)
    features.to(where)
    for batch in batches:
        # A GPU would otherwise round convolutions to TF32, which is coarser than what parity allows.
        exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
        with exact, torch.inference_mode():
            patches = features(torch.from_numpy(np.ascontiguousarray(batch)).to(where))
        yield patches.float().cpu().numpy()


def _strides(backbone: Any, name: str) -> list[int]:
    """Pixels a step of every level that the backbone can give."""
    info = getattr(backbone, "feature_info", None)
    if not info or not hasattr(backbone, "forward_intermediates"):
        raise TaskError(
            f"{name} gives no intermediate features.",
            hint="Use a timm CNN or vision transformer, such as tf_efficientnet_lite0.",
        )
    # A list of dictionaries, or timm's object around one.
    return [int(level["reduction"]) for level in (info if isinstance(info, list) else info.info)]


def _chosen(layers: Sequence[int], strides: Sequence[int], name: str) -> tuple[int, ...]:
    count = len(strides)
    if not layers:
        auto = [
            max(i for i, s in enumerate(strides) if s == stride)
            for stride in _AUTO_STRIDES
            if stride in strides
        ]
        return tuple(auto) if len(auto) == len(_AUTO_STRIDES) else (count - 1,)
    taken = sorted({level + count if level < 0 else level for level in layers})
    if len(taken) != len(layers) or not all(0 <= level < count for level in taken):
        raise TaskError(
            f"`patchcore.layers` is {list(layers)}; {name} has {count} levels, 0 to {count - 1}.",
            hint=f"Their strides are {', '.join(map(str, strides))} pixels.",
        )
    return tuple(taken)


def _resize(backbone: Any, name: str, size: tuple[int, int]) -> None:
    """Fit a transformer's position table to the input; a CNN takes any size."""
    patch = getattr(getattr(backbone, "patch_embed", None), "patch_size", None)
    if patch is not None and any(side % step for side, step in zip(size, patch, strict=True)):
        near = [round(side / step) * step for side, step in zip(size, patch, strict=True)]
        raise TaskError(
            f"`input_size` is {list(size)}; {name} takes multiples of {patch[0]}.",
            hint=f"Set it to {near}.",
        )
    if hasattr(backbone, "set_input_size"):
        backbone.set_input_size(img_size=size)


def _grid(maps: Sequence[Tensor], size: tuple[int, int], stride: int | None) -> Grid:
    if stride is None:
        return max((int(level.shape[2]), int(level.shape[3])) for level in maps)
    if stride > min(size):
        raise TaskError(f"`patchcore.stride` is {stride} and the input only {list(size)}.")
    return -(-size[0] // stride), -(-size[1] // stride)


def _averaged(level: Tensor, side: int) -> Tensor:
    """The mean over ``side`` x ``side`` patches; at the border over those that there are."""
    if side == 1:
        return level
    return functional.avg_pool2d(level, side, stride=1, padding=side // 2, count_include_pad=False)


def _resample(level: Tensor, grid: Grid) -> Tensor:
    """To ``grid``: block means where a whole number of patches makes one, linear otherwise."""
    height, width = int(level.shape[2]), int(level.shape[3])
    if (height, width) == grid:
        return level
    if height % grid[0] == 0 and width % grid[1] == 0:
        return functional.avg_pool2d(level, (height // grid[0], width // grid[1]))
    return functional.interpolate(level, size=grid, mode="bilinear", align_corners=False)


def _projection(width: int, dim: int, seed: int) -> Tensor:
    """A fixed random projection [width, dim] that keeps distances on average (Johnson-Lindenstrauss)."""
    if dim >= width:
        raise TaskError(f"`patchcore.project` is {dim}, but the features have only {width} dimensions.")
    drawn = np.random.default_rng(seed).standard_normal((width, dim)) / np.sqrt(dim)
    return torch.from_numpy(drawn.astype(np.float32))
