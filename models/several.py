"""Several faces in one picture: the STN's first glance names more places, its second one judges each."""

import math

import torch
from torch import Tensor

from .pyramid import Pyramid
from .stn import CLOSER, SpatialTransformer
from .theta import around, box_iou, compose

APART = 2
"""Cells of the first glance that belong to one face, to each side of the strongest."""
SAME = 0.3
"""IoU from which two boxes show one face."""


def find_several(stn: SpatialTransformer, frames: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """(theta [n, most, 2, 3], presence [n, most] in [0, 1]) of the likeliest faces, the likeliest first.

    frames: as SpatialTransformer.forward has them. Each place is looked at from near as the STN looks at its two. A box
    that overlaps a likelier one is the same face, and gets presence 0.
    """
    n = len(frames)
    pyramid = Pyramid(frames)
    whole = torch.eye(2, 3, device=frames.device).expand(n, 2, 3)
    seen = stn.localiser(pyramid.sample(whole, stn.view))
    with torch.autocast(frames.device.type, enabled=False):
        left, side = seen.beliefs.clone(), math.isqrt(seen.beliefs.shape[1])
        cells = torch.arange(side * side, device=frames.device)
        found = []
        for _ in range(most):
            best = left.argmax(1, keepdim=True)
            steps = torch.maximum((cells % side - best % side).abs(), (cells // side - best // side).abs())
            near = seen.beliefs.masked_fill(steps > 1, -math.inf)
            found.append(around(stn.box_of(stn.localiser.tell(seen, near)[0]), CLOSER, even=stn.kind != "crop"))
            left = left.masked_fill(steps <= APART, -1e9)
        closer = torch.cat(found)
    rows = torch.arange(n, device=frames.device).repeat(most)
    theta, logit, _ = stn.study(pyramid.sample(closer, stn.view, rows))
    with torch.autocast(frames.device.type, enabled=False):
        theta = compose(closer, theta.float()).view(most, n, 2, 3).transpose(0, 1)
        presence = logit.float().sigmoid().view(most, n).T
        order = presence.argsort(1, descending=True)
        presence, theta = presence.gather(1, order), theta[torch.arange(n, device=theta.device)[:, None], order]
        for second in range(1, most):
            for first in range(second):
                same = (box_iou(theta[:, first], theta[:, second]) > SAME) & (presence[:, first] > 0)
                presence[:, second] = presence[:, second].masked_fill(same, 0.0)
    return theta, presence
