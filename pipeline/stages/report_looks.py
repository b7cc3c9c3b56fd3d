"""What the STN looked at: validation frames with its box and the true one, and the crop it cut. No torch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import AffectError, CatalogError, MissingStageError, ShardError
from ..ingest.boxes import read_boxes
from ..ingest.catalog import find_catalog
from ..progress import Talk
from ..records import Boxes, Problem, Work
from ..storage.shard import FEATURES, FrameShard, Shard
from .audit_record import load_audit
from .splits import Cached

SIDE = 360
"""Longest side in pixels of a shown frame, and side of a shown crop at most."""


@dataclass(frozen=True)
class Look:
    """One frame. picture: uint8 [h, w, 3] RGB in its own aspect. crop: uint8 [c, c, 3]. box: [4, 2], the corners in
    pixels of the picture. true: x0 y0 x1 y1 likewise, None where not known. iou: of both. presence: probability."""

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
    """How well the boxes fit over all frames of a subject that have a true one. iou: float64 [k]."""

    subject: str
    iou: NDArray[np.float64]


def true_boxes(work: Work, names: Sequence[str]) -> dict[str, Path]:
    """Where the boxes of these subjects lie, as far as the audited data folder is still there."""
    try:
        subjects = find_catalog(Path(load_audit(work)["data"])).subjects
    except (MissingStageError, CatalogError, KeyError, TypeError):
        return {}
    return {subject.name: subject.boxes for subject in subjects if subject.name in names and subject.boxes}


def measure(shards: Sequence[Cached], boxes: dict[str, Path], talk: Talk) -> tuple[list[Fit], list[Problem]]:
    """IoU of STN and true boxes, subject by subject; what could not be read becomes a Problem."""
    fits: list[Fit] = []
    problems: list[Problem] = []
    known = [cached for cached in shards if cached.subject in boxes]
    with talk.track("report: boxes", len(known), "subjects") as tracker:
        for cached in known:
            try:
                seen = _read(cached)
                there, corners = _beside(read_boxes(boxes[cached.subject]), seen.index, seen.width, seen.height)
                if there.any():
                    fits.append(Fit(cached.subject, iou(extent(seen.theta[there]), corners)))
            except AffectError as error:
                problems.append(Problem("damaged", cached.subject, error.problem, error.remedy))
            tracker.advance()
    return fits, problems


def look(
    work: Work, shards: Sequence[Cached], boxes: dict[str, Path], *, margin: float, size: int, total: int = 12
) -> tuple[list[Look], list[Problem]]:
    """About `total` frames, evenly over the subjects and over their time: not the best ones, just those.

    margin, size: of crops, where a shard does not say. A subject that cannot be read is left out, with a Problem.
    """
    looks: list[Look] = []
    problems: list[Problem] = []
    ready = [cached for cached in shards if work.frames(cached.video).is_file()]
    ready = [ready[k] for k in np.linspace(0, len(ready) - 1, min(total, len(ready))).round().astype(int)]
    for number, cached in enumerate(ready):
        count = total // len(ready) + (number < total % len(ready))
        try:
            seen = _read(cached)
            known = read_boxes(boxes[cached.subject]) if cached.subject in boxes else None
            looks += _look_at(cached.subject, seen, work.frames(cached.video), known, count, {
                "margin": margin, "crop": size, **seen.stn,
            })  # fmt: skip
        except AffectError as error:
            problems.append(Problem("damaged", cached.subject, error.problem, error.remedy))
    return looks, problems


@dataclass(frozen=True)
class _Seen:
    """A feature shard but for its features. stn: the settings its crops were cut with, {} where it does not say."""

    index: NDArray[np.int64]
    time: NDArray[np.float64]
    theta: NDArray[np.float64]
    presence: NDArray[np.float64]
    width: int
    height: int
    stn: dict[str, Any]


def _read(cached: Cached) -> _Seen:
    with Shard(cached.path, FEATURES) as shard:
        index, time, theta = shard.read("index"), shard.read("pts"), shard.read("theta").astype(np.float64)
        presence = shard.read("presence") if "presence" in shard.names else np.ones(len(index))
        try:
            width, height = int(shard.attributes["width"]), int(shard.attributes["height"])
        except (KeyError, TypeError, ValueError) as error:
            text = f"{cached.path}: does not say how large its video is"
            raise ShardError(text, "Run `affect cache-features` again.") from error
        return _Seen(index, time, theta, presence.astype(np.float64), width, height, shard.settings.get("stn", {}))


def _look_at(subject: str, seen: _Seen, path: Path, known: Boxes | None, count: int, stn: dict[str, Any]) -> list[Look]:
    import cv2

    rows = np.unique(((np.arange(count) + 0.5) / count * len(seen.index)).astype(int)) if len(seen.index) else []
    with FrameShard(path) as frames:
        index = frames.read("index")
        places = np.searchsorted(index, seen.index[rows]).clip(0, max(0, len(index) - 1))
        if not np.array_equal(index[places], seen.index[rows]):
            raise ShardError(f"{path}: lacks frames that have features", "Run `affect extract-frames` again.")
        pictures = frames.jpegs(places)
    shape = np.array([seen.width, seen.height]) * SIDE / max(seen.width, seen.height)
    shape = shape.round().astype(int).clip(1)
    looks = []
    for row, jpeg in zip(rows, pictures, strict=True):
        square = cv2.imdecode(jpeg, cv2.IMREAD_COLOR_RGB)
        if square is None:
            raise ShardError(f"{path}: holds a picture that is no JPEG", "Run `affect extract-frames` again.")
        square = np.asarray(square, np.uint8)
        theta, true, overlap = seen.theta[row], None, None
        box = (np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) @ theta[:, :2].T + theta[:, 2] + 1) / 2 * shape
        if known is not None:
            there, corners = _beside(known, seen.index[row : row + 1], seen.width, seen.height)
            if there[0]:
                overlap = float(iou(extent(theta[None]), corners)[0])
                true = (corners[0] + 1) / 2 * np.tile(shape, 2)
        picture = np.asarray(cv2.resize(square, shape.tolist(), interpolation=cv2.INTER_AREA), np.uint8)
        crop = cut(square, theta, stn["margin"], min(stn["crop"], SIDE))
        looks.append(
            Look(subject, float(seen.time[row]), picture, crop, box, true, overlap, float(seen.presence[row]))
        )  # fmt: skip
    return looks


def cut(frame: NDArray[np.uint8], theta: NDArray[np.float64], margin: float, size: int) -> NDArray[np.uint8]:
    """The crop, uint8 [size, size, 3], that theta [2, 3] and the margin around it cut out of a frame [h, w, 3]."""
    import cv2

    height, width = frame.shape[:2]
    grown = theta * np.array([1 + margin, 1 + margin, 1.0])
    spans = np.abs(grown[:, :2]).sum(axis=1) * (width, height)
    more = max(1, math.ceil(spans.max() / size))  # samples per pixel: a crop smaller than its box must not alias
    side = size * more
    step = 2 / side
    # Crop pixel i is at (i + 0.5) * step - 1 of the square; frame coordinate u is pixel (u + 1) / 2 * width - 0.5.
    square = np.array([[step, 0, 0.5 * step - 1], [0, step, 0.5 * step - 1], [0, 0, 1]])
    pixels = np.array([[width / 2, 0, width / 2 - 0.5], [0, height / 2, height / 2 - 0.5]])
    whole = pixels @ np.vstack((grown @ square, [0, 0, 1]))
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    crop = cv2.warpAffine(frame, whole, (side, side), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA), np.uint8)


def extent(theta: NDArray[np.float64]) -> NDArray[np.float64]:
    """The upright box [n, 4] around each theta [n, 2, 3], in the coordinates of the picture (-1 to 1)."""
    reach, centre = np.abs(theta[:, :, :2]).sum(axis=2), theta[:, :, 2]
    return np.concatenate((centre - reach, centre + reach), axis=1)


def iou(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Intersection over union [n] of boxes [n, 4], pair by pair."""
    sides = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    overlap = sides.clip(min=0).prod(axis=1)
    union = (a[:, 2:] - a[:, :2]).prod(axis=1) + (b[:, 2:] - b[:, :2]).prod(axis=1) - overlap
    return overlap / union.clip(min=1e-9)


def _beside(
    known: Boxes, index: NDArray[np.int64], width: int, height: int
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Which of these frames have a box, bool [n], and those boxes [k, 4] in the coordinates of the picture."""
    there = np.isin(index, known.frame)
    rows = np.searchsorted(known.frame, index[there])
    corners = known.corners[rows].astype(np.float64) / (width, height, width, height) * 2 - 1
    return there, corners
