"""theta: face boxes as affine maps, and the crop margin.

Coordinates are normalised: x and y are in [-1, 1] over the picture, from edge to edge (align_corners=False). theta
[n, 2, 3] maps the square with corners at +-1 to the face box. An upright box is [[sx, 0, tx], [0, sy, ty]].
"""

import torch
from torch import Tensor


def compose(outer: Tensor, inner: Tensor) -> Tensor:
    """The theta [n, 2, 3] that applies `inner`, then `outer`."""
    linear = outer[:, :, :2] @ inner[:, :, :2]
    shift = outer[:, :, :2] @ inner[:, :, 2:] + outer[:, :, 2:]
    return torch.cat((linear, shift), 2)


def theta_from_corners(corners: Tensor, width: float | Tensor, height: float | Tensor) -> Tensor:
    """Boxes [n, 4], x0 y0 x1 y1 in pixels of a width x height picture (half-open), to theta float32 [n, 2, 3]."""
    x0, y0, x1, y1 = corners.float().unbind(1)
    zero = torch.zeros_like(x0)
    rows = ((x1 - x0) / width, zero, (x0 + x1) / width - 1, zero, (y1 - y0) / height, (y0 + y1) / height - 1)
    return torch.stack(rows, 1).view(-1, 2, 3)


def around(theta: Tensor, times: float, *, even: bool = False) -> Tensor:
    """The upright part [n, 2, 3] of the picture around each box, with sides `times` as long. A part that would leave
    the picture is moved inwards; a larger part is the whole picture. even: both sides get the length of the longer
    side."""
    low, high = _extent(theta).chunk(2, 1)
    half = (high - low) / 2 * times
    half = (half.amax(1, keepdim=True).expand(-1, 2) if even else half).clamp(max=1.0)
    centre = torch.maximum(torch.minimum((low + high) / 2, 1 - half), half - 1)
    return torch.cat((torch.diag_embed(half), centre[:, :, None]), 2)


def crop_scale(margin: float) -> float:
    """Side of a crop, in sides of its face box. margin: context on each side of the box, as a fraction of half its
    side."""
    return 1 + margin


def add_margin(theta: Tensor, margin: float) -> Tensor:
    """The crops [n, 2, 3] of these face boxes: larger by the margin, with the same centre."""
    scale = crop_scale(margin)
    return theta * theta.new_tensor([scale, scale, 1.0])


def remove_margin(theta: Tensor, margin: float) -> Tensor:
    """The face boxes [n, 2, 3] of these crops: the inverse of add_margin."""
    scale = crop_scale(margin)
    return theta / theta.new_tensor([scale, scale, 1.0])


def corners_from_theta(theta: Tensor, width: float | Tensor, height: float | Tensor) -> Tensor:
    """The upright box [n, 4], x0 y0 x1 y1 in pixels, around the ellipse inscribed in each box. So the size of a face
    does not depend on its roll. For an upright theta it is the box itself. It may leave the picture."""
    left, top, right, bottom = _extent(theta).unbind(1)
    return torch.stack(((left + 1) * width, (top + 1) * height, (right + 1) * width, (bottom + 1) * height), 1) / 2


def box_iou(theta_a: Tensor, theta_b: Tensor) -> Tensor:
    """Intersection over union [n] of the upright boxes of two thetas (corners_from_theta), pair by pair."""
    a, b = _extent(theta_a), _extent(theta_b)
    overlap = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0).prod(1)
    union = (a[:, 2:] - a[:, :2]).prod(1) + (b[:, 2:] - b[:, :2]).prod(1) - overlap
    return overlap / union.clamp(min=1e-9)


def _extent(theta: Tensor) -> Tensor:
    """The upright box [n, 4] of corners_from_theta, in theta's coordinates."""
    reach, centre = theta[:, :, :2].square().sum(2).clamp(min=1e-12).sqrt(), theta[:, :, 2]
    return torch.cat((centre - reach, centre + reach), 1)
