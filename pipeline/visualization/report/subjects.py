"""The report's best and worst subjects: some frames, annotations and predictions."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...errors import ShardError
from ...faults import one_input
from ...learning.metrics import pooled
from ...records import DIMENSIONS, Problem, Work
from ...runs.splits import Cached
from ...storage.shard import FrameShard
from .data import Series

MAX_CARDS = 3
"""Number of best subjects, and of worst ones."""
FRAMES_PER_CARD = 3
MAX_SIDE = 300
"""Longest side of a frame, in pixels."""


@dataclass(frozen=True)
class Spark:
    """The values of one dimension over time, as SVG paths in a box of 300 by 50; y runs from 1 to −1."""

    dimension: str
    ccc: float
    predicted: str
    annotated: str
    interval: str = ""


@dataclass(frozen=True)
class Card:
    """One subject. title: best or worst. pictures: seconds and uint8 [h, w, 3], at even intervals over the video."""

    subject: str
    title: str
    ccc_mean: float
    sparks: tuple[Spark, ...]
    pictures: tuple[tuple[float, NDArray[np.uint8]], ...]


def cards(work: Work, predictions: Mapping[str, Series], shards: Sequence[Cached]) -> tuple[list[Card], list[Problem]]:
    """The best subjects by mean CCC, best first, then the worst, worst last. Frames are shown where they are stored."""
    scores = {name: pooled(it.value, it.truth, it.valid) for name, it in predictions.items() if it.valid.any()}
    order = sorted(scores, key=lambda name: (-scores[name]["ccc_mean"], name))
    count = min(MAX_CARDS, max(1, len(order) // 2))
    chosen = [(name, "best") for name in order[:count]]
    chosen += [(name, "worst") for name in order[max(count, len(order) - count) :]]
    videos = {shard.subject: shard.video for shard in shards}
    made: list[Card] = []
    problems: list[Problem] = []
    for name, title in chosen:
        pictures: tuple[tuple[float, NDArray[np.uint8]], ...] = ()
        if name in videos and work.frames(videos[name]).is_file():
            with one_input(name, problems):
                pictures = _pictures(work, videos[name])
        sparks = _sparks(predictions[name], scores[name])
        made.append(Card(name, title, float(scores[name]["ccc_mean"]), sparks, pictures))
    return made, problems


def _sparks(series: Series, metrics: Mapping[str, float]) -> tuple[Spark, ...]:
    duration = max(float(series.time[-1] - series.time[0]), 1e-6)
    x = (series.time - series.time[0]) / duration * 300
    return tuple(
        Spark(
            dimension,
            float(metrics[f"ccc_{dimension}"]),
            svg_path(x, 25 - 24 * series.value[:, column]),
            svg_path(x, 25 - 24 * series.truth[:, column]),
            "" if series.interval is None else svg_area(x, *(25 - 24 * series.interval[:, column].T)),
        )
        for column, dimension in enumerate(DIMENSIONS)
    )


def svg_area(x: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]) -> str:
    """An SVG path around the area between two curves without NaN, through evenly chosen points."""
    there, back = svg_path(x, high), svg_path(x[::-1], low[::-1])
    return f"{there}L{back.removeprefix('M')}Z"


def svg_path(x: NDArray[np.float64], y: NDArray[np.float64], max_points: int = 600) -> str:
    """An SVG path through evenly chosen points, interrupted where y is NaN."""
    kept = np.unique(np.linspace(0, len(x) - 1, min(max_points, len(x))).round().astype(int))
    parts, command = [], "M"
    for across, down in zip(x[kept].tolist(), y[kept].tolist(), strict=True):
        if math.isnan(down):
            command = "M"
            continue
        parts.append(f"{command}{across:.1f} {down:.1f}")
        command = "L"
    return "".join(parts)


def _pictures(work: Work, video: str) -> tuple[tuple[float, NDArray[np.uint8]], ...]:
    import cv2

    file = work.frames(video)
    with FrameShard(file) as frames:
        time = frames.read("pts")
        middles = (np.arange(FRAMES_PER_CARD) + 0.5) / FRAMES_PER_CARD
        places = np.unique((middles * len(time)).astype(int)) if len(time) else np.empty(0, int)
        try:
            width, height = int(frames.attributes["width"]), int(frames.attributes["height"])
        except (KeyError, TypeError, ValueError) as error:
            text = f"{file}: the size of its video is missing"
            raise ShardError(text, "Run `affect extract-frames` again.") from error
        jpegs = frames.jpegs(places)
    shape = [max(1, round(edge * MAX_SIDE / max(width, height))) for edge in (width, height)]
    found = []
    for place, jpeg in zip(places, jpegs, strict=True):
        square = cv2.imdecode(jpeg, cv2.IMREAD_COLOR_RGB)
        if square is None:
            raise ShardError(f"{file}: frame {place} is not a JPEG picture", "Run `affect extract-frames` again.")
        found.append(
            (float(time[place]), np.asarray(cv2.resize(square, shape, interpolation=cv2.INTER_AREA), np.uint8))
        )
    return tuple(found)
