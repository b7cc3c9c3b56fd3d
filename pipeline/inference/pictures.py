"""Predicts pictures. Each is a clip of one frame, so a video of one frame has the same values."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import PictureError
from ..ingest.video.live import resize_square
from .image_prediction import ImagePrediction
from .intervals import evidence_of
from .predictor import Predictor

MAX_SHRINK = 120
"""Longest side of a picture, in sides of the square: FFmpeg's scale filter is inexact from about 127 on."""


@dataclass(frozen=True)
class SquarePicture:
    """A picture, scaled to the square that the model takes. pixels: uint8 [size, size, 3], RGB."""

    name: str
    source: Path | None
    width: int
    height: int
    pixels: NDArray[np.uint8]


def square_picture(picture: NDArray[np.uint8], size: int, name: str, source: Path | None = None) -> SquarePicture:
    """Scales an upright picture, uint8 [h, w, 3] RGB, as decoders scale frames.

    Raises PictureError for a picture with a very long side.
    """
    height, width = picture.shape[:2]
    if max(height, width) > MAX_SHRINK * size:
        problem = f"{source or name}: has {width} x {height} pixels, allowed are {MAX_SHRINK * size} on a side"
        raise PictureError(problem, "Scale it down, or crop the face.")
    return SquarePicture(name, source, width, height, resize_square(picture, size))


def predict_pictures(
    predictor: Predictor, pictures: Sequence[SquarePicture], classes: Sequence[str] = ()
) -> list[ImagePrediction]:
    """Predicts a batch of at least one picture. classes: names of the emotions, if they are requested."""
    width, height = np.array([(it.width, it.height) for it in pictures], np.int64).T
    outputs = predictor.encode_pixels(np.stack([it.pixels for it in pictures]), width, height)
    seen = outputs.face >= predictor.config.predict.face_threshold
    values = np.full((len(pictures), 2), np.nan)
    for row in np.flatnonzero(seen):
        reader, only = predictor.offline_reader(), slice(row, row + 1)
        values[row] = np.concatenate((reader.push(outputs.feature[only], seen[only]), reader.finish()))[0]
    ends = np.full((len(pictures), 2, 2), np.nan)
    if predictor.intervals is not None:
        evidence = evidence_of(np.zeros(len(pictures)), outputs.face, seen, outputs.traits)
        ends = predictor.intervals.bounds("picture", evidence, values)
    predictions = []
    for row, picture in enumerate(pictures):
        valence, arousal = values[row].tolist()
        x0, y0, x1, y1 = outputs.box[row].tolist()
        emotions = outputs.emotion[row].astype(np.float64) if seen[row] else np.full(len(classes), np.nan)
        predictions.append(
            ImagePrediction(
                picture.name, picture.source, picture.width, picture.height, float(outputs.face[row]), bool(seen[row]),
                valence, arousal, (x0, y0, x1, y1) if seen[row] else None,
                dict(zip(classes, emotions.tolist(), strict=True)) if classes else {},
                None if predictor.intervals is None else _pairs(ends[row]),
                None if predictor.reference is None else float(outputs.distance[row]) if seen[row] else math.nan,
            )
        )  # fmt: skip
    return predictions


def _pairs(ends: NDArray[np.float64]) -> tuple[tuple[float, float], tuple[float, float]]:
    (valence_low, valence_high), (arousal_low, arousal_high) = ends.tolist()
    return (valence_low, valence_high), (arousal_low, arousal_high)
