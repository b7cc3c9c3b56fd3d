"""Sampling of frames at any scale, without aliasing."""

import torch
import torch.nn.functional as F
from torch import Tensor


class Pyramid:
    """Frames at full, half, quarter, ... size. Levels are made on first use. Each crop is sampled from its best level.

    If a crop pixel covers r frame pixels, the crop is read from level round(log2 r). Then bilinear sampling steps at
    most 1.41 pixels of the level, without visible aliasing. frames: uint8 or float [n, 3, H, W]. uint8 in
    channels_last, the output of decoders, is halved three times as fast.
    """

    data_dependent = True
    """Whether the work may depend on the boxes: only the needed part of the frames is converted to float on a CPU, and
    only the needed candidates are looked at."""

    def __init__(self, frames: Tensor) -> None:
        self.frames = frames
        self._levels = [frames]

    def __len__(self) -> int:
        return len(self.frames)

    def build(self) -> "Pyramid":
        """Makes all levels now, for frames that are sampled many times."""
        while min(self._levels[-1].shape[-2:]) >= 8:
            self._levels.append(halve(self._levels[-1]))
        return self

    def sample(self, theta: Tensor, size: int, rows: Tensor | None = None, within: Tensor | None = None) -> Tensor:
        """float [n, 3, size, size] in 0..255 of all frames, or of these rows [n]. Outside the picture, its edge is
        repeated: a black border would be a contour that no face has. within: upright thetas [n, 2, 3]; the edges of
        these parts are repeated, and pixels outside them have no effect."""
        if not len(theta):
            return torch.zeros(0, 3, size, size, device=theta.device)
        with torch.autocast(theta.device.type, enabled=False):
            theta = theta.float()
            grid = F.affine_grid(theta, [len(theta), 3, size, size], align_corners=False)
            levels = self._fitting(theta.detach(), size)
            chosen = levels.unique().tolist()
            if len(chosen) == 1:
                return self._read(chosen[0], slice(None) if rows is None else rows, grid, theta, within)
            crops = torch.zeros(len(theta), 3, size, size, device=theta.device)
            for level in chosen:
                some = (levels == level).nonzero()[:, 0]
                parts = None if within is None else within[some]
                read = self._read(level, some if rows is None else rows[some], grid[some], theta[some], parts)
                crops = crops.index_put((some,), read)
            return crops

    def _fitting(self, theta: Tensor, size: int) -> Tensor:
        height, width = self.frames.shape[-2:]
        pixels = theta.new_tensor([[width / size], [height / size]])
        across, down = (theta[:, :, :2] * pixels).square().sum(1).clamp(min=1e-12).unbind(1)
        octaves = (across * down).log2() / 4  # mean of both directions; / 4 because across and down are squares
        largest = max(0, min(height, width).bit_length() - 2)
        return octaves.round().clamp(0, largest).long().cpu()

    def _half(self, frames: Tensor) -> Tensor:
        return halve(frames)

    def _read(self, level: int, rows: slice | Tensor, grid: Tensor, theta: Tensor, within: Tensor | None) -> Tensor:
        while len(self._levels) <= level:
            self._levels.append(self._half(self._levels[-1]))
        frames = self._levels[level][rows]
        if within is not None:  # to the centre of the outermost pixels, because bilinear sampling mixes neighbours
            half = within[:, :, :2].sum(2) - within.new_tensor([1 / frames.shape[-1], 1 / frames.shape[-2]])
            middle, half = within[:, None, None, :, 2], half.clamp(min=0)[:, None, None]
            grid = torch.minimum(torch.maximum(grid, middle - half), middle + half)
        if self.data_dependent and frames.device.type == "cpu":
            frames, grid = _needed(frames, grid, theta.detach())
        return F.grid_sample(frames.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)


def resample(frames: Tensor, theta: Tensor, size: int) -> Tensor:
    """The part of each frame in theta [n, 2, 3], float [n, 3, size, size], antialiased. Outside the picture, its edge
    is repeated. frames: uint8 or float [n, 3, H, W]."""
    return Pyramid(frames).sample(theta, size)


def halve(frames: Tensor) -> Tensor:
    """Frames with half the sides and the same dtype. A pixel is the mean of 2 x 2. For integers, each row mean and then
    the mean of both is rounded half up. An odd side is rounded up, and its pixels are interpolated to keep the
    edges."""
    if frames.is_floating_point() or frames.device.type == "cpu":  # torch rounds this way itself on uint8
        return _resized(frames, *_half_sides(frames))
    return halve_whole_numbers(frames.float()).to(frames.dtype)


def halve_whole_numbers(frames: Tensor) -> Tensor:
    """`halve` for integers stored as floats, with operations that every device supports."""
    height, width = _half_sides(frames)
    wide = _resized(frames, frames.shape[-2], width).add(0.5).floor()
    return _resized(wide, height, width).add(0.5).floor()


def _half_sides(frames: Tensor) -> tuple[int, int]:
    return -(-frames.shape[-2] // 2), -(-frames.shape[-1] // 2)


def _resized(frames: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(frames, (height, width), mode="bilinear", align_corners=False)


def _needed(frames: Tensor, grid: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
    """The part of the frames that these thetas touch, and the grids relative to it: fewer pixels to convert to
    float."""
    sides = grid.new_tensor([frames.shape[-1], frames.shape[-2]])
    reach = theta[:, :, :2].abs().sum(2)
    low, high = (theta[:, :, 2] - reach).amin(0), (theta[:, :, 2] + reach).amax(0)
    first = (((low + 1) * sides - 1) / 2).floor().clamp(min=0).minimum(sides - 1)
    last = ((((high + 1) * sides - 1) / 2).floor() + 2).clamp(min=1).minimum(sides).maximum(first + 1)
    (x0, y0), (x1, y1) = first.long().tolist(), last.long().tolist()
    return frames[:, :, y0:y1, x0:x1], ((grid + 1) * sides - 2 * first) / (last - first) - 1
