"""Frames with face boxes, in memory, for training and validating the STN."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...configs.schema import Config
from ..errors import ShardError
from ..progress import Reporter
from ..records import Boxes, Problem, Subject
from ..storage.shard import FrameShard
from .frame_sampling import allocate_evenly

if TYPE_CHECKING:
    import torch

    from ..learning.stn.train_data import BoxedImages

FINER = 2.67
"""Training pictures are kept this much finer than the view, so that zooming in still shows something."""


@dataclass(frozen=True)
class Boxed:
    """A subject's boxes, and the shard of its video with so many frames."""

    subject: Subject
    shard: Path
    boxes: Boxes
    frames: int


def stored_side(config: Config) -> int:
    """Side of the pictures in memory, in pixels."""
    return min(config.frames.size, round(FINER * config.stn.view))


def gather(
    config: Config, boxed: Sequence[Boxed], total: int, device: "torch.device", reporter: Reporter
) -> tuple["BoxedImages", list[Problem]]:
    """About `total` frames, evenly over the subjects and their time, each cut to the subject's region, with its box;
    and the subjects whose frames turned out to be damaged."""
    from ..learning.stn.objective import concatenate

    side = stored_side(config)
    shares = allocate_evenly([item.frames for item in boxed], total)
    parts: list[BoxedImages] = []
    problems: list[Problem] = []
    with reporter.progress("frames with boxes", sum(shares), "frames") as bar:
        for item, share in zip(boxed, shares, strict=True):
            try:
                parts.append(_look(item, share, side, device))
            except ShardError as error:
                problems.append(Problem("damaged", item.subject.name, error.problem, error.remedy))
            bar.advance(share)
    return concatenate(parts), problems


def _look(item: Boxed, share: int, side: int, device: "torch.device") -> "BoxedImages":
    """`share` frames of one subject, evenly over time."""
    import torch

    from ...models.pyramid import resample
    from ...models.theta import theta_from_corners
    from ..learning.stn.train_data import BoxedImages

    x0, y0, x1, y1 = item.subject.region
    region = theta_from_corners(torch.tensor([item.subject.region]), 1.0, 1.0).to(device)
    rows = np.linspace(0, item.frames - 1, share).round().astype(np.int64)
    pixels = []
    with FrameShard(item.shard) as shard, torch.inference_mode():
        width, height = shard.attributes["width"], shard.attributes["height"]
        index = shard.read("index")[rows]
        for some in np.array_split(rows, max(1, share // 64)):
            cut = resample(shard.frames(some).to(device), region.expand(len(some), 2, 3), side)
            pixels.append(cut.round().clamp(0, 255).to("cpu", torch.uint8))
    place = np.searchsorted(item.boxes.frame, index).clip(0, len(item.boxes) - 1)
    corners = item.boxes.corners[place] - np.array([x0 * width, y0 * height] * 2, np.float32)
    theta = theta_from_corners(torch.from_numpy(corners), (x1 - x0) * width, (y1 - y0) * height)
    return BoxedImages(torch.cat(pixels), theta, torch.from_numpy(item.boxes.frame[place] == index))
