"""Random changes to a batch of images, on whatever device it lies.

All draws are made on the CPU, for the whole batch, from one seed: they are the same on every device, and in
every process of a distributed run, each of which takes its own images' share.

Geometry is one resampling (flips, rotation, zoom, shear and shift as one matrix), colour one 3 x 3 matrix and
an offset an image (brightness, contrast, saturation and hue are all linear).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from training.spec.recipe import Augment

#: Luma of RGB (Rec. 601), for saturation and contrast.
_LUMA = (0.299, 0.587, 0.114)
#: RGB to YIQ, in whose I-Q plane a hue turn is a rotation.
_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


@dataclass(frozen=True, slots=True)
class Draws:
    """What was drawn for a batch of N images; all tensors on the CPU, the first axis is the image."""

    affine: Tensor | None  # [N, 2, 3], from output to input, both from -1 to 1
    colour: Tensor | None  # [N, 3, 3], applied to RGB as a column
    contrast: Tensor | None  # [N], around the image's own mean grey
    erase: Tensor | None  # [N, 4]: top, left, bottom, right from 0 to 1; an empty box for most
    blur: Tensor | None  # [N], 0 or 1
    noise: Tensor | None  # [N], standard deviations
    seed: int

    def part(self, rank: int, world: int) -> Draws:
        """The draws of one process's images: ``rank``, ``rank + world``, ..."""
        chosen: dict[str, Any] = {"seed": self.seed + rank}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                chosen[field.name] = value[rank::world]
        return Draws(
            **{**dict.fromkeys(("affine", "colour", "contrast", "erase", "blur", "noise")), **chosen}
        )


def draw(augment: Augment, count: int, size: tuple[int, int], seed: int) -> Draws:
    """Draw for ``count`` images of ``size`` (height, width)."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float) -> Tensor:
        # Always drawn, so that switching one change off leaves the others' draws as they were.
        return low + (high - low) * torch.rand(count, generator=generator)

    flip_x = torch.where(uniform(0, 1) < (0.5 if augment.hflip else 0), -1.0, 1.0)
    flip_y = torch.where(uniform(0, 1) < (0.5 if augment.vflip else 0), -1.0, 1.0)
    angle = uniform(-1, 1) * math.radians(augment.rotate_degrees)
    # Evenly in the logarithm: half as large and twice as large are equally far from the picture.
    zoom = uniform(math.log(augment.scale[0]), math.log(augment.scale[1])).exp()
    shear = (uniform(-1, 1) * math.radians(augment.shear_degrees)).tan()
    shift_x, shift_y = (uniform(-2, 2) * augment.translate for _ in range(2))
    brightness, saturation = (
        1 + uniform(-1, 1) * limit for limit in (augment.brightness, augment.saturation)
    )
    contrast = 1 + uniform(-1, 1) * augment.contrast
    hue = uniform(-1, 1) * 2 * math.pi * augment.hue
    boxes = _boxes(augment, uniform)
    blur = (uniform(0, 1) < augment.blur).float()
    noise = uniform(0, 1) * augment.noise

    moves = (
        augment.rotate_degrees or augment.translate or augment.shear_degrees or augment.scale != (1.0, 1.0)
    )
    colours = augment.brightness or augment.saturation or augment.hue
    return Draws(
        affine=_affine(flip_x, flip_y, angle, zoom, shear, shift_x, shift_y, size)
        if moves or augment.hflip or augment.vflip
        else None,
        colour=_colour(brightness, saturation, hue) if colours else None,
        contrast=contrast if augment.contrast else None,
        erase=boxes if augment.erase_p else None,
        blur=blur if augment.blur else None,
        noise=noise if augment.noise else None,
        seed=seed,
    )


def apply(images: Tensor, draws: Draws, *, fill: str = "reflect") -> Tensor:
    """Change images ``[N, 3, H, W]`` with values from 0 to 1; the result has the same shape and range."""
    device = images.device
    if draws.affine is not None:
        grid = functional.affine_grid(draws.affine.to(device), list(images.shape), align_corners=False)
        padding = "reflection" if fill == "reflect" else "zeros"
        images = functional.grid_sample(images, grid, padding_mode=padding, align_corners=False)
    if draws.colour is not None:
        images = torch.einsum("nij,njhw->nihw", draws.colour.to(device), images)
    if draws.contrast is not None:
        luma = torch.tensor(_LUMA, device=device).view(1, 3, 1, 1)
        grey = (images * luma).sum(1, keepdim=True).mean((2, 3), keepdim=True)
        images = torch.lerp(grey.expand_as(images), images, draws.contrast.to(device).view(-1, 1, 1, 1))
    if draws.blur is not None:
        images = torch.lerp(images, _blurred(images), draws.blur.to(device).view(-1, 1, 1, 1))
    if draws.noise is not None:
        generator = torch.Generator(device).manual_seed(draws.seed)
        added = torch.randn(images.shape, generator=generator, device=device)
        images = images + added * draws.noise.to(device).view(-1, 1, 1, 1)
    if draws.colour is not None or draws.contrast is not None or draws.noise is not None:
        images = images.clamp(0, 1)
    if draws.erase is not None:
        inside = box_mask(draws.erase.to(device), (images.shape[2], images.shape[3]))
        images = torch.where(inside, images.mean((2, 3), keepdim=True), images)
    return images


def box_mask(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes ``[N, 4]`` (top, left, bottom, right from 0 to 1) as ``[N, 1, H, W]``, true inside."""
    rows = (torch.arange(size[0], device=boxes.device) + 0.5) / size[0]
    columns = (torch.arange(size[1], device=boxes.device) + 0.5) / size[1]
    top, left, bottom, right = (edge[:, None] for edge in boxes.unbind(1))
    tall = (rows >= top) & (rows < bottom)
    wide = (columns >= left) & (columns < right)
    return (tall[:, :, None] & wide[:, None, :])[:, None]


