"""SpatialTransformer: where the face is, whether there is one, and the crop that the backbone sees.

Boxes are thetas (theta.py). The crop shows the box and `margin` around it.
"""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from .pyramid import Pyramid
from .theta import around, compose, theta_from_corners

Kind = Literal["crop", "similarity", "affine"]

SMALLEST = 0.05
"""Of a box's half side; the largest is 1, the whole picture."""
MAX_ROLL = math.pi / 4
MAX_SHEAR = 0.3
CLOSER = 1.8
"""Side of the second glance, in sides of the box that the first one found."""
NEARER = 1.6
"""Side of the third glance, in sides of the box that the second one found."""


class Look(NamedTuple):
    """crop: float [n, 3, c, c] in 0..255. theta: float [n, 2, 3], the box. presence: [n], logit of a face in it."""

    crop: Tensor
    theta: Tensor
    presence: Tensor


class SpatialTransformer(nn.Module):
    """Looks at a small view of each frame, finds the face, and samples it from the full frame.

    It glances three times with the same network: at the whole picture; at what is around the two most likely boxes
    found there, of which it keeps the one that looks more like a face from near; and at that one again, in the mirror.
    What the last two glances say is averaged. So a small face is measured as finely as a large one, a thing like a face
    is looked at before it is believed, and what the network gets wrong on one side it does not on the other.

    kind: what theta may do: `crop` (scale in x and y, shift), `similarity` (and roll, up to 45 degrees), `affine` (and
    shear). view: side of the small view, a multiple of 16. crop: side of the crop. margin: context around the box, as a
    share of its half side.

    Untrained it is the identity: the box is the whole picture. Whatever its weights, the box's centre stays in the
    picture and its half side between SMALLEST and 1, so no gradient of a later network can make it fly away.
    """

    def __init__(self, kind: Kind = "crop", view: int = 96, crop: int = 224, margin: float = 0.1) -> None:
        super().__init__()
        self.kind: Kind = kind
        self.view, self.crop, self.margin = view, crop, margin
        self.localiser = _Localiser({"crop": 4, "similarity": 5, "affine": 6}[kind])

    def forward(self, frames: Tensor, region: Tensor | None = None) -> Look:
        """frames: uint8 or float [n, 3, H, W], RGB in 0..255. region: [n, 4] x0 y0 x1 y1 as fractions of the picture,
        the part each frame's subject is in; None: all of it."""
        return self.look(Pyramid(frames), region)

    def look(self, pyramid: Pyramid, region: Tensor | None = None) -> Look:
        """What `forward` does, for frames in a pyramid."""
        theta, presence = self._locate(pyramid, region)
        return Look(self.sample(pyramid, theta), theta, presence)

    def locate(self, frames: Tensor | Pyramid, region: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(theta [n, 2, 3] in whole-picture coordinates, presence logits [n])."""
        return self._locate(_pyramid(frames), region)

    def sample(self, frames: Tensor | Pyramid, theta: Tensor) -> Tensor:
        """The crops of these boxes: float [n, 3, crop, crop] in 0..255. Antialiased, differentiable in theta. A Pyramid
        serves many calls with the same frames."""
        return _pyramid(frames).sample(theta * (1 + self._grow(theta)), self.crop)

    def whole(self, n: int) -> Tensor:
        """theta [n, 2, 3] whose crop, margin included, is just the whole picture: for frames that are crops already."""
        theta = torch.eye(2, 3) / (1 + self.margin)
        return theta.expand(n, 2, 3).to(next(self.parameters()).device)

    def study(self, view: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """For training: what it makes of views, float [n, 3, view, view]: theta in the view, presence logits [n], and
        how much each of its cells believes in a face, logits [n, cells], row by row."""
        seen = self.localiser(view)
        with torch.autocast(view.device.type, enabled=False):
            numbers, presence = self.localiser.tell(seen, _near_best(seen.beliefs))
            return self.box_of(numbers), presence, seen.beliefs

    @torch.no_grad()
    def look_everywhere(self) -> None:
        """Makes it the identity that sees a face in every frame: what is left to do where nobody knows boxes."""
        self.localiser.reset()
        self.localiser.presence.bias.fill_(20.0)

    def _locate(self, pyramid: Pyramid, region: Tensor | None) -> tuple[Tensor, Tensor]:
        n, device = pyramid.frames.shape[0], pyramid.frames.device
        part = _whole(n, device) if region is None else _region_theta(region.to(device, torch.float32))
        within = None if region is None else part
        seen = self.localiser(pyramid.sample(part, self.view, within=within))
        with torch.autocast(device.type, enabled=False):
            others = _apart_from_best(seen.beliefs)
            found = [self.box_of(self.localiser.tell(seen, _near_best(some))[0]) for some in (seen.beliefs, others)]
            closer = around(torch.cat(found).detach(), CLOSER, even=self.kind != "crop")
        twice = None if region is None else part.repeat(2, 1, 1)
        view = pyramid.sample(
            compose(part.repeat(2, 1, 1), closer), self.view, torch.arange(n, device=device).repeat(2), twice
        )
        theta, presence, _ = self.study(view)
        with torch.autocast(device.type, enabled=False):
            one, two = torch.arange(2 * n, device=device).view(2, n)
            chosen = torch.where(presence[n:] > presence[:n], two, one)
            second, presence = _no_smaller(compose(closer[chosen], theta[chosen])), presence[chosen]
            mirrored = _mirror(around(second.detach(), NEARER, even=self.kind != "crop"))
        theta, again, _ = self.study(pyramid.sample(compose(part, mirrored), self.view, within=within))
        with torch.autocast(device.type, enabled=False):
            third = _mirror(compose(mirrored, theta))
            return compose(part, _no_smaller((second + third) / 2)), (presence + again) / 2

    def box_of(self, numbers: Tensor) -> Tensor:
        """Bounded numbers [n, 4..6] (tx, ty, log sx, log sy, roll, shear) to theta [n, 2, 3]."""
        tx, ty, log_sx, log_sy = numbers[:, :4].unbind(1)
        sx, sy = log_sx.exp(), log_sy.exp()
        zero = torch.zeros_like(tx)
        if self.kind == "crop":
            return torch.stack((sx, zero, tx, zero, sy, ty), 1).view(-1, 2, 3)
        cos, sin = numbers[:, 4].cos(), numbers[:, 4].sin()
        shear = numbers[:, 5] if self.kind == "affine" else zero
        rows = (cos * sx, (cos * shear - sin) * sy, tx, sin * sx, (sin * shear + cos) * sy, ty)
        return torch.stack(rows, 1).view(-1, 2, 3)

    def _grow(self, theta: Tensor) -> Tensor:
        """margin for the four scale terms, nothing for the shift."""
        return theta.new_tensor([self.margin, self.margin, 0.0])


class _Seen(NamedTuple):
    """Of each cell, row by row: beliefs [n, cells], logits; boxes [n, 4..6, cells], unbounded numbers; features
    [n, width, cells]."""

    beliefs: Tensor
    boxes: Tensor
    features: Tensor


class _Localiser(nn.Module):
    """The view in, what each cell of a map of one eighth of its side sees out.

    Each says how strongly it believes in a face there, and what box it sees relative to itself; the box is the mean of
    what neighbouring cells say, weighted by the softmax of their beliefs. Dilated convolutions let each cell see the
    whole view, since a face may fill it.
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
        """Identity: even beliefs have their mean in the middle, and zeros mean the whole picture."""
        for layer in (self.says[-1], self.presence):
            assert isinstance(layer, nn.Conv2d | nn.Linear)
            assert layer.bias is not None
            layer.weight.zero_()
            layer.bias.zero_()

    def forward(self, view: Tensor) -> _Seen:
        """view: float [n, 3, v, v] in 0..255."""
        mean = view.mean((1, 2, 3), keepdim=True)
        spread = (view - mean).square().mean((1, 2, 3), keepdim=True).add(25.0).sqrt()  # 25: an even picture stays even
        features = self.body(self.stem(((view - mean) / spread).contiguous(memory_format=torch.channels_last)))
        with torch.autocast(view.device.type, enabled=False):  # half precision is too coarse for coordinates
            says, side = self.says(features.float()), features.shape[-1]
            raw = says[:, 1:].flatten(2)
            steps = (2 * torch.arange(side, device=raw.device, dtype=raw.dtype) + 1) / side - 1
            cells = torch.stack((steps.repeat(side), steps.repeat_interleave(side)))
            boxes = torch.cat((cells + raw[:, :2], raw[:, 2:]), 1)
            return _Seen(says[:, 0].flatten(1), boxes, features.float().flatten(2))

    def tell(self, seen: _Seen, beliefs: Tensor) -> tuple[Tensor, Tensor]:
        """(bounded numbers [n, 4..6], presence logits [n]) by these beliefs [n, cells]."""
        share = beliefs.softmax(1)[:, :, None]
        centre, size, turn = (seen.boxes @ share)[:, :, 0].tensor_split((2, 4), 1)
        turn = turn.tanh() * turn.new_tensor([MAX_ROLL, MAX_SHEAR])[: turn.shape[1]]
        numbers = torch.cat((_bounded(centre, -1.0, 1.0), _log_size(size), turn), 1)
        under = (seen.features @ share)[:, :, 0]
        about = torch.cat((under, seen.features.mean(2), seen.features.amax(2)), 1)
        return numbers, self.presence(about)[:, 0]


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


def _near_best(beliefs: Tensor) -> Tensor:
    """The beliefs [n, cells] in the strongest one and its neighbours, -inf elsewhere: a second face would pull the mean
    between both. Where all are the same, as those of an untrained network, they stay."""
    return beliefs.masked_fill((_steps_from_best(beliefs) > 1) & ~_even(beliefs), -math.inf)


def _apart_from_best(beliefs: Tensor) -> Tensor:
    """The beliefs [n, cells] more than two cells away from the strongest one, -inf elsewhere; all of them where none is
    that far, or all are the same."""
    near = _steps_from_best(beliefs) <= 2
    return beliefs.masked_fill(near & ~(near.all(1, keepdim=True) | _even(beliefs)), -math.inf)


def _steps_from_best(beliefs: Tensor) -> Tensor:
    side = math.isqrt(beliefs.shape[1])
    place = torch.arange(beliefs.shape[1], device=beliefs.device)
    best = beliefs.argmax(1, keepdim=True)
    return torch.maximum((place % side - best % side).abs(), (place // side - best // side).abs())


def _even(beliefs: Tensor) -> Tensor:
    return (beliefs == beliefs[:, :1]).all(1, keepdim=True)


def _pyramid(frames: Tensor | Pyramid) -> Pyramid:
    return frames if isinstance(frames, Pyramid) else Pyramid(frames)


def _region_theta(region: Tensor) -> Tensor:
    return theta_from_corners(region, 1.0, 1.0)


def _whole(n: int, device: torch.device) -> Tensor:
    return torch.eye(2, 3, device=device).expand(n, 2, 3)


def _mirror(theta: Tensor) -> Tensor:
    """The same box, its left and right exchanged."""
    return theta * theta.new_tensor([-1.0, 1.0, 1.0])


def _no_smaller(theta: Tensor) -> Tensor:
    """Sides shorter than SMALLEST become that long."""
    size = theta[:, :, :2].detach().norm(dim=1, keepdim=True)
    return torch.cat((theta[:, :, :2] * (size.clamp(min=SMALLEST) / size), theta[:, :, 2:]), 2)


def _log_size(raw: Tensor) -> Tensor:
    """log of the half side, from 0 (raw 0) to log SMALLEST."""
    return _bounded(raw, math.log(SMALLEST), 0.0)


def _bounded(value: Tensor, low: float, high: float) -> Tensor:
    """Clamped, with the gradient of what is not: beyond a bound there is a way back."""
    return value + (value.clamp(low, high) - value).detach()
