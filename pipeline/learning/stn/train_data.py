"""Training pictures for the STN, with random shift, zoom, rotation, light and occlusion. The box moves with the
picture.

A data set has few people and few backgrounds. So that the STN learns faces and not these people or places, some
pictures get the face of another picture, some get another background, and some show only a background.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ....models.pyramid import Pyramid
from ....models.stn import SECOND_PASS
from ....models.theta import compose, corners_from_theta, theta_from_corners
from ..augment import Augmentation, blur, colour, erase, noise, shade

AUGMENTATION = Augmentation(
    brightness=0.25, contrast=0.4, channels=0.4, invert_hue=0.2, shade=0.3, grey=0.2, blur=0.3, noise=0.3, erase=0.4
)
MIN_ZOOM, MAX_ZOOM = 0.45, 1.6
"""Smallest and largest part of the picture, per side, in a training picture. Half of the pictures stay near 1."""
MAX_STRETCH = 0.2
"""Largest log difference between the zoom of the two sides, in both directions."""
MAX_TILT = 0.35
"""Largest rotation in radians, in both directions, of half of the training pictures."""
FACE_SWAP, BACKGROUND_SWAP, BACKGROUND_ONLY = 0.3, 0.3, 0.18
"""Shares of the training pictures with another face, with another background, and of a background alone."""
CLOSE_UP = 0.45
"""Share of the training pictures that show the face as the STN's second pass sees it."""
MIN_VISIBLE, MAX_HIDDEN = 0.4, 0.1
"""A face counts if at least MIN_VISIBLE of its box is in the picture. Up to MAX_HIDDEN, it counts as no face."""


@dataclass(frozen=True)
class BoxedImages:
    """pixels: uint8 [n, 3, s, s], or float as a training batch. theta: float32 [n, 2, 3], arbitrary without a
    face. face: bool [n]; in a training batch 1, 0, or -1 for a partly visible face. all_faces: [n, k, 2, 3], every face
    of a training batch, NaN where there are fewer than k; None: theta is the only one."""

    pixels: Tensor
    theta: Tensor
    face: Tensor
    all_faces: Tensor | None = None

    def __len__(self) -> int:
        return len(self.face)


class ImagePool:
    """BoxedImages prepared for drawing many training batches."""

    def __init__(self, pictures: BoxedImages) -> None:
        self.pyramid = Pyramid(pictures.pixels).build()
        self.theta, self.face = pictures.theta, pictures.face

    def __len__(self) -> int:
        return len(self.face)


def draw_batch(
    pool: ImagePool, rows: Tensor, view: int, generator: torch.Generator, device: torch.device
) -> BoxedImages:
    """A training batch, at view x view, of these rows of the pool. Other faces and backgrounds come from all rows."""
    n = len(rows)
    has_face = pool.face[rows]
    theta = torch.where(has_face[:, None, None], pool.theta[rows], _draw_boxes(n, generator))
    empty = _chance(n, BACKGROUND_ONLY, generator)
    part = torch.where(empty[:, None, None], draw_beside(theta, has_face, generator), _draw_parts(theta, generator))
    pixels = pool.pyramid.sample(part, view, rows).to(device)
    theta = compose(inverse(part), theta)
    theta[:, :, 0] *= theta[:, :, :2].det().sign()[:, None]  # a box and its mirror image are equal

    others = torch.randint(len(pool), (n,), generator=generator)
    swap_face = _chance(n, FACE_SWAP, generator) & has_face & pool.face[others] & ~empty
    faces = compose(pool.theta[others], inverse(theta))
    pixels = _paste(pixels, pool.pyramid, others, faces, swap_face, _soft_ellipse(theta, view, 0.97, 1.12))
    others = torch.randint(len(pool), (n,), generator=generator)
    swap_background = _chance(n, BACKGROUND_SWAP, generator) & ~empty
    backgrounds = draw_beside(pool.theta[others], pool.face[others], generator)
    outside = 1 - _soft_ellipse(theta, view, 1.6, 2.1) * has_face[:, None, None]
    pixels = _paste(pixels, pool.pyramid, others, backgrounds, swap_background, outside)

    pixels = colour(pixels, AUGMENTATION, generator)
    pixels = shade(pixels, AUGMENTATION.shade, generator)
    pixels = blur(pixels, AUGMENTATION.blur, AUGMENTATION.blur_sigma * view / 96, generator)
    pixels = noise(pixels, AUGMENTATION.noise, AUGMENTATION.noise_sigma, generator)
    pixels = erase(pixels, AUGMENTATION.erase, 0.2, generator)
    whole = corners_from_theta(theta, 1.0, 1.0)
    inside = whole.clamp(0, 1)
    area = (whole[:, 2:] - whole[:, :2]).prod(1).clamp(min=1e-9)
    visible = (inside[:, 2:] - inside[:, :2]).clamp(min=0).prod(1) / area
    face = torch.where(visible >= MIN_VISIBLE, 1.0, torch.where(visible <= MAX_HIDDEN, 0.0, -1.0)) * has_face
    return BoxedImages(pixels.clamp(0, 255), limit_to(theta, inside).to(device), face.to(device))


