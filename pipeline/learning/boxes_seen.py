"""What teaches the STN: pictures with the box of a face or none, moved and recoloured at random, and how well it looks.

A picture is all that a subject's STN may see: the whole frame, or its half. Boxes are thetas in it (models/stn.py).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ...models.stn import SpatialTransformer, box_iou, compose, corners_from_theta, resample, theta_from_corners
from .augment import Augmentation, blur, colour, erase, noise

HOW = Augmentation(brightness=0.25, contrast=0.4, channels=0.4, grey=0.2, blur=0.3, noise=0.3, erase=0.4)
ZOOM_IN, ZOOM_OUT = 0.45, 1.6
"""The least and the largest part of the picture, per side, that a training picture shows; half of them stay near 1."""
STRETCH = 0.2
"""How much the two sides differ in that, as a logarithm, either way."""
TILT = 0.35
"""Radians, either way, by which half of the training pictures are turned."""
ELSEWHERE = 0.1
"""Share of training pictures that show a small part of the picture by chance, mostly without the face."""
PLACE = 0.2
"""Weight of the place loss."""
SEEN, HIDDEN = 0.4, 0.1
"""A face of which this share is left in the picture counts as there; less than HIDDEN, as not there."""
BELIEF = 0.2
"""Weight of the loss that tells the STN's cells which of them lie on the face: with it a tenth of the steps suffice."""


@dataclass(frozen=True)
class Pictures:
    """pixels: uint8 [n, 3, s, s]. theta: float32 [n, 2, 3], anything where there is no face. face: bool [n]."""

    pixels: Tensor
    theta: Tensor
    face: Tensor

    def __len__(self) -> int:
        return len(self.face)


def join(parts: Sequence[Pictures]) -> Pictures:
    """All of them in one; none at all where there are no parts."""
    if not parts:
        return Pictures(
            torch.zeros(0, 3, 1, 1, dtype=torch.uint8), torch.zeros(0, 2, 3), torch.zeros(0, dtype=torch.bool)
        )
    return Pictures(*(torch.cat([getattr(part, name) for part in parts]) for name in ("pixels", "theta", "face")))


