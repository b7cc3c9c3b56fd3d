"""SpatialTransformer (STN): finds the face in each frame, says whether there is one, and makes the crop for the
backbone.

Boxes are thetas (theta.py). The crop is the box enlarged by `margin`.
"""

import math
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from .localiser import MIN_HALF_SIDE, Cells, Localiser, keep_far_from_best, keep_near_best
from .pyramid import Pyramid
from .theta import add_margin, around, compose, remove_margin, theta_from_corners

Kind = Literal["crop", "similarity", "affine"]

SECOND_PASS = 1.8
"""Side of the part that the second pass sees, in sides of the box of the first pass."""
THIRD_PASS = 1.6
"""Side of the part that the third pass sees, in sides of the box of the second pass."""
FEW_CANDIDATES, CANDIDATES = 2, 4
"""Candidate boxes of the first pass: if the weights file does not say how many, and for STNs that are trained now."""
SURE = 4.0
"""Presence logit of one of the first two candidates above which the others are not looked at."""


class StnOutput(NamedTuple):
    """crop: float [n, 3, c, c] in 0..255. theta: float [n, 2, 3], the box. presence: [n], logit of a face in it."""

    crop: Tensor
    theta: Tensor
    presence: Tensor


class SpatialTransformer(nn.Module):
    """Finds the face in a small view of each frame and samples the crop from the full frame.

    The same network runs in three passes. The first sees the whole picture and gives candidate boxes. The second sees
    the part around each candidate and keeps the one with the highest presence. It looks at the third and further
    candidates only where the first two are not surely a face. The third pass sees the part around that box, mirrored.
    The box and the presence are the mean of the second and third pass. So small faces are located as precisely as large
    ones, false candidates are rejected from close up, and errors to one side cancel out.

    kind: the degrees of freedom of theta: `crop` (scale in x and y, shift), `similarity` (also roll, up to 45 degrees),
    `affine` (also shear). view: side of the small view, a multiple of 16. crop: side of the crop. margin: context
    around the box, as a fraction of half its side. candidates: at least 2.

    Without training, the box is the whole picture. With any weights, the centre of the box is in the picture and its
    half side is between MIN_HALF_SIDE and 1, so training cannot move it out of the picture.
    """

    def __init__(self, kind: Kind, view: int, crop: int, margin: float, candidates: int = FEW_CANDIDATES) -> None:
        super().__init__()
        self.kind: Kind = kind
        self.view, self.crop, self.margin, self.candidates = view, crop, margin, candidates
        self.localiser = Localiser({"crop": 4, "similarity": 5, "affine": 6}[kind])

    def metadata(self) -> dict[str, Any]:
        """The arguments that build this module again, as JSON."""
        return {
            "kind": self.kind, "view": self.view, "crop": self.crop, "margin": self.margin,
            "candidates": self.candidates,
        }  # fmt: skip

    def forward(self, frames: Tensor, region: Tensor | None = None) -> StnOutput:
        """frames: uint8 or float [n, 3, H, W], RGB in 0..255. region: [n, 4] x0 y0 x1 y1 as fractions of the picture,
        the part that contains the subject; None: the whole picture."""
        return self.find_and_crop(Pyramid(frames), region)

    def find_and_crop(self, pyramid: Pyramid, region: Tensor | None = None) -> StnOutput:
        """`forward` for the frames of a pyramid."""
        theta, presence = self._locate(pyramid, region)
        return StnOutput(self.sample(pyramid, theta), theta, presence)

    def locate(self, frames: Tensor | Pyramid, region: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(theta [n, 2, 3] in coordinates of the whole picture, presence logits [n])."""
        return self._locate(_pyramid(frames), region)

    def sample(self, frames: Tensor | Pyramid, theta: Tensor) -> Tensor:
        """The crops of these boxes: float [n, 3, crop, crop] in 0..255. Antialiased, differentiable in theta. Pass a
        Pyramid to sample the same frames more than once."""
        return _pyramid(frames).sample(add_margin(theta, self.margin), self.crop)

    def whole(self, n: int) -> Tensor:
        """theta [n, 2, 3] whose crop, with the margin, is the whole picture: for frames that already are crops."""
        return remove_margin(_whole_pictures(n, next(self.parameters()).device), self.margin)

    def locate_in_view(self, view: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One pass over views, float [n, 3, view, view], for training: theta in the view, presence logits [n], and for
        each cell a logit that the face is there, [n, cells], row by row."""
        cells = self.localiser(view)
        with torch.autocast(view.device.type, enabled=False):
            numbers, presence = self.localiser.decode(cells, keep_near_best(cells.beliefs))
            return self.theta_from_numbers(numbers), presence, cells.beliefs

    @torch.inference_mode()
    def propose(self, frames: Pyramid) -> Tensor:
        """The best two candidates of the first pass over whole pictures, theta [n, 2, 2, 3], for training."""
        cells = self.localiser(frames.sample(_whole_pictures(len(frames), frames.frames.device), self.view))
        return self._candidates(cells, 2).transpose(0, 1)

    @torch.no_grad()
    def reset_to_whole_picture(self) -> None:
        """Makes every box the whole picture, with a face in every frame. For data without boxes."""
        self.localiser.reset()
        self.localiser.presence.bias.fill_(20.0)

    def _locate(self, pyramid: Pyramid, region: Tensor | None) -> tuple[Tensor, Tensor]:
        n, device = pyramid.frames.shape[0], pyramid.frames.device
        part = _whole_pictures(n, device) if region is None else _region_theta(region.to(device, torch.float32))
        within = None if region is None else part
        cells = self.localiser(pyramid.sample(part, self.view, within=within))
        second, presence = self._second_pass(pyramid, cells, part, within)
        with torch.autocast(device.type, enabled=False):
            mirrored = _mirror(around(second.detach(), THIRD_PASS, even=self.kind != "crop"))
        theta, mirrored_presence, _ = self.locate_in_view(
            pyramid.sample(compose(part, mirrored), self.view, within=within)
        )
        with torch.autocast(device.type, enabled=False):
            third = _mirror(compose(mirrored, theta))
            return compose(part, _enforce_min_size((second + third) / 2)), (presence + mirrored_presence) / 2

    def _second_pass(
        self, pyramid: Pyramid, cells: Cells, part: Tensor, within: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The best candidate, seen from close up: theta [n, 2, 3] in coordinates of the part, presence logits [n]."""
        n, device = part.shape[0], part.device
        with torch.autocast(device.type, enabled=False):
            near = self._candidates(cells, self.candidates).detach()
            near = around(near.flatten(0, 1), SECOND_PASS, even=self.kind != "crop")
        rows = torch.arange(n, device=device).repeat(self.candidates)

        def look(some: Tensor) -> tuple[Tensor, Tensor]:
            frame = rows[some]
            parts = None if within is None else within[frame]
            view = pyramid.sample(compose(part[frame], near[some]), self.view, frame, parts)
            theta, presence, _ = self.locate_in_view(view)
            return theta, presence

        every = torch.arange(near.shape[0], device=device)
        theta, presence = look(every[: 2 * n])
        if self.candidates > 2:
            unsure = (presence.view(2, n).amax(0) < SURE).repeat(self.candidates - 2)
            some = every[2 * n :][unsure] if pyramid.data_dependent else every[2 * n :]
            more, rest = torch.zeros_like(near[2 * n :]), torch.full_like(near[2 * n :, 0, 0], -math.inf)
            if not pyramid.data_dependent or some.shape[0]:
                its_theta, its_presence = look(some)
                more = more.index_copy(0, some - 2 * n, its_theta)
                rest = rest.index_copy(0, some - 2 * n, its_presence).masked_fill(~unsure, -math.inf)
            theta, presence = torch.cat((theta, more)), torch.cat((presence, rest))
        with torch.autocast(device.type, enabled=False):
            chosen = presence.view(self.candidates, n).argmax(0) * n + every[:n]
            return _enforce_min_size(compose(near[chosen], theta[chosen])), presence[chosen]

    def _candidates(self, cells: Cells, count: int) -> Tensor:
        """theta [count, n, 2, 3]: the best candidate of each view, then the best one elsewhere, and so on."""
        beliefs, found = cells.beliefs, []
        for _ in range(count):
            found.append(self.theta_from_numbers(self.localiser.decode(cells, keep_near_best(beliefs))[0]))
            beliefs = keep_far_from_best(beliefs)
        return torch.stack(found)

    def theta_from_numbers(self, numbers: Tensor) -> Tensor:
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


def _pyramid(frames: Tensor | Pyramid) -> Pyramid:
    return frames if isinstance(frames, Pyramid) else Pyramid(frames)


def _region_theta(region: Tensor) -> Tensor:
    return theta_from_corners(region, 1.0, 1.0)


def _whole_pictures(n: int, device: torch.device) -> Tensor:
    return torch.eye(2, 3, device=device).expand(n, 2, 3)


def _mirror(theta: Tensor) -> Tensor:
    """The same box, mirrored left to right."""
    return theta * theta.new_tensor([-1.0, 1.0, 1.0])


def _enforce_min_size(theta: Tensor) -> Tensor:
    """Half sides below MIN_HALF_SIDE become MIN_HALF_SIDE."""
    size = theta[:, :, :2].detach().norm(dim=1, keepdim=True)
    return torch.cat((theta[:, :, :2] * (size.clamp(min=MIN_HALF_SIDE) / size), theta[:, :, 2:]), 2)
