"""Tracks of raw frames with labels and boxes, for end-to-end training and evaluation."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...configs.schema import Config
from ..errors import AffectError, MissingStageError, ShardError
from ..ingest.catalog import find_catalog
from ..records import Problem, Subject, Work
from ..storage.audit_file import accepted_subjects
from ..storage.fingerprint import fingerprint
from ..storage.shard import FRAMES, FrameShard, Shard
from .crops import annotation_digest, configured_boxes, crop_source_digest, fresh_frames, labels_of, read_crops

if TYPE_CHECKING:
    from torch import Tensor

    from ..learning.frame_tracks import FrameTrack

REMEDY = "Run `affect extract-frames` with the same --data and --work."


def subjects_with_frames(config: Config, data: Path, work: Work) -> dict[str, Subject]:
    """The accepted subjects with extracted frames, by name.

    Raises MissingStageError if there are none, or if the frames of one are out of date.
    """
    catalog = find_catalog(data)
    found = {
        subject.name: subject for subject in accepted_subjects(work, catalog) if work.frames(subject.video).is_file()
    }
    for name, subject in found.items():
        if fresh_frames(config, catalog.video(subject.video), work) is None:
            raise MissingStageError(f"the frames of {name} are out of date: the video or the settings changed", REMEDY)
    if not found:
        raise MissingStageError(f"{work.root / 'frames'} contains no frames of accepted subjects", REMEDY)
    return found


def frames_digest(config: Config, subject: Subject, work: Work) -> str:
    """The digest of everything that a subject's track is made from. Raises ShardError, InputError."""
    with Shard(work.frames(subject.video), FRAMES) as shard:
        return fingerprint(
            frames=shard.fingerprint,
            annotation=annotation_digest(subject),
            region=subject.region,
            localiser=config.stn.localiser,
            places=crop_source_digest(config, subject),
            boxes=crop_source_digest(_with_box_localiser(config), subject),
        )


def frame_tracks(config: Config, subjects: Sequence[Subject], work: Work) -> tuple[list["FrameTrack"], list[Problem]]:
    """The tracks of the subjects, and a problem for each subject without the files that the config needs.

    Raises ShardError.
    """
    tracks: list[FrameTrack] = []
    problems: list[Problem] = []
    for subject in subjects:
        try:
            tracks.append(_track(config, subject, work))
        except ShardError:
            raise  # skipping the subject would silently train on less data
        except AffectError as error:
            problems.append(Problem("refused", subject.name, error.problem, error.remedy))
    return tracks, problems


def _track(config: Config, subject: Subject, work: Work) -> "FrameTrack":
    from ..learning.frame_tracks import FrameTrack

    path = work.frames(subject.video)
    with FrameShard(path) as shard:
        labels = labels_of(subject, shard)
        time = shard.read("pts")
        size = int(shard.attributes["width"]), int(shard.attributes["height"])
    known = configured_boxes(config, subject, labels.index, *size)
    boxes = configured_boxes(_with_box_localiser(config), subject, labels.index, *size) if subject.boxes else None
    return FrameTrack(
        subject.name,
        _frame_reader(path) if known is None or known.crops is None else _crop_reader(known.crops, config.stn.crop),
        subject.region,
        labels.index,
        time,
        labels.target,
        labels.valid,
        theta=known.theta if known else None,
        boxes=boxes.theta if boxes else None,
        boxed=boxes.presence > 0 if boxes else None,
    )


def _with_box_localiser(config: Config) -> Config:
    return config.model_copy(update={"stn": config.stn.model_copy(update={"localiser": "box"})})


def _frame_reader(path: Path) -> Callable[[NDArray[np.int64]], "Tensor"]:
    def read(rows: NDArray[np.int64]) -> "Tensor":
        with FrameShard(path) as shard:  # opened for each read, to limit the number of open files
            return shard.frames(rows)

    return read


def _crop_reader(files: Sequence[Path], size: int) -> Callable[[NDArray[np.int64]], "Tensor"]:
    return lambda rows: read_crops([files[row] for row in rows.tolist()], size)