def draw_batches(pictures: Pictures, view: int, batch: int, seed: int, device: torch.device) -> Iterator[Pictures]:
    """The pictures once, in random order and changed at random, at view x view (float 0..255)."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(pictures), generator=generator)
    for rows in order[: len(order) // batch * batch].split(batch):
        part = Pictures(
            pictures.pixels[rows].to(device), pictures.theta[rows].to(device), pictures.face[rows].to(device)
        )
        yield change(part, view, generator)


def change(pictures: Pictures, view: int, generator: torch.Generator) -> Pictures:
    """Zooms, shifts, stretches, mirrors, relights, blurs and covers each picture; its box goes with it."""
    n, device = len(pictures), pictures.pixels.device

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(n, *shape, generator=generator)

    wide = torch.where(uniform(0, 1, 1) < 0.5, uniform(math.log(ZOOM_IN), math.log(ZOOM_OUT), 1), uniform(-0.3, 0.3, 1))
    zoom = torch.exp(wide + uniform(-STRETCH, STRETCH, 2))
    centre = pictures.theta[:, :, 2].cpu()
    aim = torch.where(pictures.face.cpu()[:, None], centre, torch.zeros_like(centre))
    shift = aim - zoom * uniform(-0.75, 0.75, 2)  # where the face goes in the new picture
    elsewhere = uniform(0, 1, 1) < ELSEWHERE
    zoom = torch.where(elsewhere, uniform(0.2, 0.5, 2), zoom)
    shift = torch.where(elsewhere, uniform(-0.8, 0.8, 2), shift)
    mirror = torch.cat((uniform(0, 1, 1).sub(0.5).sign(), torch.ones(n, 1)), 1)
    tilt = (uniform(-TILT, TILT, 1) * (uniform(0, 1, 1) < 0.5))[:, 0]
    turn = torch.stack((tilt.cos(), -tilt.sin(), tilt.sin(), tilt.cos()), 1).view(n, 2, 2)
    part = torch.cat((turn @ torch.diag_embed(zoom * mirror), shift[:, :, None]), 2).to(device)
    pixels = resample(pictures.pixels, part, view)
    back = torch.linalg.inv(part[:, :, :2])
    theta = compose(torch.cat((back, -back @ part[:, :, 2:]), 2), pictures.theta)
    theta[:, :, 0] *= mirror[:, :1].to(device)  # a mirrored box is the same box
    whole = corners_from_theta(theta, 1.0, 1.0)
    inside = whole.clamp(0, 1)
    area = (whole[:, 2:] - whole[:, :2]).prod(1).clamp(min=1e-9)
    left = (inside[:, 2:] - inside[:, :2]).clamp(min=0).prod(1) / area
    face = torch.where(left >= SEEN, pictures.face.float(), torch.where(left <= HIDDEN, 0.0, -1.0))
    face = torch.where(pictures.face, face, 0.0)
    pixels = colour(pixels, HOW, generator)
    pixels = blur(pixels, HOW.blur, HOW.blur_sigma * view / 96, generator)
    pixels = noise(pixels, HOW.noise, HOW.noise_sigma, generator)
    pixels = erase(pixels, HOW.erase, 0.2, generator)
    return Pictures(pixels.clamp(0, 255), _within(theta, inside), face)


def stn_loss(stn: SpatialTransformer, pictures: Pictures) -> tuple[Tensor, dict[str, Tensor]]:
    """Box loss (1 - GIoU, Rezatofighi et al. 2019, and distances in box sizes) and belief loss where a face is, and
    presence loss.

    `face` is 1 where a face is there, 0 where not, -1 where only a piece of one is: that teaches nothing.
    """
    theta, presence, beliefs = stn.study(pictures.pixels)
    with torch.autocast(theta.device.type, enabled=False):
        there, known = pictures.face == 1, pictures.face >= 0
        box = belief = seen = presence.sum() * 0.0
        if there.any():
            wanted = pictures.theta[there]
            box = (1 - _giou(theta[there], wanted) + _distance(theta[there], wanted)).mean()
            if stn.kind != "crop":
                box = box + _turned(theta[there], wanted)
            belief = F.cross_entropy(beliefs[there], cells_on(wanted, beliefs.shape[1]))
        if known.any():
            seen = F.binary_cross_entropy_with_logits(presence[known], pictures.face[known].float())
    parts = {"box": box.detach(), "belief": belief.detach(), "presence": seen.detach()}
    return box + BELIEF * belief + seen, parts


def cells_on(theta: Tensor, cells: int) -> Tensor:
    """What share of belief each cell deserves, [n, cells]: a bell over the box, at least as wide as a cell."""
    side = math.isqrt(cells)
    steps = (2 * torch.arange(side, device=theta.device) + 1) / side - 1
    width = 0.6 * theta[:, :, :2].norm(dim=2, keepdim=True).clamp(min=0.5 / side)
    across, down = (-((steps - theta[:, :, 2:]) / width).square() / 2).unbind(1)
    return (down[:, :, None] + across[:, None, :]).flatten(1).softmax(1)


@torch.inference_mode()
def measure(stn: SpatialTransformer, pictures: Pictures, device: torch.device, batch: int = 128) -> dict[str, float]:
    """iou: mean over frames with a face. iou_80: share of them with at least 0.80. presence_auroc: NaN where all frames
    have a face, or none. score: what training maximises."""
    said = [stn.locate(part.to(device)) for part in pictures.pixels.split(batch)]
    theta, presence = (torch.cat([pair[k] for pair in said]).float().cpu() for k in (0, 1))
    iou = box_iou(theta[pictures.face], pictures.theta[pictures.face]).numpy()
    auroc = area_under_roc(presence.numpy(), pictures.face.numpy())
    mean = float(iou.mean()) if len(iou) else 0.0
    return {
        "iou": mean,
        "iou_80": float((iou >= 0.8).mean()) if len(iou) else 0.0,
        "presence_auroc": auroc,
        "score": mean + (0.0 if np.isnan(auroc) else 0.5 * auroc),
    }


def area_under_roc(score: NDArray[np.floating], positive: NDArray[np.bool_]) -> float:
    """The chance that a positive scores above a negative, ties counting half (Mann and Whitney, 1947)."""
    high, low = np.sort(score[positive]), np.sort(score[~positive])
    if not len(high) or not len(low):
        return float("nan")
    below, up_to = np.searchsorted(low, high, "left"), np.searchsorted(low, high, "right")
    return float((below + up_to).sum() / 2 / len(high) / len(low))


def _cells_of(theta: Tensor, cells: int) -> Tensor:
    """Which cells of a square map lie at the middle of each box, as shares [n, cells], row by row: a bell of a third of
    the box's half size, at least of one cell."""
    side = round(cells**0.5)
    steps = (2 * torch.arange(side, device=theta.device, dtype=theta.dtype) + 1) / side - 1
    width = (theta[:, :, :2].abs().sum(2) / 3).clamp(min=1 / side)
    far = (steps[None, None] - theta[:, :, 2, None]) / width[:, :, None]
    bell = torch.exp(-far.square() / 2)
    shares = (bell[:, 1, :, None] * bell[:, 0, None, :]).flatten(1)
    return shares / shares.sum(1, keepdim=True).clamp(min=1e-9)


def _giou(a: Tensor, b: Tensor) -> Tensor:
    box_a, box_b = corners_from_theta(a, 1.0, 1.0), corners_from_theta(b, 1.0, 1.0)
    hull = (torch.maximum(box_a[:, 2:], box_b[:, 2:]) - torch.minimum(box_a[:, :2], box_b[:, :2])).prod(1)
    iou = box_iou(a, b)
    areas = sum((box[:, 2:] - box[:, :2]).prod(1) for box in (box_a, box_b))
    union = areas / (1 + iou)
    return iou - (hull - union) / hull.clamp(min=1e-9)


def _distance(a: Tensor, b: Tensor) -> Tensor:
    """Of centres, in half box sizes, and of log sizes: mean of the four, smooth near zero."""
    size_a, size_b = (x[:, :, :2].norm(dim=2).clamp(min=1e-3) for x in (a, b))
    centre = (a[:, :, 2] - b[:, :, 2]) / size_b
    size = (size_a / size_b).log()
    far = torch.cat((centre, size), 1)
    return F.smooth_l1_loss(far, torch.zeros_like(far), beta=0.1, reduction="none").mean(1)


def _turned(a: Tensor, b: Tensor) -> Tensor:
    """How far two boxes are turned and sheared against each other, in box sizes."""
    size = b[:, :, :2].norm(dim=2, keepdim=True).clamp(min=1e-3)
    return F.smooth_l1_loss(a[:, :, :2] / size, b[:, :, :2] / size, beta=0.1)


def _within(theta: Tensor, corners: Tensor) -> Tensor:
    """The thetas shrunk until these corners (shares of the picture) are their upright boxes, turned as they were."""
    upright = theta_from_corners(corners, 1.0, 1.0)
    size = upright[:, :, :2].sum(2, keepdim=True) / theta[:, :, :2].norm(dim=2, keepdim=True).clamp(min=1e-6)
    return torch.cat((theta[:, :, :2] * size, upright[:, :, 2:]), 2)
