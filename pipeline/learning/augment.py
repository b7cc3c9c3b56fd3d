"""Random augmentation of face crops. The same seed gives the same batch.

Pixels are float [n, 3, h, w] in 0..255. The random numbers are drawn on the CPU; the crops change on their own device.
`augment` draws for each crop, from a torch.Generator. `draw_window_changes` and `change_windows` draw for each window
of a video, so that all frames of a window change alike.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Augmentation:
    """The largest size of each change; 0 switches it off.

    rotate: degrees, in both directions. scale, shift: fractions of the side. brightness: fraction of 255. contrast,
    channels: fractions. flip, grey, blur, noise, erase: probabilities. blur_sigma: pixels of a crop of side 96.
    noise_sigma: fraction of 255. erase_share: side of the erased rectangle, as a fraction of the crop's side.
    """

    rotate: float = 12.0
    scale: float = 0.1
    shift: float = 0.08
    shear: float = 0.0
    flip: float = 0.5
    brightness: float = 0.2
    contrast: float = 0.3
    channels: float = 0.0
    invert_hue: float = 0.0
    shade: float = 0.0
    grey: float = 0.0
    blur: float = 0.0
    blur_sigma: float = 1.5
    noise: float = 0.0
    noise_sigma: float = 0.04
    erase: float = 0.0
    erase_share: float = 0.3


WINDOW = Augmentation(
    brightness=25 / 255, contrast=0.2, grey=0.1, blur=0.15, blur_sigma=0.012 * 96, erase=0.15, erase_share=0.35
)
"""Of `draw_window_changes`."""
NO_WINDOW_CHANGE = np.array([0, 1, 0, 0, 0, 0, 0, 0, 0], np.float32)
"""A row of `draw_window_changes` that changes nothing."""


def augment(
    pixels: Tensor, size: int, settings: Augmentation, generator: torch.Generator, *, surround: float = 0.0
) -> Tensor:
    """The changed crops, [n, 3, size, size]. surround: how much wider `pixels` are than the crop, as a fraction of the
    crop's side; rotation and shift then show real pixels at the edges."""
    pixels = warp(pixels.float(), size, settings, generator, surround=surround)
    pixels = colour(pixels, settings, generator)
    if settings.shade:
        pixels = shade(pixels, settings.shade, generator)
    if settings.blur:
        pixels = blur(pixels, settings.blur, settings.blur_sigma * size / 96, generator)
    if settings.noise:
        pixels = noise(pixels, settings.noise, settings.noise_sigma, generator)
    if settings.erase:
        pixels = erase(pixels, settings.erase, settings.erase_share, generator)
    return pixels.clamp(0, 255)


def crop_centre(pixels: Tensor, size: int, *, surround: float = 0.0) -> Tensor:
    """The unchanged crops, float [n, 3, size, size]. surround: see augment."""
    unchanged = Augmentation(rotate=0, scale=0, shift=0, flip=0)
    return warp(pixels.float(), size, unchanged, torch.Generator(), surround=surround)


def warp(
    pixels: Tensor, size: int, settings: Augmentation, generator: torch.Generator, *, surround: float = 0.0
) -> Tensor:
    """Rotates, scales, shears, shifts and flips each crop. Pixels beyond the edge repeat the edge."""
    n = len(pixels)
    angle = _uniform(n, math.radians(settings.rotate), generator)
    zoom = torch.exp(_uniform(n, math.log1p(settings.scale), generator)) / (1 + surround)
    shear = _uniform(n, settings.shear, generator)
    mirror = 1 - 2 * _chance(n, settings.flip, generator)
    shift = torch.stack([_uniform(n, 2 * settings.shift, generator) for _ in range(2)], 1) / (1 + surround)
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    rows = torch.stack((cos * mirror, -sin + shear * cos, sin * mirror, cos + shear * sin), 1).view(n, 2, 2)
    theta = torch.cat((rows, shift[:, :, None]), 2).to(pixels.device)
    grid = F.affine_grid(theta, [n, 3, size, size], align_corners=False)
    return F.grid_sample(pixels, grid, mode="bilinear", padding_mode="border", align_corners=False)


