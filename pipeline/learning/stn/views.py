"""Training views of pictures with several faces: what the STN sees in each of its passes, and in a person's region."""

import math

import torch
from torch import Tensor

from ....models.pyramid import Pyramid
from ....models.stn import SECOND_PASS, THIRD_PASS, SpatialTransformer
from ....models.theta import compose, corners_from_theta
from ..augment import Augmentation, blur, colour, erase, noise, shade
from .train_data import MAX_HIDDEN, MIN_VISIBLE, BoxedImages, inverse, limit_to

AUGMENTATION = Augmentation(
    brightness=0.2,
    contrast=0.35,
    channels=0.15,
    invert_hue=0.03,
    shade=0.3,
    grey=0.15,
    blur=0.25,
    noise=0.25,
    erase=0.3,
)
VIEWS = 4
"""Views of each picture: the whole, the main face from close up, a candidate from close up, and a region."""
MIN_PIXELS = 6.0
"""A face of fewer pixels of the view in height is neither a face nor none."""
MAX_COVERED = 0.05
"""A part of a face that covers more of the view than this is not "no face"."""
CENTRE = 1.0
"""How far a face is from the centre, in half sides of the view, to count as if it were 0.61 times as large."""
SHIFT = 0.3
"""Largest distance of a face from the centre of a close-up, in half sides of the close-up."""


def draw_views(
    pixels: Tensor, faces: Tensor, view: int, generator: torch.Generator, scout: SpatialTransformer | None = None
) -> BoxedImages:
    """VIEWS augmented views of each picture, at view x view; `theta` is that of the main face.

    pixels: uint8 [n, 3, s, s]. faces: theta [n, k, 2, 3] of the faces, NaN where there are fewer. scout: an STN in eval
    mode, whose candidates are seen from close up. What it takes for a face and is none teaches most. None: faces and
    random places.
    """
    n = len(pixels)
    pyramid = Pyramid(pixels)
    places, anywhere = faces, 0.6
    if scout is not None:
        proposed = scout.propose(pyramid)
        proposed = proposed[torch.arange(n), torch.randint(2, (n,), generator=generator)][:, None]
        taken = _chance(n, 0.8, generator)[:, None, None, None]
        places, anywhere = torch.where(taken, proposed, faces[:, :1]), 0.1
    parts = torch.cat((
        _whole(n, generator), _close_ups(faces, generator), _close_ups(places, generator, anywhere),
        _regions(n, generator),
    ))  # fmt: skip
    mirror = torch.where(torch.rand(len(parts), generator=generator) < 0.5, -1.0, 1.0)
    parts = torch.cat((parts[:, :, :1] * mirror[:, None, None], parts[:, :, 1:]), 2)
    sampled = pyramid.sample(parts, view, torch.arange(n).repeat(VIEWS))
    seen, known = _seen(faces.repeat(VIEWS, 1, 1, 1), parts, view)
    face = torch.where(seen.isfinite().flatten(1).any(1), 1.0, torch.where(known, 0.0, -1.0))
    main = prominence(seen).argmax(1)
    theta = seen[torch.arange(len(seen)), main].nan_to_num(0.5)
    return BoxedImages(_change(sampled, view, generator), theta, face, seen)


def prominence(faces: Tensor) -> Tensor:
    """How large and central each face of a view is, [n, k], as the logarithm of a size; -inf where there is none.

    faces: theta [n, k, 2, 3], NaN where there are fewer.
    """
    size = faces[..., :2].norm(dim=3).log().mean(2)
    value = size - (faces[..., 2] / CENTRE).square().sum(2) / 2
    return value.nan_to_num(-math.inf)


