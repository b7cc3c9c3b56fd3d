"""Decodes with PyAV and numbers frames by their timestamps, for videos that decord would number wrongly.

Can start in the middle of a video. Both decoders use the scale filter of FFmpeg, so the pixels equal those of decord.
Exception: resized frames of RGB-coded video of odd width (PNG, FFV1 bgr0).
"""

import contextlib
from collections.abc import Callable, Generator, Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from ...errors import VideoError
from .packets import packets_of, until_damage
from .timeline import REMEDY, Timeline, open_video
from .unshown import Unshown

if TYPE_CHECKING:
    from av import VideoFrame
    from av.filter import Graph

SEEK_BACK_FRAMES = 64
"""If a seek ends too late, the next one goes this many frames further back."""


def frames_by_pyav(
    path: Path, timeline: Timeline, size: int | None, start: int, stop: int, tick: Callable[[], None]
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Yields number and upright pixels, uint8 [h, w, 3] RGB, of the frames start to stop that can be decoded, in order.

    If the timestamps of the file are reliable, decoding starts at a keyframe before `start`. `tick` is called for each
    packet. Raises VideoError if frames are missing and the rest cannot be numbered, or if the disk cannot read the
    file.
    """
    from av.error import FFmpegError

    counted = not timeline.stamped and _must_count(path, timeline, tick)
    width, height = timeline.facts.width, timeline.facts.height
    if timeline.orientation.transposed:
        width, height = height, width
    scaler = _Scaler(size or width, size or height)
    last = -1
    for frame in _frames(path, tick, limit=timeline.packets) if counted else _frames_from(path, timeline, start, tick):
        row = last + 1 if counted else _find_row(timeline, frame.pts, last)
        if row is None:
            continue
        last = row
        number = int(timeline.number[row])
        if number >= stop:
            return
        if number < start or frame.is_corrupt:
            continue
        with contextlib.suppress(FFmpegError):
            yield number, timeline.orientation.apply(scaler(frame))


class _Scaler:
    """Converts frames to RGB of one size, as decord does: with FFmpeg's scale filter, bilinear."""

    def __init__(self, width: int, height: int) -> None:
        self._size = f"{width}:{height}:flags=bilinear"
        self._shape: tuple[int, int, str] | None = None

    def __call__(self, frame: "VideoFrame") -> NDArray[np.uint8]:
        """Raises FFmpegError."""
        from av.error import FFmpegError

        shape = frame.width, frame.height, frame.format.name
        if shape != self._shape:  # the size can change within a stream
            self._graph, self._shape = self._build(frame), shape
        try:
            self._graph.push(frame)
            return cast(NDArray[np.uint8], cast("VideoFrame", self._graph.pull()).to_ndarray())
        except FFmpegError:
            self._shape = None  # a buffered frame must not be returned as the next one
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
    """Yields the frames of the file in order, starting no later than frame `start`.

    Some demuxers seek by decoding order and may start too late. Then it seeks further back, and finally reads from the
    beginning.
    """
    can_seek = timeline.plain and timeline.stamped and 0 < start < len(timeline.stamp)
    for back in (0, SEEK_BACK_FRAMES) if can_seek else ():
        frames = _frames(path, tick, int(timeline.stamp[max(0, start - back)]))
        first = next(frames, None)
        if first is not None and first.pts is not None and first.pts <= timeline.stamp[start]:
            yield first
            yield from frames
            return
        frames.close()
    yield from _frames(path, tick, restamped=timeline.restamped)


def _frames(
    path: Path,
    tick: Callable[[], None],
    seek: int | None = None,
    restamped: NDArray[np.int64] | None = None,
    limit: int | None = None,
) -> "Generator[VideoFrame]":
    """Yields decoded frames. seek: a timestamp to start at or before, or None. restamped: see Timeline. limit: how many
    packets to decode; None: all."""
    from av.error import FFmpegError

    container, stream = open_video(path)
    with container, until_damage(path, tick):
        if seek is not None:
            container.seek(seek, stream=stream)
        unshown = Unshown(stream)
        stamps = iter(() if restamped is None else restamped.tolist())
        count = 0
        for packet in packets_of(container, stream):
            tick()
            if packet.size and not unshown.is_hidden(packet):
                if count == limit:
                    yield from stream.codec_context.decode(None)
                    return
                count += 1
                if restamped is not None:
                    packet.pts = packet.dts = next(stamps, None)
            # A packet that cannot be decoded loses only its own frame.
            with contextlib.suppress(FFmpegError):
                yield from packet.decode()


def _find_row(timeline: Timeline, stamp: int | None, last: int) -> int | None:
    """The row after `last` with this timestamp in the timeline, or None."""
    if stamp is None:
        return None
    row = max(int(np.searchsorted(timeline.stamp, stamp)), last + 1)
    return row if row < len(timeline.stamp) and timeline.stamp[row] == stamp else None


def _must_count(path: Path, timeline: Timeline, tick: Callable[[], None]) -> bool:
    """Whether frames must be numbered by counting, because presentation timestamps are missing or wrong.

    The timestamps of the decoder are used if they increase. Otherwise counting is correct if no frame is missing.
    Raises VideoError if one is.
    """
    stamps = [frame.pts for frame in _frames(path, tick, limit=timeline.packets)]
    known = [stamp for stamp in stamps if stamp is not None]
    if len(known) == len(stamps) and (np.diff(known) > 0).all() and set(known) <= set(timeline.stamp.tolist()):
        return False
    if len(stamps) == len(timeline.stamp):
        return True
    raise VideoError(f"{path}: frames are missing, and the file does not show which", REMEDY)
