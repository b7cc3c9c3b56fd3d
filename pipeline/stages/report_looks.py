"""What the STN looked at: validation frames with its box and the true one, and the crop it cut. No torch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import AffectError, CatalogError, MissingStageError
from ..ingest.boxes import read_boxes
from ..ingest.catalog import find_catalog
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


def measure(shards: Sequence[Cached], boxes: dict[str, Path]) -> tuple[list[Fit], list[Problem]]:
    """IoU of STN and true boxes, subject by subject; what could not be read becomes a Problem."""
    fits, problems = [], []
    for cached in shards:
        if cached.subject not in boxes:
            continue
        try:
            known = read_boxes(boxes[cached.subject])
            with Shard(cached.path, FEATURES) as shard:
                theta, index = shard.read("theta").astype(np.float64), shard.read("index")
                size = shard.attributes["width"], shard.attributes["height"]
        except AffectError as error:
            problems.append(Problem("damaged", cached.subject, error.problem, error.remedy))
            continue
        there, corners = _beside(known, index, *size)
        if there.any():
            fits.append(Fit(cached.subject, iou(extent(theta[there]), corners)))
    return fits, problems


def look(
    work: Work, shards: Sequence[Cached], boxes: dict[str, Path], *, margin: float, size: int, total: int = 12
) -> tuple[list[Look], list[Problem]]:
    """About `total` frames, evenly over the subjects and over their time: not the best ones, just those.

    margin, size: what stn.margin and stn.crop were. A subject that cannot be read is left out, with a Problem.
    """
    looks: list[Look] = []
    problems: list[Problem] = []
    ready = [cached for cached in shards if work.frames(cached.video).is_file()]
    ready = [ready[k] for k in np.linspace(0, len(ready) - 1, min(total, len(ready))).round().astype(int)]
    for number, cached in enumerate(ready):
        count = total // len(ready) + (number < total % len(ready))
        try:
            looks += _look_at(work, cached, boxes.get(cached.subject), count, margin, size)
        except AffectError as error:
            problems.append(Problem("damaged", cached.subject, error.problem, error.remedy))
    return looks, problems


def _look_at(work: Work, cached: Cached, boxes: Path | None, count: int, margin: float, size: int) -> list[Look]:
    import cv2

    known = read_boxes(boxes) if boxes else None
    with Shard(cached.path, FEATURES) as shard:
        theta, index, time = (shard.read(name) for name in ("theta", "index", "pts"))
        presence = shard.read("presence") if "presence" in shard.names else np.ones(len(index))
        width, height = shard.attributes["width"], shard.attributes["height"]
    rows = np.unique(((np.arange(count) + 0.5) / count * len(index)).astype(int)) if len(index) else []
    looks = []
    with FrameShard(work.frames(cached.video)) as frames:
        places = np.searchsorted(frames.read("index"), index[rows])
        pictures = frames.jpegs(places) if len(rows) else []
    scale = SIDE / max(width, height)
    shape = np.array([round(width * scale), round(height * scale)])
    for row, jpeg in zip(rows, pictures, strict=True):
        square = np.asarray(cv2.imdecode(jpeg, cv2.IMREAD_COLOR_RGB), np.uint8)
        one = theta[row].astype(np.float64)
        box = (np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) @ one[:, :2].T + one[:, 2] + 1) / 2 * shape
        true, overlap = None, None
        if known is not None:
            there, corners = _beside(known, index[row : row + 1], width, height)
            if there[0]:
                overlap = float(iou(extent(one[None]), corners)[0])
                true = (corners[0] + 1) / 2 * np.tile(shape, 2)
        picture = np.asarray(cv2.resize(square, shape.tolist(), interpolation=cv2.INTER_AREA), np.uint8)
        shown = cut(square, one, margin, min(size, SIDE))
        looks.append(
            Look(cached.subject, float(time[row]), picture, shown, box, true, overlap, float(presence[row]))
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
