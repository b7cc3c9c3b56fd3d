"""What teaches the STN: pictures with the box of a face or none, moved and recoloured at random, and how well it looks.

A picture is all that a subject's STN may see: the whole frame, or its half. Boxes are thetas in it (models/stn.py).
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ...models.stn import SpatialTransformer
from ...models.theta import box_iou, corners_from_theta
from .ahead import beside_network
from .montage import Album, Pictures, change

LOADERS = 2
"""Threads that make the batches."""
BELIEF = 0.2
"""Weight of the loss that tells the STN's cells which of them lie on the face: with it a tenth of the steps suffice."""


def join(parts: Sequence[Pictures]) -> Pictures:
    """All of them in one; none at all where there are no parts."""
    if not parts:
        return Pictures(
            torch.zeros(0, 3, 1, 1, dtype=torch.uint8), torch.zeros(0, 2, 3), torch.zeros(0, dtype=torch.bool)
        )
    return Pictures(*(torch.cat([getattr(part, name) for part in parts]) for name in ("pixels", "theta", "face")))


def draw_batches(pictures: Album, view: int, batch: int, seed: int, device: torch.device) -> Iterator[Pictures]:
    """The pictures once, in random order and changed at random, at view x view (float 0..255), some batches ahead."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(pictures), generator=generator)
    rows = order[: len(order) // batch * batch].split(batch)
    seeds = torch.randint(2**60, (len(rows),), generator=generator).tolist()

    def make(given: tuple[Tensor, int]) -> Pictures:
        return change(pictures, given[0], view, torch.Generator().manual_seed(given[1]), device)

    return beside_network(zip(rows, seeds, strict=True), make, loaders=LOADERS)


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


@torch.no_grad()
def balance(stn: SpatialTransformer, pictures: Pictures, device: torch.device, batch: int = 128) -> float:
    """Shifts the presence logit so that 0 divides faces from other things as well as can be (the largest sum of hits
    and rejections, Youden 1950; the middle where many are as good). Returns the shift, 0 where all show a face or none.
    """
    logits = torch.cat([stn.locate(part.to(device))[1] for part in pictures.pixels.split(batch)]).float().cpu()
    if pictures.face.all() or not pictures.face.any():
        return 0.0
    order = logits.argsort()
    face = pictures.face[order].float()
    score = (1 - face).cumsum(0) / (1 - face).sum() - face.cumsum(0) / face.sum()
    best = (score[:-1] >= score[:-1].max() - 1e-6).nonzero()[:, 0]
    here = best[len(best) // 2]
    shift = -(logits[order[here]] + logits[order[here + 1]]).item() / 2
    stn.localiser.presence.bias.add_(shift)
    return shift


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
    size_a, size_b = (x[:, :, :2].norm(dim=2).clamp(min=1e-3) for x in (a, b))
    centre = (a[:, :, 2] - b[:, :, 2]) / size_b
    size = (size_a / size_b).log()
    far = torch.cat((centre, size), 1)
    return F.smooth_l1_loss(far, torch.zeros_like(far), beta=0.1, reduction="none").mean(1)


def _turned(a: Tensor, b: Tensor) -> Tensor:
    """How far two boxes are turned and sheared against each other, in box sizes."""
    size = b[:, :, :2].norm(dim=2, keepdim=True).clamp(min=1e-3)
    return F.smooth_l1_loss(a[:, :, :2] / size, b[:, :, :2] / size, beta=0.1)
