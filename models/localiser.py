"""The network of the STN: from a view of a picture to boxes and beliefs where the face is."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

MIN_HALF_SIDE = 0.05
"""The smallest half side of a box; the largest is 1, the whole picture."""
MAX_ROLL = math.pi / 4
MAX_SHEAR = 0.3


class Cells(NamedTuple):
    """Output of each cell, row by row. beliefs: [n, cells], logits that the face is in the cell. boxes: [n, 4..6,
    cells], unbounded numbers. features: [n, width, cells]."""

    beliefs: Tensor
    boxes: Tensor
    features: Tensor


class Localiser(nn.Module):
    """From the view to a map of cells, of one eighth of its side.

    Each cell gives a belief that the face is there, and a box relative to the cell. The box of the view is the mean
    over neighbouring cells, weighted by the softmax of their beliefs. Dilated convolutions give each cell the whole
    view as receptive field, because a face may fill it.
    """

    def __init__(self, numbers: int, width: int = 64) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            _Conv(3, width // 4, 2), _Conv(width // 4, width // 2, 2), _Conv(width // 2, width, 2)
        )
        self.body = nn.Sequential(*(_Residual(width, dilation) for dilation in (1, 2, 4)))
        self.says = nn.Sequential(nn.Conv2d(width, width, 1), nn.ReLU(), nn.Conv2d(width, 1 + numbers, 1))
        self.presence = nn.Linear(3 * width, 1)
        self.reset()

    @torch.no_grad()
    def reset(self) -> None:
        """Sets the box to the whole picture: the mean of uniform beliefs is the centre, and zeros are the full size."""
        for layer in (self.says[-1], self.presence):
            assert isinstance(layer, nn.Conv2d | nn.Linear)
            assert layer.bias is not None
            layer.weight.zero_()
            layer.bias.zero_()

    def forward(self, view: Tensor) -> Cells:
        """view: float [n, 3, v, v] in 0..255."""
        mean = view.mean((1, 2, 3), keepdim=True)
        variance = (view - mean).square().mean((1, 2, 3), keepdim=True)
        spread = (variance + 25.0).sqrt()  # + 25: a uniform picture stays uniform
        features = self.body(self.stem(((view - mean) / spread).contiguous(memory_format=torch.channels_last)))
        with torch.autocast(view.device.type, enabled=False):  # half precision is too coarse for coordinates
            says, side = self.says(features.float()), features.shape[-1]
            raw = says[:, 1:].flatten(2)
            steps = (2 * torch.arange(side, device=raw.device, dtype=raw.dtype) + 1) / side - 1
            cells = torch.stack((steps.repeat(side), steps.repeat_interleave(side)))
            boxes = torch.cat((cells + raw[:, :2], raw[:, 2:]), 1)
            return Cells(says[:, 0].flatten(1), boxes, features.float().flatten(2))

    def decode(self, cells: Cells, beliefs: Tensor) -> tuple[Tensor, Tensor]:
        """(bounded numbers [n, 4..6], presence logits [n]), weighted by these beliefs [n, cells]."""
        share = beliefs.softmax(1)[:, :, None]
        centre, size, rotation = (cells.boxes @ share)[:, :, 0].tensor_split((2, 4), 1)
        rotation = rotation.tanh() * rotation.new_tensor([MAX_ROLL, MAX_SHEAR])[: rotation.shape[1]]
        numbers = torch.cat((_bounded(centre, -1.0, 1.0), _log_size(size), rotation), 1)
        at_face = (cells.features @ share)[:, :, 0]
        pooled = torch.cat((at_face, cells.features.mean(2), cells.features.amax(2)), 1)
        return numbers, self.presence(pooled)[:, 0]


class _Conv(nn.Sequential):
    def __init__(self, inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> None:
        conv = nn.Conv2d(inputs, outputs, 3, stride, dilation, dilation, bias=False)
        super().__init__(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class _Residual(nn.Module):
    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.conv = _Conv(width, width, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x)


def keep_near_best(beliefs: Tensor) -> Tensor:
    """The beliefs [n, cells] of the strongest cell and its neighbours, -inf elsewhere. Otherwise a second face would
    move the mean to between both. Uniform beliefs, of an untrained network, are kept."""
    return beliefs.masked_fill((_distance_from_best(beliefs) > 1) & ~_is_uniform(beliefs), -math.inf)


def keep_far_from_best(beliefs: Tensor) -> Tensor:
    """The beliefs [n, cells] more than two cells away from the strongest cell, -inf elsewhere. All of them if none
    would be left or all are equal."""
    near = (_distance_from_best(beliefs) <= 2) | beliefs.isneginf()
    return beliefs.masked_fill(near & ~(near.all(1, keepdim=True) | _is_uniform(beliefs)), -math.inf)


def _distance_from_best(beliefs: Tensor) -> Tensor:
    side = math.isqrt(beliefs.shape[1])
    place = torch.arange(beliefs.shape[1], device=beliefs.device)
    best = beliefs.argmax(1, keepdim=True)
    return torch.maximum((place % side - best % side).abs(), (place // side - best // side).abs())


def _is_uniform(beliefs: Tensor) -> Tensor:
    return (beliefs == beliefs[:, :1]).all(1, keepdim=True)


def _log_size(raw: Tensor) -> Tensor:
    """log of the half side, between log MIN_HALF_SIDE and 0 (raw 0)."""
    return _bounded(raw, math.log(MIN_HALF_SIDE), 0.0)


def _bounded(value: Tensor, low: float, high: float) -> Tensor:
    """Clamped, with the gradient of the unclamped value, so that training can move it back between the bounds."""
    return value + (value.clamp(low, high) - value).detach()
