"""What teaches the STN: pictures with the box of a face or none, moved and recoloured at random, and how well it looks.

A picture is all that a subject's STN may see: the whole frame, or its half. Boxes are thetas in it (models/stn.py).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ...models.stn import SpatialTransformer, box_iou, corners_from_theta, theta_from_corners
from .augment import Augmentation, blur, colour, erase, noise

HOW = Augmentation(brightness=0.25, contrast=0.4, channels=0.4, grey=0.2, blur=0.3, noise=0.3, erase=0.4)
ZOOM_IN, ZOOM_OUT = 0.45, 1.9
"""The least and the largest part of the picture, per side, that a training picture shows."""
ELSEWHERE = 0.1
"""Share of training pictures that show a small part of the picture by chance, mostly without the face."""
SEEN, HIDDEN = 0.4, 0.1
"""A face of which this share is left in the picture counts as there; less than HIDDEN, as not there."""


@dataclass(frozen=True)
class Pictures:
    """pixels: uint8 [n, 3, s, s]. theta: float32 [n, 2, 3], anything where there is no face. face: bool [n]."""

    pixels: Tensor
    theta: Tensor
    face: Tensor

    def __len__(self) -> int:
        return len(self.face)


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

    zoom = torch.exp(uniform(np.log(ZOOM_IN), np.log(ZOOM_OUT), 1) + uniform(-0.15, 0.15, 2))
    centre = pictures.theta[:, :, 2].cpu()
    aim = torch.where(pictures.face.cpu()[:, None], centre, torch.zeros_like(centre))
    shift = aim - zoom * uniform(-0.75, 0.75, 2)  # where the face goes in the new picture
    elsewhere = uniform(0, 1, 1) < ELSEWHERE
    zoom = torch.where(elsewhere, uniform(0.2, 0.5, 2), zoom)
    shift = torch.where(elsewhere, uniform(-0.8, 0.8, 2), shift)
    mirror = torch.cat((uniform(0, 1, 1).sub(0.5).sign(), torch.ones(n, 1)), 1)
    zoom, shift, mirror = (value.to(device) for value in (zoom, shift, mirror))
    grid = F.affine_grid(
        torch.cat((torch.diag_embed(zoom * mirror), shift[:, :, None]), 2), [n, 3, view, view], align_corners=False
    )
    pixels = F.grid_sample(pictures.pixels.float(), grid, padding_mode="border", align_corners=False)
    theta = pictures.theta.clone()
    theta[:, :, :2] /= zoom[:, :, None]
    theta[:, :, 2] = (theta[:, :, 2] - shift) / (zoom * mirror)
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
    return Pictures(pixels.clamp(0, 255), theta_from_corners(inside, 1.0, 1.0), face)


def stn_loss(stn: SpatialTransformer, pictures: Pictures) -> tuple[Tensor, dict[str, Tensor]]:
    """Box loss (1 - GIoU, Rezatofighi et al. 2019, and distances in box sizes) where a face is, and presence loss.

    `face` is 1 where a face is there, 0 where not, -1 where only a piece of one is: that teaches nothing.
    """
    theta, presence = stn.locate(pictures.pixels)
    with torch.autocast(theta.device.type, enabled=False):
        there, known = pictures.face == 1, pictures.face >= 0
        box = torch.zeros((), device=theta.device)
        if there.any():
            box = (
                1 - _giou(theta[there], pictures.theta[there]) + _distance(theta[there], pictures.theta[there])
            ).mean()
        seen = F.binary_cross_entropy_with_logits(presence[known], pictures.face[known].float())
    return box + seen, {"box": box.detach(), "presence": seen.detach()}


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


def _giou(a: Tensor, b: Tensor) -> Tensor:
    box_a, box_b = corners_from_theta(a, 1.0, 1.0), corners_from_theta(b, 1.0, 1.0)
    hull = (torch.maximum(box_a[:, 2:], box_b[:, 2:]) - torch.minimum(box_a[:, :2], box_b[:, :2])).prod(1)
    iou = box_iou(a, b)
    areas = sum((box[:, 2:] - box[:, :2]).prod(1) for box in (box_a, box_b))
    union = areas / (1 + iou)
    return iou - (hull - union) / hull.clamp(min=1e-9)


def _distance(a: Tensor, b: Tensor) -> Tensor:
    """Of centres, in half box sizes, and of log sizes: mean of the four, smooth near zero."""
    size_a, size_b = (x[:, :, :2].abs().sum(2).clamp(min=1e-3) for x in (a, b))
    centre = (a[:, :, 2] - b[:, :, 2]) / size_b
    size = (size_a / size_b).log()
    far = torch.cat((centre, size), 1)
    return F.smooth_l1_loss(far, torch.zeros_like(far), beta=0.1, reduction="none").mean(1)
