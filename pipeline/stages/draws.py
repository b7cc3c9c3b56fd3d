"""Which frames to learn from: so many in all, as many of each subject as can be, evenly over its time."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...configs.schema import Config
from ..errors import AffectError, InputError, MissingStageError, ShardError
from ..ingest.boxes import read_boxes
from ..records import Catalog, Problem, Split, Subject, Work
from ..storage.shard import FrameShard
from .looking import fresh_frames, labels_of


@dataclass(frozen=True)
class Draw:
    """The frames drawn from one subject: their places in its shard, and float32 [k, 2] what they are labelled."""

    subject: Subject
    shard: Path
    rows: NDArray[np.int64]
    target: NDArray[np.float32]


def draw_frames(
    config: Config, catalog: Catalog, subjects: Sequence[Subject], work: Work, split: Split, total: int
) -> tuple[list[Draw], list[Problem]]:
    """About `total` annotated frames of a split, as many of each subject as can be, evenly over its time; for training
    not those without a box, where the subject has boxes.

    A subject that cannot be read is left out and becomes a Problem. Raises MissingStageError, InputError, ShardError.
    """
    labelled: list[Draw] = []
    problems: list[Problem] = []
    wanted = [subject for subject in subjects if subject.split == split]
    if wanted and not any(work.frames(subject.video).is_file() for subject in wanted):
        raise MissingStageError(f"{work.root / 'frames'}: holds no {split} video", "Run `affect extract-frames`.")
    for subject in wanted:
        try:
            path = fresh_frames(config, catalog.video(subject.video), work)
            if path is None:
                raise MissingStageError("its frames are not extracted, or out of date", "Run `affect extract-frames`.")
            with FrameShard(path) as shard:
                labels = labels_of(subject, shard)
                boxes = read_boxes(subject.boxes).frame if subject.boxes else labels.index
        except ShardError:
            raise  # what is learned without it would pass for what is learned with it
        except AffectError as error:
            problems.append(Problem("refused", subject.name, error.problem, error.remedy))
            continue
        rows = np.flatnonzero(labels.valid & (np.isin(labels.index, boxes) | (split != "train")))
        labelled.append(Draw(subject, path, rows, labels.target[rows]))
    shares = share_out([len(draw.rows) for draw in labelled], total)
    draws = []
    for draw, share in zip(labelled, shares, strict=True):
        if share:
            chosen = np.linspace(0, len(draw.rows) - 1, share).round().astype(np.int64)
            draws.append(Draw(draw.subject, draw.shard, draw.rows[chosen], draw.target[chosen]))
    if sum(len(draw.rows) for draw in draws) < 2:
        raise InputError(
            f"the {split} split has no annotated frame", "`affect audit` tells why; or set adapt.epochs to 0."
        )
    return draws, problems


def share_out(available: Sequence[int], total: int) -> list[int]:
    """How many to take of each, as evenly as can be, together `total` or all there are."""
    shares = [0] * len(available)
    left = total
    order = sorted(range(len(available)), key=lambda k: available[k])
    for done, k in enumerate(order):
        shares[k] = min(available[k], left // (len(order) - done))
        left -= shares[k]
    return shares
