"""The raw frames of subjects, beside their labels and boxes: what end-to-end training and evaluation look at."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...configs.schema import Config
from ..errors import AffectError, MissingStageError, ShardError
from ..ingest.catalog import find_catalog
from ..records import Problem, Subject, Work
from ..storage.fingerprint import fingerprint
from ..storage.shard import FRAMES, FrameShard, Shard
from .audit_record import accepted_subjects
from .looking import annotation_digest, fresh_frames, known_places, labels_of, place_digest, read_crops

if TYPE_CHECKING:
    from torch import Tensor

    from ..learning.frame_tracks import FrameTrack

REMEDY = "Run: affect extract-frames --data D --work W"


def subjects_with_frames(config: Config, data: Path, work: Work) -> dict[str, Subject]:
    """The accepted subjects whose frames are extracted, by name. Raises MissingStageError where there are none, or
    where those of one are of an older video or of other settings."""
    catalog = find_catalog(data)
    found = {
        subject.name: subject for subject in accepted_subjects(work, catalog) if work.frames(subject.video).is_file()
    }
    for name, subject in found.items():
        if fresh_frames(config, catalog.video(subject.video), work) is None:
            raise MissingStageError(f"the frames of {name} are of an older video or other settings", REMEDY)
    if not found:
        raise MissingStageError(f"{work.root / 'frames'} holds no frames of accepted subjects", REMEDY)
    return found


def frames_digest(config: Config, subject: Subject, work: Work) -> str:
    """Of all that a subject's track is made from. Raises ShardError, InputError."""
    with Shard(work.frames(subject.video), FRAMES) as shard:
        return fingerprint(
            frames=shard.fingerprint,
            annotation=annotation_digest(subject),
            region=subject.region,
            localiser=config.stn.localiser,
            places=place_digest(config, subject),
            boxes=place_digest(_boxed(config), subject),
        )


def frame_tracks(config: Config, subjects: Sequence[Subject], work: Work) -> tuple[list["FrameTrack"], list[Problem]]:
    """The tracks of the subjects that have what the config asks for, and why the others have not. Raises ShardError."""
    tracks: list[FrameTrack] = []
    problems: list[Problem] = []
    for subject in subjects:
        try:
            tracks.append(_track(config, subject, work))
        except ShardError:
            raise  # what is learned without it would pass for what is learned with it
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
    places = known_places(config, subject, labels.index, *size)
    boxes = known_places(_boxed(config), subject, labels.index, *size) if subject.boxes else None
    return FrameTrack(
        subject.name,
        _pictures(path) if places is None or places.crops is None else _crops(places.crops, config.stn.crop),
        subject.region,
        labels.index,
        time,
        labels.target,
        labels.valid,
        theta=places.theta if places else None,
        boxes=boxes.theta if boxes else None,
        boxed=boxes.presence > 0 if boxes else None,
    )


def _boxed(config: Config) -> Config:
    return config.model_copy(update={"stn": config.stn.model_copy(update={"localiser": "box"})})


def _pictures(path: Path) -> Callable[[NDArray[np.int64]], "Tensor"]:
    def read(rows: NDArray[np.int64]) -> "Tensor":
        with FrameShard(path) as shard:  # opened for each piece: hundreds of open files would be too many
            return shard.frames(rows)

    return read


def _crops(files: Sequence[Path], size: int) -> Callable[[NDArray[np.int64]], "Tensor"]:
    return lambda rows: read_crops([files[row] for row in rows.tolist()], size)
