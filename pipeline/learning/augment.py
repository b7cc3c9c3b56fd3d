"""Random changes to batches of face crops, each drawn per crop from a torch.Generator: the same seed, the same batch.

Pixels are float [n, 3, h, w] in 0..255. All run on the device of the pixels; the draws are made on the CPU.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Augmentation:
    """How far each change may go; 0 switches it off.

    rotate: degrees, either way. scale, shift: shares of the side. brightness: of 255. contrast, channels: shares.
    Probabilities: flip, grey, blur, noise, erase. blur_sigma in pixels at a side of 96; noise_sigma of 255.
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


def augment(pixels: Tensor, size: int, how: Augmentation, generator: torch.Generator, *, margin: float = 0.0) -> Tensor:
    """The crops, changed, at [n, 3, size, size]. margin: what they show beyond the crop, a share of its side."""
    pixels = warp(pixels.float(), size, how, generator, margin=margin)
    pixels = colour(pixels, how, generator)
    if how.shade:
        pixels = shade(pixels, how.shade, generator)
    if how.blur:
        pixels = blur(pixels, how.blur, how.blur_sigma * size / 96, generator)
    if how.noise:
        pixels = noise(pixels, how.noise, how.noise_sigma, generator)
    if how.erase:
        pixels = erase(pixels, how.erase, how.erase_share, generator)
    return pixels.clamp(0, 255)


def centre(pixels: Tensor, size: int, *, margin: float = 0.0) -> Tensor:
    """The crops as they are, at [n, 3, size, size] float: augment with every change switched off."""
    still = Augmentation(rotate=0, scale=0, shift=0, flip=0)
    return warp(pixels.float(), size, still, torch.Generator(), margin=margin)


def warp(pixels: Tensor, size: int, how: Augmentation, generator: torch.Generator, *, margin: float = 0.0) -> Tensor:
    """Rotates, scales, shears, shifts and flips each crop; beyond the edge the edge is repeated."""
    n = len(pixels)
    angle = _uniform(n, math.radians(how.rotate), generator)
    zoom = torch.exp(_uniform(n, math.log1p(how.scale), generator)) / (1 + margin)
    shear = _uniform(n, how.shear, generator)
    mirror = 1 - 2 * _chance(n, how.flip, generator)
    shift = torch.stack((_uniform(n, 2 * how.shift, generator), _uniform(n, 2 * how.shift, generator)), 1) / (
        1 + margin
    )
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    rows = torch.stack((cos * mirror, -sin + shear * cos, sin * mirror, cos + shear * sin), 1).view(n, 2, 2)
    theta = torch.cat((rows, shift[:, :, None]), 2).to(pixels.device)
    grid = F.affine_grid(theta, [n, 3, size, size], align_corners=False)
    return F.grid_sample(pixels, grid, mode="bilinear", padding_mode="border", align_corners=False)


def colour(pixels: Tensor, how: Augmentation, generator: torch.Generator) -> Tensor:
    """Mixes the channels, moves contrast and brightness, and takes the colour out of some."""
    n, device = len(pixels), pixels.device
    mix = torch.eye(3) + how.channels * (2 * torch.rand(n, 3, 3, generator=generator) - 1)
    mix = mix / mix.sum(2, keepdim=True).clamp(min=0.3)
    if how.invert_hue:
        turned = _chance(n, how.invert_hue, generator).bool()
        orders = torch.stack([torch.randperm(3, generator=generator) for _ in range(n)])
        permuted = torch.gather(mix, 1, orders[:, :, None].expand(n, 3, 3))
        mix = torch.where(turned[:, None, None], permuted, mix)
    grey = _chance(n, how.grey, generator)[:, None, None]
    mix = mix * (1 - grey) + torch.tensor(LUMA).expand(n, 3, 3) * grey
    pixels = torch.einsum("nij,njhw->nihw", mix.to(device), pixels)
    gain = (1 + _uniform(n, how.contrast, generator)).to(device)[:, None, None, None]
    lift = (255 * _uniform(n, how.brightness, generator)).to(device)[:, None, None, None]
    middle = pixels.mean((1, 2, 3), keepdim=True)
    return (pixels - middle) * gain + middle + lift


