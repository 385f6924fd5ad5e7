from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from data.errors import TaskError
from training.patchcore.features import PatchFeatures, build_features, embed
from training.spec.parts import WeightsSpec
from training.task import load_task

NONE = WeightsSpec("none")


def features(
    backbone: str = "test_resnet", size: tuple[int, int] = (64, 96), **options: Any
) -> PatchFeatures:
    torch.manual_seed(0)
    return PatchFeatures(backbone, input_size=size, weights=NONE, **options)


def images(count: int, size: tuple[int, int], seed: int = 0) -> torch.Tensor:
    drawn = np.random.default_rng(seed).integers(0, 256, (count, *size, 3), dtype=np.uint8)
    return torch.from_numpy(drawn)


@pytest.mark.parametrize(
    ("backbone", "size", "layers", "grid"),
    [
        ("test_resnet", (64, 96), (2, 3), (8, 12)),  # strides 8 and 16
        ("test_efficientnet", (64, 96), (2, 3), (8, 12)),
        ("test_convnext", (64, 64), (1, 2), (8, 8)),
        ("test_vit", (160, 96), (5,), (10, 6)),  # a transformer: its last block
        ("test_vit4", (64, 64), (8,), (4, 4)),
    ],
)
def test_any_backbone_gives_unit_vectors_on_a_grid(
    backbone: str, size: tuple[int, int], layers: tuple[int, ...], grid: tuple[int, int]
) -> None:
    made = features(backbone, size)
    assert (made.layers, made.grid) == (layers, grid)
    patches = made(images(2, size))
    assert patches.shape == (2, *grid, made.dim)
    assert patches.dtype == torch.float32
    torch.testing.assert_close(patches.norm(dim=-1), torch.ones(2, *grid))


def test_a_transformers_patches_are_its_own_tokens_after_the_norm() -> None:
    made = features("test_vit", (160, 160), neighbourhood=1)
    pixels = images(1, (160, 160))
    backbone: Any = made.backbone
    normal = (pixels.permute(0, 3, 1, 2).float() - made.offset) * made.factor  # type: ignore[operator]
    tokens = backbone.forward_features(normal)[:, backbone.num_prefix_tokens :]
    wanted = functional.normalize(tokens, dim=-1).reshape(1, 10, 10, -1)
    torch.testing.assert_close(made(pixels), wanted)


def test_levels_are_averaged_brought_to_one_grid_and_joined() -> None:
    """The paper's recipe step by step, with loops instead of the module's operators."""
    made = features(layers=(1, 2), stride=8)
    pixels = images(1, (64, 96))
    backbone: Any = made.backbone
    normal = (pixels.permute(0, 3, 1, 2).float() - made.offset) * made.factor  # type: ignore[operator]
    fine, coarse = backbone.forward_intermediates(normal, indices=[1, 2], intermediates_only=True)

    def averaged(level: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(level)
        for y in range(level.shape[2]):
            for x in range(level.shape[3]):
                near = level[..., max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
                out[..., y, x] = near.mean((2, 3))
        return out

    halved = averaged(fine).reshape(1, -1, 8, 2, 12, 2).mean((3, 5))
    joined = torch.cat([halved, averaged(coarse)], 1).permute(0, 2, 3, 1)
    torch.testing.assert_close(made(pixels), functional.normalize(joined, dim=-1))


def test_balance_gives_every_level_the_same_part_of_the_length() -> None:
    made = features(layers=(1, 2), balance=True)
    width = int(made.backbone.feature_info[1]["num_chs"])
    patches = made(images(1, (64, 96)))
    torch.testing.assert_close(patches[..., :width].norm(dim=-1), torch.full(made.grid, 0.5**0.5)[None])


def test_a_projection_keeps_distances_and_is_the_same_for_a_seed() -> None:
    plain, less = features(), features(project=16, seed=3)
    assert less.dim == 16
    assert torch.equal(less.project, features(project=16, seed=3).project)  # type: ignore[arg-type]
    assert not torch.equal(less.project, features(project=16, seed=4).project)  # type: ignore[arg-type]
    pixels = images(2, (64, 96))
    one, other = (made(pixels).reshape(-1, made.dim) for made in (plain, less))
    near = torch.corrcoef(torch.stack([torch.cdist(one, one).ravel(), torch.cdist(other, other).ravel()]))
    assert near[0, 1] > 0.8


def test_it_never_leaves_evaluation_mode_and_learns_nothing() -> None:
    made = features()
    before = made(images(2, (64, 96)))
    made.train()
    assert not made.training
    assert not any(parameter.requires_grad for parameter in made.parameters())
    torch.testing.assert_close(made(images(2, (64, 96))), before, rtol=0, atol=0)


def test_batches_give_what_single_images_give() -> None:
    made = features()
    batch = images(5, (64, 96)).numpy()
    together = np.concatenate(list(embed(made, [batch[:3], batch[3:]], device="cpu")))
    alone = np.concatenate(list(embed(made, [batch[i : i + 1] for i in range(5)], device="cpu")))
    assert together.dtype == np.float32
    np.testing.assert_allclose(together, alone, atol=2e-6)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"layers": (1, 7)}, "has 5 levels, 0 to 4. Their strides are 2, 4, 8, 16, 32 pixels"),
        ({"layers": (-1, 4)}, "`patchcore.layers`"),
        ({"backbone": "test_vit", "size": (150, 160)}, "multiples of 16. Set it to [144, 160]"),
        ({"backbone": "resnet5"}, "no backbone"),
        ({"project": 100_000}, "have only"),
        ({"stride": 64, "size": (32, 64)}, "`patchcore.stride` is 64"),
    ],
)
def test_what_a_backbone_cannot_do_is_said(options: dict[str, Any], said: str) -> None:
    with pytest.raises(TaskError) as caught:
        features(**options)
    assert said in str(caught.value)


def test_a_task_says_all_of_it() -> None:
    task = load_task(
        "anomaly",
        overrides={
            "backbone": "test_resnet",
            "weights": "none",
            "input_size": [64, 64],
            "patchcore": {"layers": [-3], "stride": 4, "neighbourhood": 5, "project": None},
        },
    )
    made = build_features(task)
    assert (made.layers, made.grid, made.neighbourhood) == ((2,), (16, 16), 5)
    with pytest.raises(TaskError, match="kind classification"):
        build_features(load_task("dr_grading"))
