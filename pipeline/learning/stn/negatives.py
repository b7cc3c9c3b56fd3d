"""Synthetic pictures without a face, for training the STN on a data set that has a face in nearly every frame."""

import cv2
import numpy as np
import torch

from ...ingest.synthetic.backgrounds import draw_background
from .train_data import BoxedImages

MIN_SHARE, ADDED_SHARE = 0.02, 0.06
"""If the share of pictures without a face is below MIN_SHARE, ADDED_SHARE as many pictures are added."""
MIN_ADDED, MAX_ADDED = 32, 400
"""Limits of how many are added."""


def add_background_negatives(pictures: BoxedImages, seed: int) -> BoxedImages:
    """The pictures, and synthetic backgrounds if too few are without a face. The same seed gives the same pictures."""
    n = len(pictures)
    if not n or (~pictures.face).float().mean() >= MIN_SHARE:
        return pictures
    side = pictures.pixels.shape[-1]
    rng = np.random.default_rng((seed, 0x91ACE))
    drawn = [_draw_negative(rng, side) for _ in range(max(MIN_ADDED, min(MAX_ADDED, round(ADDED_SHARE * n))))]
    pixels = torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2).contiguous()
    theta = torch.eye(2, 3).expand(len(drawn), 2, 3).to(pictures.theta.dtype)
    return BoxedImages(
        torch.cat((pictures.pixels, pixels)), torch.cat((pictures.theta, theta)),
        torch.cat((pictures.face, torch.zeros(len(drawn), dtype=torch.bool))),
    )  # fmt: skip


def _draw_negative(rng: np.random.Generator, side: int) -> np.ndarray:
    return np.asarray(cv2.resize(draw_background(rng, 480, 270), (side, side), interpolation=cv2.INTER_AREA), np.uint8)