def _affine(
    flip_x: Tensor,
    flip_y: Tensor,
    angle: Tensor,
    zoom: Tensor,
    shear: Tensor,
    shift_x: Tensor,
    shift_y: Tensor,
    size: tuple[int, int],
) -> Tensor:
    """Where each output place is read from; rotation is in pixels, so the aspect ratio enters."""
    aspect = size[1] / size[0]
    cos, sin = angle.cos() / zoom, angle.sin() / zoom
    row_x = torch.stack([flip_x * cos, flip_x * (shear * cos - sin) / aspect, shift_x], 1)
    row_y = torch.stack([flip_y * sin * aspect, flip_y * (shear * sin + cos), shift_y], 1)
    return torch.stack([row_x, row_y], 1)


def _colour(brightness: Tensor, saturation: Tensor, hue: Tensor) -> Tensor:
    to_yiq = torch.tensor(_YIQ)
    cos, sin, zero, one = hue.cos(), hue.sin(), torch.zeros_like(hue), torch.ones_like(hue)
    # Saturation is the length in the I-Q plane, hue the angle; Y stays.
    turn = torch.stack(
        [
            torch.stack([one, zero, zero], 1),
            torch.stack([zero, saturation * cos, -saturation * sin], 1),
            torch.stack([zero, saturation * sin, saturation * cos], 1),
        ],
        1,
    )
    matrix: Tensor = brightness[:, None, None] * (torch.linalg.inv(to_yiq) @ turn @ to_yiq)
    return matrix


def _boxes(augment: Augment, uniform: Callable[[float, float], Tensor]) -> Tensor:
    """Rectangles of the drawn area and an aspect ratio from 0.3 to 3.3; empty where none is to be painted."""
    chosen = uniform(0, 1) < augment.erase_p
    area = uniform(*augment.erase_area)
    aspect = uniform(math.log(0.3), math.log(3.3)).exp()
    height, width = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
    top, left = uniform(0, 1) * (1 - height), uniform(0, 1) * (1 - width)
    boxes = torch.stack([top, left, top + height, left + width], 1)
    return torch.where(chosen[:, None], boxes, 0.0)


def _blurred(images: Tensor) -> Tensor:
    """A 5 x 5 binomial blur (a standard deviation of one pixel)."""
    kernel = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], device=images.device) / 16
    weight = (kernel[:, None] * kernel[None, :]).expand(3, 1, 5, 5)
    padded = functional.pad(images, (2, 2, 2, 2), mode="replicate")
    return functional.conv2d(padded, weight, groups=3)