def shade(pixels: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Light from one side: brightness changes evenly across each crop, by up to `share` at the edges."""
    n, _, height, width = pixels.shape
    across = torch.linspace(-1, 1, width).view(1, 1, 1, width)
    down = torch.linspace(-1, 1, height).view(1, 1, height, 1)
    slope = (
        _uniform(n, share, generator).view(n, 1, 1, 1) * across + _uniform(n, share, generator).view(n, 1, 1, 1) * down
    )
    return pixels * (1 + slope.to(pixels.device))


def blur(pixels: Tensor, chance: float, sigma: float, generator: torch.Generator) -> Tensor:
    """Gaussian blur of some crops, sigma drawn up to the given one."""
    n = len(pixels)
    chosen = _chance(n, chance, generator).bool()
    widths = (0.2 + (sigma - 0.2) * torch.rand(n, generator=generator)).clamp(min=0.2)
    if not chosen.any():
        return pixels
    chosen = chosen.to(pixels.device)
    out = pixels.clone()
    out[chosen] = gaussian(pixels[chosen], widths[chosen.cpu()], sigma)
    return out


def gaussian(pixels: Tensor, sigma: Tensor, largest: float) -> Tensor:
    """Each crop blurred by its own sigma [n], in pixels, up to `largest`."""
    radius = max(1, math.ceil(2.5 * largest))
    steps = torch.arange(-radius, radius + 1, dtype=torch.float32, device=sigma.device)
    kernels = torch.exp(-0.5 * (steps / sigma[:, None]) ** 2)
    kernels = (kernels / kernels.sum(1, keepdim=True)).repeat_interleave(3, 0).to(pixels.device, pixels.dtype)
    k, _, height, width = pixels.shape
    planes = F.pad(pixels.reshape(1, k * 3, height, width), (radius,) * 4, mode="replicate")
    planes = F.conv2d(planes, kernels[:, None, None, :], groups=k * 3)
    return F.conv2d(planes, kernels[:, None, :, None], groups=k * 3).view(k, 3, height, width)


def noise(pixels: Tensor, chance: float, sigma: float, generator: torch.Generator) -> Tensor:
    """Gaussian noise on some crops, its deviation drawn up to sigma of 255."""
    n = len(pixels)
    strength = _chance(n, chance, generator) * torch.rand(n, generator=generator) * sigma * 255
    grain = torch.randn(pixels.shape, generator=generator)
    return pixels + (grain * strength[:, None, None, None]).to(pixels.device)


def erase(pixels: Tensor, chance: float, share: float, generator: torch.Generator) -> Tensor:
    """A rectangle of one random colour over some crops, each side up to `share` of the crop's."""
    n, _, height, width = pixels.shape
    chosen = _chance(n, chance, generator).bool()
    size = (0.3 + 0.7 * torch.rand(n, 2, generator=generator)) * share
    corner = torch.rand(n, 2, generator=generator) * (1 - size)
    fill = torch.rand(n, 3, generator=generator) * 255
    rows = (torch.arange(height) + 0.5) / height
    columns = (torch.arange(width) + 0.5) / width
    inside_rows = (rows >= corner[:, :1]) & (rows < (corner + size)[:, :1])
    inside_columns = (columns >= corner[:, 1:]) & (columns < (corner + size)[:, 1:])
    hole = inside_rows[:, None, :, None] & inside_columns[:, None, None, :] & chosen[:, None, None, None]
    return torch.where(hole.to(pixels.device), fill[:, :, None, None].to(pixels.device), pixels)


def _uniform(n: int, reach: float, generator: torch.Generator) -> Tensor:
    return (2 * torch.rand(n, generator=generator) - 1) * reach


def _chance(n: int, chance: float, generator: torch.Generator) -> Tensor:
    return (torch.rand(n, generator=generator) < chance).float()
