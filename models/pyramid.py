"""Frames sampled without aliasing, at any scale."""

import torch
import torch.nn.functional as F
from torch import Tensor


class Pyramid:
    """Frames and their halves, quarters, ..., built when asked for; samples each crop from the level that fits it.

    A crop of which each pixel covers r frame pixels is read from level round(log2 r): bilinear sampling then steps at
    most 1.41 level pixels, which does not alias visibly.
    """

    def __init__(self, frames: Tensor) -> None:
        self.frames = frames
        self._levels = [frames]

    def build(self) -> "Pyramid":
        """Makes all levels now, as uint8: for frames that are sampled again and again."""
        while min(self._levels[-1].shape[-2:]) >= 8:
            parts = self._levels[-1].split(64)
            self._levels.append(torch.cat([_halve(part.float()).round().to(torch.uint8) for part in parts]))
        return self

    def sample(self, theta: Tensor, size: int, rows: Tensor | None = None, within: Tensor | None = None) -> Tensor:
        """float [n, 3, size, size] in 0..255 of all frames, or of these rows [n]. Beyond the picture its edge is
        repeated: black would be a contour that no face has, and the backbone would see it. within: upright thetas
        [n, 2, 3]; beyond these parts their edges are repeated, and what lies there changes nothing."""
        if not len(theta):
            return torch.zeros(0, 3, size, size, device=theta.device)
        with torch.autocast(theta.device.type, enabled=False):
            theta = theta.float()
            grid = F.affine_grid(theta, [len(theta), 3, size, size], align_corners=False)
            levels = self._fitting(theta.detach(), size)
            chosen = levels.unique().tolist()
            if len(chosen) == 1:
                return self._read(chosen[0], slice(None) if rows is None else rows, grid, within)
            crops = torch.zeros(len(theta), 3, size, size, device=theta.device)
            for level in chosen:
                some = (levels == level).nonzero()[:, 0]
                parts = None if within is None else within[some]
                read = self._read(level, some if rows is None else rows[some], grid[some], parts)
                crops = crops.index_put((some,), read)
            return crops

    def _fitting(self, theta: Tensor, size: int) -> Tensor:
        height, width = self.frames.shape[-2:]
        pixels = theta.new_tensor([[width / size], [height / size]])
        across, down = (theta[:, :, :2] * pixels).square().sum(1).clamp(min=1e-12).unbind(1)
        octaves = (across * down).log2() / 4  # the mean of both directions; squares, hence 4
        largest = max(0, min(height, width).bit_length() - 2)
        return octaves.round().clamp(0, largest).long().cpu()

    def _read(self, level: int, rows: slice | Tensor, grid: Tensor, within: Tensor | None) -> Tensor:
        while len(self._levels) <= level:
            self._levels.append(_halve(self._levels[-1].float()))
        frames = self._levels[level][rows].float()
        if within is not None:  # to the middle of the outermost pixels: bilinear sampling mixes neighbours
            half = within[:, :, :2].sum(2) - within.new_tensor([1 / frames.shape[-1], 1 / frames.shape[-2]])
            middle, half = within[:, None, None, :, 2], half.clamp(min=0)[:, None, None]
            grid = torch.minimum(torch.maximum(grid, middle - half), middle + half)
        return F.grid_sample(frames, grid, mode="bilinear", padding_mode="border", align_corners=False)


def resample(frames: Tensor, theta: Tensor, size: int) -> Tensor:
    """The part of each frame that theta [n, 2, 3] spans, float [n, 3, size, size]: antialiased, its edge repeated where
    theta reaches beyond the picture. frames: uint8 or float [n, 3, H, W]."""
    return Pyramid(frames).sample(theta, size)


def _halve(frames: Tensor) -> Tensor:
    """Mean of 2 x 2 pixels; odd sides round up with uneven cells, so that the edges stay where they are."""
    height, width = frames.shape[-2:]
    if height % 2 == 0 and width % 2 == 0:
        return F.avg_pool2d(frames, 2)
    return F.adaptive_avg_pool2d(frames, (-(-height // 2), -(-width // 2)))
