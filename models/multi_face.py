"""Several faces in one picture: the STN's first pass gives more candidates, and its second pass scores each."""

import math

import torch
from torch import Tensor

from .pyramid import Pyramid
from .stn import SECOND_PASS, SpatialTransformer
from .theta import around, compose, corners_from_theta
from .vision import batched_nms

SUPPRESSED_CELLS = 2
"""Cells on each side of the strongest cell of the first pass that belong to the same face."""
MAX_IOU = 0.3
"""Boxes that overlap more show the same face."""


def detect_faces(stn: SpatialTransformer, frames: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` most probable faces of each frame, by decreasing presence: theta [n, count, 2, 3], presence [n,
    count] in [0, 1].

    frames: as in SpatialTransformer.forward. The second pass of the STN scores each candidate. A box that overlaps a
    more probable box is the same face and gets presence 0.
    """
    n = len(frames)
    pyramid = Pyramid(frames)
    whole = torch.eye(2, 3, device=frames.device).expand(n, 2, 3)
    cells = stn.localiser(pyramid.sample(whole, stn.view))
    with torch.autocast(frames.device.type, enabled=False):
        remaining, side = cells.beliefs.clone(), math.isqrt(cells.beliefs.shape[1])
        number = torch.arange(side * side, device=frames.device)
        parts = []
        for _ in range(count):
            best = remaining.argmax(1, keepdim=True)
            distance = torch.maximum((number % side - best % side).abs(), (number // side - best // side).abs())
            near = cells.beliefs.masked_fill(distance > 1, -math.inf)
            box = stn.theta_from_numbers(stn.localiser.decode(cells, near)[0])
            parts.append(around(box, SECOND_PASS, even=stn.kind != "crop"))
            remaining = remaining.masked_fill(distance <= SUPPRESSED_CELLS, -1e9)
        second = torch.cat(parts)
    rows = torch.arange(n, device=frames.device).repeat(count)
    theta, logit, _ = stn.locate_in_view(pyramid.sample(second, stn.view, rows))
    with torch.autocast(frames.device.type, enabled=False):
        theta = compose(second, theta.float()).view(count, n, 2, 3).transpose(0, 1)
        presence = logit.float().sigmoid().view(count, n).T
        order = presence.argsort(1, descending=True)
        presence, theta = presence.gather(1, order), theta[torch.arange(n, device=theta.device)[:, None], order]
        boxes, scores = corners_from_theta(theta.flatten(0, 1), 1.0, 1.0), presence.flatten()
        kept = batched_nms(boxes, scores, torch.arange(n, device=theta.device).repeat_interleave(count), MAX_IOU)
        presence = torch.zeros_like(scores).index_copy(0, kept, scores[kept]).view(n, count)
    return theta, presence