def _seen(faces: Tensor, parts: Tensor, view: int) -> tuple[Tensor, Tensor]:
    """The faces in these parts, with NaN for those that are not seen, and whether it is known, bool [n], that no
    other face is in the part."""
    n, k = faces.shape[:2]
    theta = compose(inverse(parts).repeat_interleave(k, 0), faces.flatten(0, 1))
    sign = theta[:, :, :2].det().sign()[:, None]
    theta = torch.cat((theta[:, :, :1] * sign[:, :, None], theta[:, :, 1:]), 2)
    whole = corners_from_theta(theta, 1.0, 1.0)
    inside = whole.clamp(0, 1)
    area = (whole[:, 2:] - whole[:, :2]).prod(1).clamp(min=1e-9)
    covered = (inside[:, 2:] - inside[:, :2]).clamp(min=0).prod(1)
    visible = covered / area
    large = (inside[:, 3] - inside[:, 1]) * view >= MIN_PIXELS
    there = theta.isfinite().flatten(1).all(1)
    shown = there & (visible >= MIN_VISIBLE) & large
    unclear = there & ((visible > MAX_HIDDEN) | (covered > MAX_COVERED)) & ~shown
    theta = torch.where(shown[:, None, None], limit_to(theta, inside), math.nan)
    return theta.view(n, k, 2, 3), ~unclear.view(n, k).any(1)


def _whole(n: int, generator: torch.Generator) -> Tensor:
    """The whole picture, in a third of the cases without its edges."""
    half = torch.where(_chance(n, 0.35, generator), _uniform(n, 0.75, 1.0, generator), torch.ones(n))
    centre = (1 - half[:, None]) * _uniform((n, 2), -1, 1, generator)
    return torch.cat((torch.diag_embed(half[:, None].expand(n, 2)), centre[:, :, None]), 2)


def _regions(n: int, generator: torch.Generator) -> Tensor:
    """Parts of any size, as of one of several people."""
    half = _uniform((n, 2), math.log(0.3), 0.0, generator).exp()
    centre = (1 - half) * _uniform((n, 2), -1, 1, generator)
    return torch.cat((torch.diag_embed(half), centre[:, :, None]), 2)


def _close_ups(faces: Tensor, generator: torch.Generator, anywhere: float = 0.0) -> Tensor:
    """What the second and third pass see of a face, or of another place in a share `anywhere` of the pictures and in
    those without faces."""
    n, k = faces.shape[:2]
    size = _uniform((n, 1), math.log(0.06), math.log(0.7), generator).exp() * _uniform((n, 2), 0.75, 1.3, generator)
    place = _uniform((n, 2), -1, 1, generator)
    if k:
        there = faces.isfinite().flatten(2).all(2)
        score = torch.where(there, torch.rand(n, k, generator=generator), -1.0)
        if not anywhere:
            score = prominence(faces)
        chosen = faces[torch.arange(n), score.argmax(1)]
        taken = (there.any(1) & ~_chance(n, anywhere, generator))[:, None]
        size = torch.where(taken, chosen[:, :, :2].norm(dim=2).nan_to_num(1.0), size)
        place = torch.where(taken, chosen[:, :, 2].nan_to_num(0.0), place)
    times = torch.where(_chance(n, 0.6, generator), SECOND_PASS, THIRD_PASS)[:, None]
    times = times * (_uniform((n, 1), -0.3, 0.3, generator) + _uniform((n, 2), -0.15, 0.15, generator)).exp()
    half = (size * times).clamp(max=1.0)
    centre = place + SHIFT * half * _uniform((n, 2), -1, 1, generator)
    centre = torch.maximum(torch.minimum(centre, 1 - half), half - 1)
    return torch.cat((torch.diag_embed(half), centre[:, :, None]), 2)


def _change(pixels: Tensor, view: int, generator: torch.Generator) -> Tensor:
    pixels = colour(pixels, AUGMENTATION, generator)
    pixels = shade(pixels, AUGMENTATION.shade, generator)
    pixels = blur(pixels, AUGMENTATION.blur, AUGMENTATION.blur_sigma * view / 96, generator)
    pixels = noise(pixels, AUGMENTATION.noise, AUGMENTATION.noise_sigma, generator)
    return erase(pixels, AUGMENTATION.erase, 0.2, generator).clamp(0, 255)


def _uniform(shape: int | tuple[int, ...], low: float, high: float, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator)


def _chance(n: int, chance: float, generator: torch.Generator) -> Tensor:
    return torch.rand(n, generator=generator) < chance
