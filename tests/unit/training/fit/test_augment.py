from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from training.fit.augment import Draws, apply, box_mask, draw
from training.fit.mix import mix
from training.spec.recipe import Augment, Recipe

NOTHING = Augment(
    hflip=False,
    vflip=False,
    rotate_degrees=0,
    scale=(1, 1),
    translate=0,
    brightness=0,
    contrast=0,
    saturation=0,
)
EVERYTHING = Augment(
    vflip=True, rotate_degrees=90, shear_degrees=5, hue=0.1, erase_p=0.5, noise=0.05, blur=0.5, translate=0.1
)


def images(count: int = 4, height: int = 24, width: int = 24) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    small = torch.rand(count, 3, height // 4, width // 4, generator=generator)
    return torch.nn.functional.interpolate(small, (height, width), mode="bilinear")


def only(**fields: torch.Tensor) -> Draws:
    empty = dict.fromkeys(("affine", "colour", "contrast", "erase", "blur", "noise"))
    return Draws(**{**empty, **fields}, seed=0)  # type: ignore[arg-type]


def test_nothing_asked_changes_nothing() -> None:
    assert torch.equal(apply(images(), draw(NOTHING, 4, (24, 24), 1)), images())


def test_the_same_seed_draws_the_same_and_another_another() -> None:
    one, two, other = (apply(images(), draw(EVERYTHING, 4, (24, 24), seed)) for seed in (3, 3, 4))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert one.min() >= 0
    assert one.max() <= 1


def test_processes_draw_their_images_share_of_the_whole() -> None:
    augment = replace(EVERYTHING, noise=0.0)
    whole = apply(images(6), draw(augment, 6, (24, 24), 5))
    for rank in range(2):
        part = apply(images(6)[rank::2], draw(augment, 6, (24, 24), 5).part(rank, 2))
        torch.testing.assert_close(part, whole[rank::2])


def test_switching_one_change_off_leaves_the_other_draws() -> None:
    one = draw(EVERYTHING, 4, (24, 24), 7)
    two = draw(replace(EVERYTHING, blur=0, erase_p=0), 4, (24, 24), 7)
    assert one.affine is not None
    assert two.affine is not None
    assert torch.equal(one.affine, two.affine)
    assert (two.blur, two.erase) == (None, None)


def test_a_flip_is_a_flip() -> None:
    augment = replace(NOTHING, hflip=True, vflip=True)
    drawn = draw(augment, 64, (24, 24), 0)
    assert drawn.affine is not None
    changed = apply(images(64), drawn)
    for index in range(64):
        flipped = images(64)[index]
        if drawn.affine[index, 0, 0] < 0:
            flipped = flipped.flip(2)
        if drawn.affine[index, 1, 1] < 0:
            flipped = flipped.flip(1)
        torch.testing.assert_close(changed[index], flipped, atol=1e-5, rtol=0)
    assert 16 < int((drawn.affine[:, 0, 0] < 0).sum()) < 48


@pytest.mark.parametrize("size", [(32, 32), (24, 48)])
def test_rotation_keeps_shapes_whatever_the_aspect(size: tuple[int, int]) -> None:
    """A disc stays a disc when the image is not square; OpenCV's rotation of the same angle agrees."""
    augment = replace(NOTHING, rotate_degrees=90.0)
    drawn = draw(augment, 1, size, 2)
    assert drawn.affine is not None
    picture = images(1, *size)
    ours = apply(picture, drawn, fill="black")[0].permute(1, 2, 0).numpy()
    aspect = size[1] / size[0]
    sin, cos = float(drawn.affine[0, 1, 0]) / aspect, float(drawn.affine[0, 1, 1])
    assert sin**2 + cos**2 == pytest.approx(1, abs=1e-5)
    centre = ((size[1] - 1) / 2, (size[0] - 1) / 2)
    matrix = cv2.getRotationMatrix2D(centre, float(np.degrees(np.arctan2(sin, cos))), 1.0)
    theirs = cv2.warpAffine(picture[0].permute(1, 2, 0).numpy(), matrix, (size[1], size[0]))
    inner = (slice(8, size[0] - 8), slice(8, size[1] - 8))
    np.testing.assert_allclose(ours[inner], theirs[inner], atol=0.03)


def test_zooming_in_shows_the_middle() -> None:
    picture = torch.zeros(1, 3, 32, 32)
    picture[:, :, 12:20, 12:20] = 1
    changed = apply(picture, draw(replace(NOTHING, scale=(2.0, 2.0)), 1, (32, 32), 0))
    assert changed.mean() == pytest.approx(4 * float(picture.mean()), rel=0.1)


def test_what_comes_in_at_the_edge_is_black_or_a_mirror() -> None:
    picture = torch.ones(8, 3, 32, 32)
    drawn = draw(replace(NOTHING, rotate_degrees=45.0), 8, (32, 32), 0)
    assert apply(picture, drawn, fill="black").min() == 0
    assert apply(picture, drawn).min() > 0.99


def test_colour_changes_keep_what_they_should() -> None:
    grey = torch.full((8, 3, 8, 8), 0.5)
    for augment in (replace(NOTHING, saturation=0.9), replace(NOTHING, hue=0.5)):
        torch.testing.assert_close(apply(grey, draw(augment, 8, (8, 8), 1)), grey, atol=2e-3, rtol=0)
    brighter = apply(grey, draw(replace(NOTHING, brightness=0.5), 8, (8, 8), 1)).mean((1, 2, 3))
    assert brighter.min() < 0.4
    assert brighter.max() > 0.6
    flat = apply(images(), draw(replace(NOTHING, contrast=0.9), 4, (24, 24), 1))
    torch.testing.assert_close(flat.mean((2, 3)), images().mean((2, 3)), atol=0.1, rtol=0)


def test_erasing_paints_boxes_of_the_asked_area() -> None:
    augment = replace(NOTHING, erase_p=1.0, erase_area=(0.1, 0.1))
    drawn = draw(augment, 64, (64, 64), 0)
    assert drawn.erase is not None
    shares = box_mask(drawn.erase, (64, 64)).float().mean((1, 2, 3))
    assert shares.mean() == pytest.approx(0.1, abs=0.02)
    none = draw(replace(augment, erase_p=0.5), 64, (64, 64), 0).erase
    assert none is not None
    assert 16 < int((none[:, 2] > 0).sum()) < 48


def test_noise_and_blur_do_what_they_say() -> None:
    grey = torch.full((4, 3, 32, 32), 0.5)
    noisy = apply(grey, only(noise=torch.full((4,), 0.1)))
    assert noisy.std() == pytest.approx(0.1, abs=0.01)
    rough = torch.rand(4, 3, 32, 32)
    blurred = apply(rough, only(blur=torch.tensor([1.0, 0, 1, 0])))
    assert torch.equal(blurred[1], rough[1])
    assert blurred[0].std() < 0.5 * rough[0].std()


def test_mixup_mixes_with_the_mirror_place() -> None:
    labels = {"kind": torch.arange(4)}
    mixed = mix(images(), labels, Recipe(mixup_alpha=1.0), 0)
    assert mixed is not None
    assert mixed.labels["kind"].tolist() == [3, 2, 1, 0]
    share = mixed.share[0]
    torch.testing.assert_close(mixed.images[0], share * images()[0] + (1 - share) * images()[3])


def test_cutmix_counts_what_is_left() -> None:
    picture = torch.cat([torch.zeros(4, 3, 24, 24), torch.ones(4, 3, 24, 24)])
    mixed = mix(picture, {"kind": torch.arange(8)}, Recipe(mixup_alpha=0, cutmix_alpha=1.0), 0)
    assert mixed is not None
    pasted = mixed.images[:4].mean((1, 2, 3))
    torch.testing.assert_close(1 - mixed.share[:4], pasted)


def test_batches_are_left_alone_as_often_as_asked() -> None:
    recipe = Recipe(mixup_alpha=1.0, mix_p=0.5)
    mixed = [mix(images(), {}, recipe, seed) is not None for seed in range(200)]
    assert 70 < sum(mixed) < 130
    assert mix(images(), {}, Recipe(mixup_alpha=0), 0) is None
