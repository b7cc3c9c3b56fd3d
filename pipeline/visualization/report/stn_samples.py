"""Samples of the STN: validation frames with its box, the true box and the crop."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import CatalogError, MissingStageError, ShardError
from ...faults import one_input
from ...ingest.boxes import read_boxes
from ...ingest.catalog import find_catalog
from ...progress import Reporter
from ...records import Boxes, Problem, Work
from ...runs.splits import Cached
from ...storage.audit_file import load_audit
from ...storage.shard import FEATURES, FrameShard, Shard

MAX_SIDE = 360
"""Longest side of a frame in pixels, and of a crop."""


@dataclass(frozen=True)
class StnSample:
    """One frame. picture: uint8 [h, w, 3] RGB, in the aspect ratio of the video. crop: uint8 [c, c, 3].

    box: [4, 2], corners in pixels of the picture. true: x0 y0 x1 y1 of the true box, or None. iou: of both boxes.
    presence: probability of a face.
    """

    subject: str
    time: float
    picture: NDArray[np.uint8]
    crop: NDArray[np.uint8]
    box: NDArray[np.float64]
    true: NDArray[np.float64] | None
    iou: float | None
    presence: float


@dataclass(frozen=True)
class Fit:
    """IoU of STN and true box, float64 [k], for the frames of a subject that have a true box."""

    subject: str
    iou: NDArray[np.float64]


def true_boxes(work: Work, names: Sequence[str]) -> dict[str, Path]:
    """The box files of these subjects; {} if the audited data folder is gone."""
    try:
        subjects = find_catalog(Path(load_audit(work)["data"])).subjects
    except (MissingStageError, CatalogError, KeyError, TypeError):
        return {}
    return {subject.name: subject.boxes for subject in subjects if subject.name in names and subject.boxes}


def measure(shards: Sequence[Cached], boxes: dict[str, Path], reporter: Reporter) -> tuple[list[Fit], list[Problem]]:
    """IoU of STN and true boxes by subject, and the problems of subjects that cannot be read."""
    fits: list[Fit] = []
    problems: list[Problem] = []
    known = [cached for cached in shards if cached.subject in boxes]
    with reporter.progress("report: boxes", len(known), "subjects") as tracker:
        for cached in known:
            with one_input(cached.subject, problems):
                seen = _read(cached)
                has_box, corners = _true_corners(read_boxes(boxes[cached.subject]), seen.index, seen.width, seen.height)
                if has_box.any():
                    fits.append(Fit(cached.subject, iou(seen.theta[has_box], corners)))
            tracker.advance()
    return fits, problems


def sample_crops(
    work: Work, shards: Sequence[Cached], boxes: dict[str, Path], *, margin: float, size: int, total: int = 12
) -> tuple[list[StnSample], list[Problem]]:
    """About `total` frames, at even intervals over the subjects and their time, and the problems.

    margin, size: of the crops, if a shard does not have them.
    """
    samples: list[StnSample] = []
    problems: list[Problem] = []
    ready = [cached for cached in shards if work.frames(cached.video).is_file()]
    ready = [ready[k] for k in np.linspace(0, len(ready) - 1, min(total, len(ready))).round().astype(int)]
    for number, cached in enumerate(ready):
        count = total // len(ready) + (number < total % len(ready))
        with one_input(cached.subject, problems):
            seen = _read(cached)
            known = read_boxes(boxes[cached.subject]) if cached.subject in boxes else None
            samples += _samples_of(cached.subject, seen, work.frames(cached.video), known, count, {
                "margin": margin, "crop": size, **seen.stn,
            })  # fmt: skip
    return samples, problems


@dataclass(frozen=True)
class _Localisations:
    """A feature shard without its features. stn: the settings of its crops, {} if they are not stored."""

    index: NDArray[np.int64]
    time: NDArray[np.float64]
    theta: NDArray[np.float64]
    presence: NDArray[np.float64]
    width: int
    height: int
    stn: dict[str, Any]


def _read(cached: Cached) -> _Localisations:
    with Shard(cached.path, FEATURES) as shard:
        index, time, theta = shard.read("index"), shard.read("pts"), shard.read("theta").astype(np.float64)
        presence = shard.read("presence") if "presence" in shard.names else np.ones(len(index))
        try:
            width, height = int(shard.attributes["width"]), int(shard.attributes["height"])
        except (KeyError, TypeError, ValueError) as error:
            text = f"{cached.path}: the size of its video is missing"
            raise ShardError(text, "Run `affect cache-features` again.") from error
        return _Localisations(
            index, time, theta, presence.astype(np.float64), width, height, shard.settings.get("stn", {})
        )


def _samples_of(
    subject: str, seen: _Localisations, path: Path, known: Boxes | None, count: int, stn: dict[str, Any]
) -> list[StnSample]:
    import cv2

    rows = np.unique(((np.arange(count) + 0.5) / count * len(seen.index)).astype(int)) if len(seen.index) else []
    with FrameShard(path) as frames:
        index = frames.read("index")
        places = np.searchsorted(index, seen.index[rows]).clip(0, max(0, len(index) - 1))
        if not np.array_equal(index[places], seen.index[rows]):
            raise ShardError(f"{path}: frames that have features are missing", "Run `affect extract-frames` again.")
        pictures = frames.jpegs(places)
    shape = np.array([seen.width, seen.height]) * MAX_SIDE / max(seen.width, seen.height)
    shape = shape.round().astype(int).clip(1)
    samples = []
    for row, jpeg in zip(rows, pictures, strict=True):
        square = cv2.imdecode(jpeg, cv2.IMREAD_COLOR_RGB)
        if square is None:
            raise ShardError(f"{path}: a frame is not a JPEG picture", "Run `affect extract-frames` again.")
        square = np.asarray(square, np.uint8)
        theta, true, overlap = seen.theta[row], None, None
        box = (np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) @ theta[:, :2].T + theta[:, 2] + 1) / 2 * shape
        if known is not None:
            has_box, corners = _true_corners(known, seen.index[row : row + 1], seen.width, seen.height)
            if has_box[0]:
                overlap = float(iou(theta[None], corners)[0])
                true = corners[0] * np.tile(shape, 2)
        picture = np.asarray(cv2.resize(square, shape.tolist(), interpolation=cv2.INTER_AREA), np.uint8)
        crop = cut(square, theta, stn["margin"], min(stn["crop"], MAX_SIDE))
        samples.append(
            StnSample(subject, float(seen.time[row]), picture, crop, box, true, overlap, float(seen.presence[row]))
        )  # fmt: skip
    return samples


def cut(frame: NDArray[np.uint8], theta: NDArray[np.float64], margin: float, size: int) -> NDArray[np.uint8]:
    """The crop, uint8 [size, size, 3], of a frame [h, w, 3], as the backbone sees it: box theta [2, 3] and margin."""
    import torch

    from ....models.pyramid import resample
    from ....models.theta import add_margin

    box = torch.from_numpy(theta).float()[None]
    crop = resample(torch.from_numpy(frame).permute(2, 0, 1)[None], add_margin(box, margin), size)
    return crop[0].permute(1, 2, 0).round().to(torch.uint8).numpy()


def iou(theta: NDArray[np.float64], corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """IoU [n] of each theta [n, 2, 3] with a true box [n, 4], x0 y0 x1 y1 as fractions of the picture. The same formula
    as in training."""
    import torch

    from ....models.theta import box_iou, theta_from_corners

    true = theta_from_corners(torch.from_numpy(corners), 1.0, 1.0)
    return box_iou(torch.from_numpy(theta).float(), true).double().numpy()


def _true_corners(
    known: Boxes, index: NDArray[np.int64], width: int, height: int
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Which of these frames have a true box, bool [n], and those boxes [k, 4] as fractions of the picture."""
    has_box = np.isin(index, known.frame)
    rows = np.searchsorted(known.frame, index[has_box])
    corners = known.corners[rows].astype(np.float64) / (width, height, width, height)
    return has_box, corners
