"""Training of the STN: batches, loss and measures.

A picture is the whole frame, or for one of two subjects half of it. Boxes are thetas in the picture (models/stn.py).
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ....models.stn import SpatialTransformer
from ....models.theta import box_iou, corners_from_theta
from ....models.vision import generalized_box_iou_loss
from ..prefetch import prefetch_reserving_cores
from .train_data import BoxedImages, ImagePool, draw_batch
from .views import prominence

LOADER_THREADS = 2
"""Threads that make batches."""
PREFERENCE = 4.0
"""Cells prefer a face of twice the size 2**PREFERENCE times as much."""
CELL_WEIGHT = 0.2
"""Weight of the loss of the cells' beliefs. With it, training needs a tenth of the steps."""


def concatenate(parts: Sequence[BoxedImages]) -> BoxedImages:
    """All parts in one; an empty BoxedImages if there are none."""
    if not parts:
        return BoxedImages(
            torch.zeros(0, 3, 1, 1, dtype=torch.uint8), torch.zeros(0, 2, 3), torch.zeros(0, dtype=torch.bool)
        )
    return BoxedImages(*(torch.cat([getattr(part, name) for part in parts]) for name in ("pixels", "theta", "face")))


def draw_batches(pictures: ImagePool, view: int, batch: int, seed: int, device: torch.device) -> Iterator[BoxedImages]:
    """One epoch of augmented batches in random order, at view x view (float 0..255), prefetched."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(pictures), generator=generator)
    rows = order[: len(order) // batch * batch].split(batch)
    seeds = torch.randint(2**60, (len(rows),), generator=generator).tolist()

    def make(item: tuple[Tensor, int]) -> BoxedImages:
        return draw_batch(pictures, item[0], view, torch.Generator().manual_seed(item[1]), device)

    return prefetch_reserving_cores(zip(rows, seeds, strict=True), make, loaders=LOADER_THREADS)


def stn_loss(stn: SpatialTransformer, pictures: BoxedImages) -> tuple[Tensor, dict[str, Tensor]]:
    """The sum of box loss (GIoU loss of Rezatofighi et al. 2019, and distances in box sizes), cell loss and presence
    loss.

    `face` is 1 for a face, 0 for no face, -1 for a partly visible face. Box and cell loss use 1; presence loss ignores
    -1.
    """
    theta, presence, beliefs = stn.locate_in_view(pictures.pixels)
    with torch.autocast(theta.device.type, enabled=False):
        has_face, known = pictures.face == 1, pictures.face >= 0
        box = belief = presence_loss = presence.sum() * 0.0
        if has_face.any():
            target, wanted = _targets(pictures, has_face, beliefs)
            # In pixels: the eps of torchvision's loss is too large for the area of a small box in fractions.
            corners, true = (corners_from_theta(part, stn.view, stn.view) for part in (theta[has_face], target))
            box = (generalized_box_iou_loss(corners, true) + _distance_loss(theta[has_face], target)).mean()
            if stn.kind != "crop":
                box = box + _rotation_loss(theta[has_face], target)
            belief = F.cross_entropy(beliefs[has_face], wanted)
        if known.any():
            presence_loss = F.binary_cross_entropy_with_logits(presence[known], pictures.face[known].float())
    parts = {"box": box.detach(), "belief": belief.detach(), "presence": presence_loss.detach()}
    return box + CELL_WEIGHT * belief + presence_loss, parts


def _targets(pictures: BoxedImages, has_face: Tensor, beliefs: Tensor) -> tuple[Tensor, Tensor]:
    """The box [m, 2, 3] of each picture with a face, and the target of its cells, [m, cells].

    With several faces, the cells are to prefer the main face, and the box is that of the face that they prefer now: a
    box between two faces is right for neither.
    """
    cells = beliefs.shape[1]
    if pictures.all_faces is None:
        target = pictures.theta[has_face]
        return target, cell_targets(target, cells)
    faces = pictures.all_faces[has_face]
    m, k = faces.shape[:2]
    value = prominence(faces)
    there, plain = value.isfinite(), faces.nan_to_num(0.5)
    each = cell_targets(plain.flatten(0, 1), cells).view(m, k, cells)
    share = (PREFERENCE * value).softmax(1)
    best, side = beliefs[has_face].argmax(1), math.isqrt(cells)
    place = (2 * torch.stack((best % side, best // side), 1) + 1) / side - 1
    distance = ((place[:, None] - plain[..., 2]) / plain[..., :2].norm(dim=3)).norm(dim=2)
    distance = distance.masked_fill(~there, math.inf)
    nearest = distance.argmin(1)
    main = torch.where(distance.amin(1) < 1, nearest, value.argmax(1))
    return plain[torch.arange(m, device=main.device), main], (share[:, :, None] * each).sum(1)


def cell_targets(theta: Tensor, cells: int) -> Tensor:
    """Target of the softmax over the cells, [n, cells]: a Gaussian over the box, at least as wide as a cell."""
    side = math.isqrt(cells)
    steps = (2 * torch.arange(side, device=theta.device) + 1) / side - 1
    width = 0.6 * theta[:, :, :2].norm(dim=2, keepdim=True).clamp(min=0.5 / side)
    across, down = (-((steps - theta[:, :, 2:]) / width).square() / 2).unbind(1)
    return (down[:, :, None] + across[:, None, :]).flatten(1).softmax(1)


@torch.inference_mode()
def measure(stn: SpatialTransformer, pictures: BoxedImages, device: torch.device, batch: int = 128) -> dict[str, float]:
    """iou: mean over frames with a face. iou_80: share of these with an IoU of at least 0.80. presence_auroc: NaN if
    all frames have a face or none has. score: chooses the best epoch."""
    outputs = [stn.locate(part.to(device)) for part in pictures.pixels.split(batch)]
    theta, presence = (torch.cat([pair[k] for pair in outputs]).float().cpu() for k in (0, 1))
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
def calibrate_presence(stn: SpatialTransformer, pictures: BoxedImages, device: torch.device, batch: int = 128) -> float:
    """Shifts the presence logit so that the threshold 0 gives the largest sum of true positive and true negative rate
    (Youden 1950; the middle of equally good thresholds). Returns the shift; 0 if all pictures have a face or none has.
    """
    logits = torch.cat([stn.locate(part.to(device))[1] for part in pictures.pixels.split(batch)]).float().cpu()
    if pictures.face.all() or not pictures.face.any():
        return 0.0
    order = logits.argsort()
    face = pictures.face[order].float()
    score = (1 - face).cumsum(0) / (1 - face).sum() - face.cumsum(0) / face.sum()
    best = (score[:-1] >= score[:-1].max() - 1e-6).nonzero()[:, 0]
    middle = best[len(best) // 2]
    shift = -(logits[order[middle]] + logits[order[middle + 1]]).item() / 2
    stn.localiser.presence.bias.add_(shift)
    return shift


def area_under_roc(score: NDArray[np.floating], positive: NDArray[np.bool_]) -> float:
    """The probability that a positive scores above a negative; ties count half (Mann and Whitney, 1947)."""
    high, low = np.sort(score[positive]), np.sort(score[~positive])
    if not len(high) or not len(low):
        return float("nan")
    below, up_to = np.searchsorted(low, high, "left"), np.searchsorted(low, high, "right")
    return float((below + up_to).sum() / 2 / len(high) / len(low))


def _distance_loss(a: Tensor, b: Tensor) -> Tensor:
    """Smooth L1 of the centres, in half box sizes, and of the log sizes: mean of the four."""
    size_a, size_b = (x[:, :, :2].norm(dim=2).clamp(min=1e-3) for x in (a, b))
    centre = (a[:, :, 2] - b[:, :, 2]) / size_b
    size = (size_a / size_b).log()
    distance = torch.cat((centre, size), 1)
    return F.smooth_l1_loss(distance, torch.zeros_like(distance), beta=0.1, reduction="none").mean(1)


def _rotation_loss(a: Tensor, b: Tensor) -> Tensor:
    """Smooth L1 of the linear parts of two thetas, in box sizes: for roll and shear."""
    size = b[:, :, :2].norm(dim=2, keepdim=True).clamp(min=1e-3)
    return F.smooth_l1_loss(a[:, :, :2] / size, b[:, :, :2] / size, beta=0.1)
