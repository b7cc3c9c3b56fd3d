"""Drawn places without anybody, for the STN of a data set that shows a face in every frame: what no face looks like."""

import cv2
import numpy as np
import torch

from ..ingest.synthetic.backgrounds import draw_background
from .montage import Pictures

SCARCE, SHARE = 0.02, 0.06
"""Where fewer pictures than SCARCE show no face, SHARE of as many are added."""
LEAST, MOST = 32, 400


def with_places(pictures: Pictures, seed: int) -> Pictures:
    """The pictures, and as many drawn places as they lack. The same seed draws the same ones."""
    n = len(pictures)
    if not n or (~pictures.face).float().mean() >= SCARCE:
        return pictures
    side = pictures.pixels.shape[-1]
    rng = np.random.default_rng((seed, 0x91ACE))
    drawn = [_draw(rng, side) for _ in range(max(LEAST, min(MOST, round(SHARE * n))))]
    pixels = torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2).contiguous()
    theta = torch.eye(2, 3).expand(len(drawn), 2, 3).to(pictures.theta.dtype)
    return Pictures(
        torch.cat((pictures.pixels, pixels)), torch.cat((pictures.theta, theta)),
        torch.cat((pictures.face, torch.zeros(len(drawn), dtype=torch.bool))),
    )  # fmt: skip


def _draw(rng: np.random.Generator, side: int) -> np.ndarray:
    return np.asarray(cv2.resize(draw_background(rng, 480, 270), (side, side), interpolation=cv2.INTER_AREA), np.uint8)
