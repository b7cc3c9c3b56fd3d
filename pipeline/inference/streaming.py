"""Predicts frame by frame from the current and earlier frames only: for live use, in constant memory."""

import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import SupportsFloat

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..ingest.video.decode import DecordError, decode
from ..ingest.video.live import CapturedFrame, LatestFrame, Source, captured_frames, resize_square
from .intervals import StreamIntervals, evidence_of
from .predictor import FrameOutputs, Predictor
from .trace import Moment

Picture = NDArray[np.uint8]
MomentReader = Callable[[FrameOutputs, int, float, int], Moment]
"""(outputs of one frame, frame number, time in seconds, number of dropped frames before it) -> Moment."""
BATCH = 8
"""Frames that the decoder sends at once."""


def stream_file(predictor: Predictor, path: Path) -> Iterator[Moment]:
    """Yields a moment for every frame of a file, as fast as possible. Raises VideoError."""
    read_moment, start = moment_reader(predictor), 0
    deadline = predictor.config.runtime.decode_seconds
    for decoders in (("decord", "pyav"), ("pyav",)):
        try:
            with decode(
                path, predictor.size, batch=BATCH, deadline=deadline, start=start, decoders=decoders
            ) as decoding:
                for batch in decoding:
                    for number, time, pixels in zip(batch.index.tolist(), batch.time, batch.pixels, strict=True):
                        outputs = predictor.encode_pixels(pixels[None], decoding.facts.width, decoding.facts.height)
                        start = number + 1
                        yield read_moment(outputs, number, float(time), 0)
            return
        except DecordError:
            if decoders == ("pyav",):
                raise


def stream_pictures(predictor: Predictor, pictures: Iterable[Picture], rate: float) -> Iterator[Moment]:
    """Yields a moment for every picture, uint8 [h, w, 3] RGB, at `rate` pictures per second.

    Raises InputError: at the call for an invalid rate or source, during iteration for an invalid picture.
    """
    if isinstance(rate, bool) or not isinstance(rate, SupportsFloat) or not 0 < float(rate) < math.inf:
        raise InputError(f"rate is {rate!r}", "Give the number of pictures per second, above 0.")
    if not isinstance(pictures, Iterable):
        raise InputError(f"source is {pictures!r}", "Give a camera number, a URL, a file, or RGB pictures.")
    return _stream_pictures(predictor, pictures, float(rate))


def _stream_pictures(predictor: Predictor, pictures: Iterable[Picture], rate: float) -> Iterator[Moment]:
    read_moment = moment_reader(predictor)
    for number, picture in enumerate(pictures):
        yield _read_frame(predictor, read_moment, CapturedFrame(number, number / rate, picture), 0)


def stream_live(predictor: Predictor, newest: LatestFrame) -> Iterator[tuple[Moment, CapturedFrame]]:
    """Yields the moment of the newest frame, and the frame, each time the previous one is done. Raises VideoError."""
    read_moment = moment_reader(predictor)
    for frame, late in newest:
        yield _read_frame(predictor, read_moment, frame, late), frame


def open_source(predictor: Predictor, source: Source) -> LatestFrame:
    """Opens a camera, stream or file. Use the result in a `with` statement. Raises VideoError."""
    return LatestFrame(captured_frames(source), predictor.config.runtime.decode_seconds)


def need_picture(value: object, name: str) -> Picture:
    """The value as an array, uint8 [h, w, 3]. Raises InputError if it is something else. name: for the message."""
    picture = np.asarray(value)
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
        found = f"{name} is {picture.dtype} {list(picture.shape)}"
        raise InputError(found, "Give RGB pictures, uint8 [height, width, 3].")
    return picture


def moment_reader(predictor: Predictor) -> MomentReader:
    """Returns a function that makes the moment of the next frame.

    In frames without a face, `predict.no_face` decides, but later frames are unknown: `hold` and `interpolate` both
    repeat the last values. Before the first face, the values are NaN.
    """
    read, settings = predictor.streaming_reader(), predictor.config.predict
    intervals = None if predictor.intervals is None else StreamIntervals(predictor.intervals)
    held = np.full(2, np.nan)

    def read_moment(outputs: FrameOutputs, number: int, time: float, late: int) -> Moment:
        nonlocal held
        value = np.asarray(read(outputs.feature), np.float64)
        face = float(outputs.face[0])
        seen = bool(outputs.face[0] >= settings.face_threshold)
        held = value if seen else held if settings.no_face != "empty" else np.full(2, np.nan)
        x0, y0, x1, y1 = outputs.box[0].tolist()
        ends: list[float] = []
        if intervals is not None:
            evidence = evidence_of(np.array([time]), outputs.face, np.array([seen]), outputs.traits)
            ends = intervals.bounds(evidence, held).ravel().tolist()
        return Moment(
            number,
            time,
            face,
            seen,
            float(held[0]),
            float(held[1]),
            (x0, y0, x1, y1),
            late,
            *ends,
            distance=math.nan if predictor.reference is None else float(outputs.distance[0]),
        )

    return read_moment


def _read_frame(predictor: Predictor, read_moment: MomentReader, frame: CapturedFrame, late: int) -> Moment:
    picture = need_picture(frame.picture, f"picture {frame.number}")
    height, width = picture.shape[:2]
    outputs = predictor.encode_pixels(resize_square(picture, predictor.size)[None], width, height)
    return read_moment(outputs, frame.number, frame.time, late)
