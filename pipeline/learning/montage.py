"""Training pictures for the STN: each is moved, zoomed, turned, relit and covered at random, and its box goes with it.

A data set has few people in few places. So that the STN learns what a face is, and not whose or where, some pictures
get the face of another, some another background, and some show only a background.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ...models.pyramid import Pyramid
from ...models.stn import CLOSER
from ...models.theta import compose, corners_from_theta, theta_from_corners
from .augment import Augmentation, blur, colour, erase, noise, shade

HOW = Augmentation(
    brightness=0.25, contrast=0.4, channels=0.4, invert_hue=0.2, shade=0.3, grey=0.2, blur=0.3, noise=0.3, erase=0.4
)
ZOOM_IN, ZOOM_OUT = 0.45, 1.6
"""The least and the largest part of the picture, per side, that a training picture shows; half of them stay near 1."""
STRETCH = 0.2
"""How much the two sides differ in that, as a logarithm, either way."""
TILT = 0.35
"""Radians, either way, by which half of the training pictures are turned."""
SWAPPED, REPLACED, EMPTY = 0.3, 0.3, 0.18
"""Shares of the training pictures that get another face, another background, or are a background alone."""
SECOND = 0.45
"""Share of the training pictures that show the face as the STN's second glance does."""
SEEN, HIDDEN = 0.4, 0.1
"""A face of which this share is left in the picture counts as there; less than HIDDEN, as not there."""


@dataclass(frozen=True)
class Pictures:
    """pixels: uint8 [n, 3, s, s], or float as a training batch. theta: float32 [n, 2, 3], anything where there is no
    face. face: bool [n]; in a training batch 1, 0, or -1 where only a piece of a face is left."""

    pixels: Tensor
    theta: Tensor
    face: Tensor

    def __len__(self) -> int:
        return len(self.face)


class Album:
    """Pictures to draw training batches from again and again."""

    def __init__(self, pictures: Pictures) -> None:
        self.pyramid = Pyramid(pictures.pixels).build()
        self.theta, self.face = pictures.theta, pictures.face

    def __len__(self) -> int:
        return len(self.face)


def change(album: Album, rows: Tensor, view: int, generator: torch.Generator, device: torch.device) -> Pictures:
    """A training batch, at view x view, from these rows of an album and, for other faces and backgrounds, from all."""
    n = len(rows)
    there = album.face[rows]
    theta = torch.where(there[:, None, None], album.theta[rows], _anywhere(n, generator))
    empty = _chance(n, EMPTY, generator)
    part = torch.where(empty[:, None, None], beside(theta, there, generator), _moved(theta, generator))
    pixels = album.pyramid.sample(part, view, rows).to(device)
    theta = compose(_inverse(part), theta)
    theta[:, :, 0] *= theta[:, :, :2].det().sign()[:, None]  # a mirrored box is the same box

    others = torch.randint(len(album), (n,), generator=generator)
    swapped = _chance(n, SWAPPED, generator) & there & album.face[others] & ~empty
    faces = compose(album.theta[others], _inverse(theta))
    pixels = _paste(pixels, album.pyramid, others, faces, swapped, _bell(theta, view, 0.97, 1.12))
    others = torch.randint(len(album), (n,), generator=generator)
    replaced = _chance(n, REPLACED, generator) & ~empty
    grounds = beside(album.theta[others], album.face[others], generator)
    outside = 1 - _bell(theta, view, 1.6, 2.1) * there[:, None, None]
    pixels = _paste(pixels, album.pyramid, others, grounds, replaced, outside)

    pixels = colour(pixels, HOW, generator)
    pixels = shade(pixels, HOW.shade, generator)
    pixels = blur(pixels, HOW.blur, HOW.blur_sigma * view / 96, generator)
    pixels = noise(pixels, HOW.noise, HOW.noise_sigma, generator)
    pixels = erase(pixels, HOW.erase, 0.2, generator)
    whole = corners_from_theta(theta, 1.0, 1.0)
    inside = whole.clamp(0, 1)
    area = (whole[:, 2:] - whole[:, :2]).prod(1).clamp(min=1e-9)
    left = (inside[:, 2:] - inside[:, :2]).clamp(min=0).prod(1) / area
    face = torch.where(left >= SEEN, 1.0, torch.where(left <= HIDDEN, 0.0, -1.0)) * there
    return Pictures(pixels.clamp(0, 255), _within(theta, inside).to(device), face.to(device))