def colour(pixels: Tensor, settings: Augmentation, generator: torch.Generator) -> Tensor:
    """Mixes the channels, changes contrast and brightness, and makes some crops grey."""
    n, device = len(pixels), pixels.device
    mix = torch.eye(3) + settings.channels * (2 * torch.rand(n, 3, 3, generator=generator) - 1)
    mix = mix / mix.sum(2, keepdim=True).clamp(min=0.3)
    if settings.invert_hue:
        inverted = _chance(n, settings.invert_hue, generator).bool()
        orders = torch.stack([torch.randperm(3, generator=generator) for _ in range(n)])
        permuted = torch.gather(mix, 1, orders[:, :, None].expand(n, 3, 3))
        mix = torch.where(inverted[:, None, None], permuted, mix)
    grey = _chance(n, settings.grey, generator)[:, None, None]
    mix = mix * (1 - grey) + torch.tensor(LUMA).expand(n, 3, 3) * grey
    pixels = torch.einsum("nij,njhw->nihw", mix.to(device), pixels)
    gain = 1 + _uniform(n, settings.contrast, generator)
    return _relight(pixels, gain.to(device), (255 * _uniform(n, settings.brightness, generator)).to(device))


def shade(pixels: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Light from one side: brightness changes linearly across each crop, by at most `share` at the edges."""
    n, _, height, width = pixels.shape
    x = torch.linspace(-1, 1, width).view(1, 1, 1, width)
    y = torch.linspace(-1, 1, height).view(1, 1, height, 1)
    slope_x, slope_y = (_uniform(n, share, generator).view(n, 1, 1, 1) for _ in range(2))
    return pixels * (1 + (slope_x * x + slope_y * y).to(pixels.device))


def blur(pixels: Tensor, chance: float, sigma: float, generator: torch.Generator) -> Tensor:
    """Gaussian blur of some crops. Each has its own sigma, at most the given one."""
    n = len(pixels)
    chosen = _chance(n, chance, generator)
    sigmas = (0.2 + (sigma - 0.2) * torch.rand(n, generator=generator)).clamp(min=0.2)
    return _blur_chosen(pixels, (sigmas * chosen).to(pixels.device), sigma)


def gaussian(pixels: Tensor, sigma: Tensor, largest: float) -> Tensor:
    """Blurs each crop with its own sigma [n], in pixels. largest: the largest possible sigma, sets the kernel size."""
    radius = max(1, math.ceil(2.5 * largest))
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float32, device=sigma.device)
    kernels = torch.exp(-0.5 * (offsets / sigma[:, None]) ** 2)
    kernels = (kernels / kernels.sum(1, keepdim=True)).repeat_interleave(3, 0).to(pixels.device, pixels.dtype)
    k, _, height, width = pixels.shape
    planes = F.pad(pixels.reshape(1, k * 3, height, width), (radius,) * 4, mode="replicate")
    planes = F.conv2d(planes, kernels[:, None, None, :], groups=k * 3)
    return F.conv2d(planes, kernels[:, None, :, None], groups=k * 3).view(k, 3, height, width)


def noise(pixels: Tensor, chance: float, sigma: float, generator: torch.Generator) -> Tensor:
    """Gaussian noise on some crops. Each has its own deviation, at most `sigma` * 255."""
    n = len(pixels)
    strength = _chance(n, chance, generator) * torch.rand(n, generator=generator) * sigma * 255
    grain = torch.randn(pixels.shape, generator=generator)
    return pixels + (grain * strength[:, None, None, None]).to(pixels.device)


def erase(pixels: Tensor, chance: float, share: float, generator: torch.Generator) -> Tensor:
    """Covers some crops with a rectangle of one random colour, whose sides are at most `share` of the crop's."""
    n, device = len(pixels), pixels.device
    chosen = _chance(n, chance, generator)[:, None]
    size = (0.3 + 0.7 * torch.rand(n, 2, generator=generator)) * share
    corner = torch.rand(n, 2, generator=generator) * (1 - size)
    fill = torch.rand(n, 3, generator=generator) * 255
    end = corner + size * chosen
    box = torch.stack((corner[:, 1], corner[:, 0], end[:, 1], end[:, 0]), 1)
    return _cover(pixels, box.to(device), fill[:, :, None, None].to(device))


def draw_window_changes(n: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Random changes of n windows, float32 [n, 9]. Columns: flip (0 or 1), contrast factor, brightness to add (of
    255), grey (0 or 1), sigma of the blur (fraction of the side; 0: none), and the rectangle to erase, x0 y0 x1 y1 as
    fractions of the crop."""
    augmentation = WINDOW
    flip = rng.random(n) < augmentation.flip
    contrast, brightness = (
        reach * (2 * rng.random(n) - 1) for reach in (augmentation.contrast, 255 * augmentation.brightness)
    )
    grey = rng.random(n) < augmentation.grey
    blur = (rng.random(n) < augmentation.blur) * rng.uniform(0.2, 1.0, n) * (augmentation.blur_sigma / 96)
    sides = (rng.random((n, 1)) < augmentation.erase) * rng.uniform(0.1, augmentation.erase_share, (n, 2))
    corner = rng.random((n, 2)) * (1 - sides)
    return np.column_stack((flip, 1 + contrast, brightness, grey, blur, corner, corner + sides)).astype(np.float32)


def change_windows(crops: Tensor, changes: Tensor) -> Tensor:
    """Applies to each crop [n, 3, c, c] its row of changes [n, 9] (draw_window_changes). An erased rectangle gets the
    mean of its crop."""
    flip, gain, lift, grey, sigma = changes[:, :5].unbind(1)
    crops = torch.where(flip[:, None, None, None] > 0, crops.flip(3), crops)
    luma = (crops * crops.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)
    crops = torch.where(grey[:, None, None, None] > 0, luma.expand_as(crops), crops)
    side = crops.shape[-1]
    crops = _blur_chosen(crops, sigma * side, WINDOW.blur_sigma / 96 * side)
    fill = crops.mean((1, 2, 3), keepdim=True) + lift[:, None, None, None]
    return _cover(_relight(crops, gain, lift), changes[:, 5:], fill).clamp(0, 255)


def _relight(pixels: Tensor, gain: Tensor, lift: Tensor) -> Tensor:
    """Multiplies the contrast of each crop by gain [n] and adds lift [n] to its brightness."""
    middle = pixels.mean((1, 2, 3), keepdim=True)
    return (pixels - middle) * gain[:, None, None, None] + middle + lift[:, None, None, None]


def _blur_chosen(pixels: Tensor, sigma: Tensor, largest: float) -> Tensor:
    """Blurs the crops whose sigma [n] is above 0."""
    chosen = (sigma > 0).nonzero()[:, 0]
    if not len(chosen):
        return pixels
    return pixels.index_put((chosen,), gaussian(pixels[chosen], sigma[chosen], largest))


def _cover(pixels: Tensor, box: Tensor, fill: Tensor) -> Tensor:
    """Fills a rectangle of each crop. box: [n, 4], x0 y0 x1 y1 as fractions; empty where x1 is x0. fill: [n, 1 or 3, 1,
    1]."""
    height, width = pixels.shape[-2:]
    x, y = ((torch.arange(side, device=pixels.device) + 0.5) / side for side in (width, height))
    x0, y0, x1, y1 = box[:, :, None].unbind(1)
    inside = ((y >= y0) & (y < y1))[:, None, :, None] & ((x >= x0) & (x < x1))[:, None, None, :]
    return torch.where(inside, fill, pixels)


def _uniform(n: int, reach: float, generator: torch.Generator) -> Tensor:
    return (2 * torch.rand(n, generator=generator) - 1) * reach


def _chance(n: int, chance: float, generator: torch.Generator) -> Tensor:
    return (torch.rand(n, generator=generator) < chance).float()
