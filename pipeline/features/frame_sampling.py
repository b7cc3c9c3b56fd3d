"""Samples training frames: a fixed total, spread evenly over the subjects and over the time of each subject."""

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
from .crops import fresh_frames, labels_of


@dataclass(frozen=True)
class FrameSample:
    """The frames sampled from one subject. rows: int64 [k], rows of the shard. target: float32 [k, 2], their labels."""

    subject: Subject
    shard: Path
    rows: NDArray[np.int64]
    target: NDArray[np.float32]


def sample_frames(
    config: Config, catalog: Catalog, subjects: Sequence[Subject], work: Work, split: Split, total: int
) -> tuple[list[FrameSample], list[Problem]]:
    """Samples about `total` annotated frames of a split, evenly over subjects and time.

    For training, a subject with boxes gives only frames that have a box. A subject that cannot be read becomes a
    Problem. Raises MissingStageError, InputError, ShardError.
    """
    labelled: list[FrameSample] = []
    problems: list[Problem] = []
    chosen = [subject for subject in subjects if subject.split == split]
    if chosen and not any(work.frames(subject.video).is_file() for subject in chosen):
        raise MissingStageError(f"{work.root / 'frames'}: contains no {split} video", "Run `affect extract-frames`.")
    for subject in chosen:
        try:
            path = fresh_frames(config, catalog.video(subject.video), work)
            if path is None:
                raise MissingStageError("its frames are missing or out of date", "Run `affect extract-frames`.")
            with FrameShard(path) as shard:
                labels = labels_of(subject, shard)
                boxes = read_boxes(subject.boxes).frame if subject.boxes else labels.index
        except ShardError:
            raise  # skipping the subject would silently train on less data
        except AffectError as error:
            problems.append(Problem("refused", subject.name, error.problem, error.remedy))
            continue
        rows = np.flatnonzero(labels.valid & (np.isin(labels.index, boxes) | (split != "train")))
        labelled.append(FrameSample(subject, path, rows, labels.target[rows]))
    shares = allocate_evenly([len(frames.rows) for frames in labelled], total)
    samples = []
    for frames, share in zip(labelled, shares, strict=True):
        if share:
            chosen = np.linspace(0, len(frames.rows) - 1, share).round().astype(np.int64)
            samples.append(FrameSample(frames.subject, frames.shard, frames.rows[chosen], frames.target[chosen]))
    if sum(len(sample.rows) for sample in samples) < 2:
        raise InputError(
            f"the {split} split has fewer than 2 annotated frames",
            "`affect audit` lists the reasons. Or set adapt.epochs to 0.",
        )
    return samples, problems


def allocate_evenly(available: Sequence[int], total: int) -> list[int]:
    """How many items to take from each source, as evenly as possible. The sum is `total`, or all that are available."""
    shares = [0] * len(available)
    remaining = total
    order = sorted(range(len(available)), key=lambda k: available[k])
    for done, k in enumerate(order):
        shares[k] = min(available[k], remaining // (len(order) - done))
        remaining -= shares[k]
    return shares