def beside(theta: Tensor, there: Tensor, generator: torch.Generator) -> Tensor:
    """For each picture a part of it without its face, as a theta [n, 2, 3]: left, right, above or below the box."""
    n = len(theta)
    wide = torch.cat((theta[:, :, :2] * 1.25, theta[:, :, 2:]), 2)
    x0, y0, x1, y1 = (2 * corners_from_theta(wide, 1.0, 1.0).clamp(0, 1) - 1).unbind(1)
    one = torch.ones(n)
    sides = torch.stack([torch.stack(side, 1) for side in (
        (-one, -one, x0, one), (x1, -one, one, one), (-one, -one, one, y0), (-one, y1, one, one)
    )], 1)  # fmt: skip
    sides = torch.where(there[:, None, None], sides, torch.tensor([-1.0, -1.0, 1.0, 1.0]))
    areas = (sides[:, :, 2:] - sides[:, :, :2]).clamp(min=1e-3).prod(2)
    chosen = sides[torch.arange(n), torch.multinomial(areas.square(), 1, generator=generator)[:, 0]]
    size = (chosen[:, 2:] - chosen[:, :2]).clamp(min=0.02)
    share = 0.15 ** torch.rand(n, 1, generator=generator) * (0.7 + 0.3 * torch.rand(n, 2, generator=generator))
    low = chosen[:, :2] + size * (1 - share) * torch.rand(n, 2, generator=generator)
    return theta_from_corners((torch.cat((low, low + size * share), 1) + 1) / 2, 1.0, 1.0)


def _anywhere(n: int, generator: torch.Generator) -> Tensor:
    """Boxes [n, 2, 3] of all sizes, somewhere in the picture."""
    size = 0.1 + 0.4 * torch.rand(n, 2, generator=generator)
    centre = (1 - size) * (2 * torch.rand(n, 2, generator=generator) - 1)
    return torch.cat((torch.diag_embed(size), centre[:, :, None]), 2)


def _moved(theta: Tensor, generator: torch.Generator) -> Tensor:
    """For each picture the part of it that is shown, as a theta [n, 2, 3]: the face is mostly in it."""
    n = len(theta)

    def uniform(low: float, high: float, width: int) -> Tensor:
        return low + (high - low) * torch.rand(n, width, generator=generator)

    far, near = uniform(math.log(ZOOM_IN), math.log(ZOOM_OUT), 1), uniform(-0.3, 0.3, 1)
    zoom = torch.where(_chance(n, 0.5, generator)[:, None], far, near) + uniform(-STRETCH, STRETCH, 2)
    closer = _chance(n, SECOND, generator)[:, None]
    size = theta[:, :, :2].norm(dim=2).log() + uniform(math.log(0.8), math.log(1.3), 1) + math.log(CLOSER)
    zoom = torch.where(closer, size + uniform(-STRETCH, STRETCH, 2), zoom).exp()
    reach = torch.where(closer, 0.25, 0.75)
    shift = theta[:, :, 2] - zoom * reach * uniform(-1, 1, 2)  # where the face goes in the new picture
    zoom[:, 0] *= torch.where(_chance(n, 0.5, generator), -1.0, 1.0)
    tilt = uniform(-TILT, TILT, 1)[:, 0] * _chance(n, 0.5, generator)
    turn = torch.stack((tilt.cos(), -tilt.sin(), tilt.sin(), tilt.cos()), 1).view(n, 2, 2)
    return torch.cat((turn @ torch.diag_embed(zoom), shift[:, :, None]), 2)


def _paste(pixels: Tensor, donors: Pyramid, rows: Tensor, parts: Tensor, chosen: Tensor, mask: Tensor) -> Tensor:
    """Where chosen, puts these parts of the donors' rows onto the pixels, as far as the mask [n, v, v] says."""
    some = chosen.nonzero()[:, 0]
    if not len(some):
        return pixels
    drawn = donors.sample(parts[some], pixels.shape[-1], rows[some]).to(pixels.device)
    some, mask = some.to(pixels.device), mask.to(pixels.device)
    return pixels.index_copy(0, some, pixels[some].lerp(drawn, mask[some, None]))


def _bell(theta: Tensor, view: int, inner: float, outer: float) -> Tensor:
    """[n, v, v]: 1 on the ellipse in each box times `inner`, 0 beyond `outer`, between them a slope."""
    steps = (2 * torch.arange(view) + 1) / view - 1
    points = torch.stack((steps.repeat(view), steps.repeat_interleave(view), torch.ones(view * view)))
    radius = (_inverse(theta) @ points).square().sum(1).sqrt().view(-1, view, view)
    return ((outer - radius) / (outer - inner)).clamp(0, 1)


def _inverse(theta: Tensor) -> Tensor:
    back = torch.linalg.inv(theta[:, :, :2])
    return torch.cat((back, -back @ theta[:, :, 2:]), 2)


def _within(theta: Tensor, corners: Tensor) -> Tensor:
    """The thetas shrunk until these corners (shares of the picture) are their upright boxes, turned as they were."""
    upright = theta_from_corners(corners, 1.0, 1.0)
    size = upright[:, :, :2].sum(2, keepdim=True) / theta[:, :, :2].norm(dim=2, keepdim=True).clamp(min=1e-6)
    return torch.cat((theta[:, :, :2] * size, upright[:, :, 2:]), 2)


def _chance(n: int, chance: float, generator: torch.Generator) -> Tensor:
    return torch.rand(n, generator=generator) < chance
