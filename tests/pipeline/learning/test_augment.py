"""Augmentation: seeded, per crop, in range, and nothing when switched off."""

import math

import pytest
import torch
from affect.pipeline.learning.augment import Augmentation, augment, blur, crop_centre, erase, warp

STILL = Augmentation(rotate=0, scale=0, shift=0, flip=0, brightness=0, contrast=0)
STRONG = Augmentation(
    rotate=15, scale=0.2, shift=0.1, shear=0.1, brightness=0.3, contrast=0.4, channels=0.5, invert_hue=0.5, shade=0.4,
    grey=0.3, blur=0.5, noise=0.5, erase=0.5,
)  # fmt: skip


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def crops() -> torch.Tensor:
    return torch.randint(0, 256, (6, 3, 40, 40), generator=seeded(), dtype=torch.uint8)


def test_the_same_seed_gives_the_same_batch_and_another_seed_another(crops: torch.Tensor) -> None:
    first, second, other = (augment(crops, 32, STRONG, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_every_crop_is_changed_in_its_own_way() -> None:
    same = torch.randint(0, 256, (1, 3, 40, 40), generator=seeded()).float().expand(6, -1, -1, -1)
    out = augment(same, 32, STRONG, seeded(3))
    assert out.shape == (6, 3, 32, 32)
    assert 0 <= out.min() <= out.max() <= 255
    assert all(not torch.equal(out[0], out[k]) for k in range(1, 6))


def test_without_augmentation_the_crop_is_unchanged(crops: torch.Tensor) -> None:
    torch.testing.assert_close(augment(crops, 40, STILL, seeded()), crops.float(), atol=1e-2, rtol=0)


def test_the_centre_of_a_crop_with_margin_is_the_crop_pixel_for_pixel(crops: torch.Tensor) -> None:
    torch.testing.assert_close(crop_centre(crops, 32, surround=0.25), crops[..., 4:-4, 4:-4].float(), atol=1e-2, rtol=0)


def test_flip_mirrors_left_and_right(crops: torch.Tensor) -> None:
    always = Augmentation(rotate=0, scale=0, shift=0, flip=1)
    torch.testing.assert_close(warp(crops.float(), 40, always, seeded()), crops.float().flip(3), atol=1e-2, rtol=0)


def test_rotation_stays_within_its_reach() -> None:
    line = torch.zeros(200, 3, 41, 41)
    line[:, :, :, 20] = 255.0
    turned = warp(line, 41, Augmentation(rotate=10, scale=0, shift=0, flip=0), seeded())
    drift = (turned[:, 0, 2].argmax(1) - turned[:, 0, 38].argmax(1)).abs().max().item()
    assert 0.6 * 36 * math.tan(math.radians(10)) < drift <= 36 * math.tan(math.radians(10)) + 2


def test_blur_keeps_brightness_and_removes_detail(crops: torch.Tensor) -> None:
    out = blur(crops.float(), 1.0, 2.0, seeded())
    assert (out.std((1, 2, 3)) < crops.float().std((1, 2, 3))).all()
    torch.testing.assert_close(out.mean((1, 2, 3)), crops.float().mean((1, 2, 3)), atol=4, rtol=0)


def test_erase_leaves_most_of_the_crop(crops: torch.Tensor) -> None:
    out = erase(crops.float(), 1.0, 0.3, seeded())
    gone = (out != crops.float()).any(1).float().mean((1, 2))
    assert ((gone > 0) & (gone < 0.12)).all()