def draw_beside(theta: Tensor, has_face: Tensor, generator: torch.Generator) -> Tensor:
    """For each picture a random part without its face, as a theta [n, 2, 3]: left, right, above or below the box."""
    n = len(theta)
    wide = torch.cat((theta[:, :, :2] * 1.25, theta[:, :, 2:]), 2)
    x0, y0, x1, y1 = (2 * corners_from_theta(wide, 1.0, 1.0).clamp(0, 1) - 1).unbind(1)
    one = torch.ones(n)
    sides = torch.stack([torch.stack(side, 1) for side in (
        (-one, -one, x0, one), (x1, -one, one, one), (-one, -one, one, y0), (-one, y1, one, one)
    )], 1)  # fmt: skip
    sides = torch.where(has_face[:, None, None], sides, torch.tensor([-1.0, -1.0, 1.0, 1.0]))
    areas = (sides[:, :, 2:] - sides[:, :, :2]).clamp(min=1e-3).prod(2)
    chosen = sides[torch.arange(n), torch.multinomial(areas.square(), 1, generator=generator)[:, 0]]
    size = (chosen[:, 2:] - chosen[:, :2]).clamp(min=0.02)
    share = 0.15 ** torch.rand(n, 1, generator=generator) * (0.7 + 0.3 * torch.rand(n, 2, generator=generator))
    low = chosen[:, :2] + size * (1 - share) * torch.rand(n, 2, generator=generator)
    return theta_from_corners((torch.cat((low, low + size * share), 1) + 1) / 2, 1.0, 1.0)


def _draw_boxes(n: int, generator: torch.Generator) -> Tensor:
    """Random boxes [n, 2, 3] in the picture."""
    size = 0.1 + 0.4 * torch.rand(n, 2, generator=generator)
    centre = (1 - size) * (2 * torch.rand(n, 2, generator=generator) - 1)
    return torch.cat((torch.diag_embed(size), centre[:, :, None]), 2)


def _draw_parts(theta: Tensor, generator: torch.Generator) -> Tensor:
    """For each picture the random part to show, as a theta [n, 2, 3]. Most parts contain the face."""
    n = len(theta)

    def uniform(low: float, high: float, width: int) -> Tensor:
        return low + (high - low) * torch.rand(n, width, generator=generator)

    far, near = uniform(math.log(MIN_ZOOM), math.log(MAX_ZOOM), 1), uniform(-0.3, 0.3, 1)
    zoom = torch.where(_chance(n, 0.5, generator)[:, None], far, near) + uniform(-MAX_STRETCH, MAX_STRETCH, 2)
    closer = _chance(n, CLOSE_UP, generator)[:, None]
    size = theta[:, :, :2].norm(dim=2).log() + uniform(math.log(0.8), math.log(1.3), 1) + math.log(SECOND_PASS)
    zoom = torch.where(closer, size + uniform(-MAX_STRETCH, MAX_STRETCH, 2), zoom).exp()
    reach = torch.where(closer, 0.25, 0.75)
    shift = theta[:, :, 2] - zoom * reach * uniform(-1, 1, 2)  # moves the face within the new picture
    zoom[:, 0] *= torch.where(_chance(n, 0.5, generator), -1.0, 1.0)
    tilt = uniform(-MAX_TILT, MAX_TILT, 1)[:, 0] * _chance(n, 0.5, generator)
    turn = torch.stack((tilt.cos(), -tilt.sin(), tilt.sin(), tilt.cos()), 1).view(n, 2, 2)
    return torch.cat((turn @ torch.diag_embed(zoom), shift[:, :, None]), 2)


def _paste(pixels: Tensor, donors: Pyramid, rows: Tensor, parts: Tensor, chosen: Tensor, mask: Tensor) -> Tensor:
    """Blends these parts of the donors' rows into the chosen pictures, weighted by the mask [n, v, v]."""
    selected = chosen.nonzero()[:, 0]
    if not len(selected):
        return pixels
    drawn = donors.sample(parts[selected], pixels.shape[-1], rows[selected]).to(pixels.device)
    selected, mask = selected.to(pixels.device), mask.to(pixels.device)
    return pixels.index_copy(0, selected, pixels[selected].lerp(drawn, mask[selected, None]))


def _soft_ellipse(theta: Tensor, view: int, inner: float, outer: float) -> Tensor:
    """[n, v, v]: 1 in the ellipse of each box times `inner`, 0 outside `outer`, linear in between."""
    steps = (2 * torch.arange(view) + 1) / view - 1
    points = torch.stack((steps.repeat(view), steps.repeat_interleave(view), torch.ones(view * view)))
    radius = (inverse(theta) @ points).square().sum(1).sqrt().view(-1, view, view)
    return ((outer - radius) / (outer - inner)).clamp(0, 1)


def inverse(theta: Tensor) -> Tensor:
    """The map back, [n, 2, 3]: compose(inverse(theta), theta) is the identity."""
    back = torch.linalg.inv(theta[:, :, :2])
    return torch.cat((back, -back @ theta[:, :, 2:]), 2)


def limit_to(theta: Tensor, corners: Tensor) -> Tensor:
    """The thetas, shrunk so that these corners (fractions of the picture) are their upright boxes. The roll is kept."""
    upright = theta_from_corners(corners, 1.0, 1.0)
    size = upright[:, :, :2].sum(2, keepdim=True) / theta[:, :, :2].norm(dim=2, keepdim=True).clamp(min=1e-6)
    return torch.cat((theta[:, :, :2] * size, upright[:, :, 2:]), 2)


def _chance(n: int, chance: float, generator: torch.Generator) -> Tensor:
    return torch.rand(n, generator=generator) < chance
