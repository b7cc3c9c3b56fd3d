"""Frames by PyAV, numbered by their timestamps: right where decord is not, and from the middle of a video.

The pixels are decord's, bit for bit: both have FFmpeg decode, and scale by the same filter.
"""

import contextlib
from collections.abc import Callable, Generator, Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from ..errors import VideoError
from .timeline import REMEDY, Timeline, open_video

if TYPE_CHECKING:
    from av import VideoFrame
    from av.filter import Graph

BACK = 64
"""Frames by which it seeks earlier where the first try began too late."""


def frames_by_pyav(
    path: Path, timeline: Timeline, size: int | None, start: int, stop: int, tick: Callable[[], None]
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Numbers and upright pictures, uint8 [h, w, 3] RGB, of the frames from start to stop that can be decoded, in turn.

    Where the timeline is plain and the container's own, frames before `start` are not all decoded: reading begins at a
    keyframe. `tick` is called at each frame of the file. Raises VideoError where frames are missing and none can be
    numbered.
    """
    from av.error import FFmpegError

    counted = not timeline.stamped and _has_to_count(path, timeline, tick)
    turns = timeline.rotation // 90
    width, height = timeline.facts.width, timeline.facts.height
    if turns % 2:
        width, height = height, width
    scaler = _Scaler(size or width, size or height)
    last = -1
    for frame in _frames(path, tick) if counted else _frames_from(path, timeline, start, tick):
        place = last + 1 if counted else _place(timeline, frame.pts, last)
        if place is None:
            continue
        last = place
        number = int(timeline.number[place])
        if number >= stop:
            return
        if number < start or frame.is_corrupt:
            continue
        with contextlib.suppress(FFmpegError):
            yield number, np.rot90(scaler(frame), turns)


class _Scaler:
    """Frames to RGB of one size, as decord does it: FFmpeg's scale filter, bilinear."""

    def __init__(self, width: int, height: int) -> None:
        self._size = f"{width}:{height}:flags=bilinear"
        self._shape: tuple[int, int, str] | None = None

    def __call__(self, frame: "VideoFrame") -> NDArray[np.uint8]:
        """Raises FFmpegError."""
        from av.error import FFmpegError

        shape = frame.width, frame.height, frame.format.name
        if shape != self._shape:  # streams may change theirs midway
            self._graph, self._shape = self._build(frame), shape
        try:
            self._graph.push(frame)
            return cast(NDArray[np.uint8], cast("VideoFrame", self._graph.pull()).to_ndarray())
        except FFmpegError:
            self._shape = None  # what it still holds must not come out as the next frame
            raise

    def _build(self, frame: "VideoFrame") -> "Graph":
        from av.filter import Graph

        graph = Graph()
        base = frame.time_base or Fraction(1)
        source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=base)
        graph.link_nodes(
            source, graph.add("scale", self._size), graph.add("format", "pix_fmts=rgb24"), graph.add("buffersink")
        ).configure()
        return graph


def _frames_from(path: Path, timeline: Timeline, start: int, tick: Callable[[], None]) -> "Iterator[VideoFrame]":
    """Frames of the file in turn, from one that is shown no later than frame `start`. Some demuxers seek by the order
    of decoding, and may begin too late: then it is tried from earlier, and at last from the beginning."""
    certain = timeline.plain and timeline.stamped and 0 < start < len(timeline.stamp)
    for back in (0, BACK) if certain else ():
        frames = _frames(path, tick, int(timeline.stamp[max(0, start - back)]))
        first = next(frames, None)
        if first is not None and first.pts is not None and first.pts <= timeline.stamp[start]:
            yield first
            yield from frames
            return
        frames.close()
    yield from _frames(path, tick)


def _frames(path: Path, tick: Callable[[], None], seek: int | None = None) -> "Generator[VideoFrame]":
    """seek: a timestamp from before which to read; None: from the beginning."""
    from av.error import FFmpegError

    container, stream = open_video(path)
    with container, contextlib.suppress(FFmpegError, OSError):
        if seek is not None:
            container.seek(seek, stream=stream)
        for packet in container.demux(stream):
            tick()
            # A packet that cannot be decoded costs its own frame, not those after it.
            with contextlib.suppress(FFmpegError):
                yield from packet.decode()


def _place(timeline: Timeline, stamp: int | None, last: int) -> int | None:
    """Where the timeline has that timestamp, after `last`; None where it does not."""
    if stamp is None:
        return None
    place = max(int(np.searchsorted(timeline.stamp, stamp)), last + 1)
    return place if place < len(timeline.stamp) and timeline.stamp[place] == stamp else None


def _has_to_count(path: Path, timeline: Timeline, tick: Callable[[], None]) -> bool:
    """Whether frames of a container without presentation timestamps are to be numbered by counting them.

    What the decoder makes of its timestamps is good if it rises. If not, counting is right as long as none is missing.
    """
    end = int(timeline.stamp[-1])
    stamps = [frame.pts for frame in _frames(path, tick) if frame.pts is None or frame.pts <= end]
    known = [stamp for stamp in stamps if stamp is not None]
    if len(known) == len(stamps) and (np.diff(known) > 0).all() and set(known) <= set(timeline.stamp.tolist()):
        return False
    if len(stamps) == len(timeline.stamp):
        return True
    raise VideoError(f"{path}: frames are missing, and nothing in the file tells which", REMEDY)
