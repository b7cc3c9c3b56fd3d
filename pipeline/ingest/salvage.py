"""Frames by PyAV, numbered by their timestamps: slower than decord, and right where decord is not."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from ..errors import VideoError
from .timeline import REMEDY, Timeline, open_video

if TYPE_CHECKING:
    from av import VideoFrame


def frames_by_pyav(
    path: Path, timeline: Timeline, size: int | None, start: int, stop: int, tick: Callable[[], None]
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Numbers and upright pictures, uint8 [h, w, 3] RGB, of the frames from start to stop that can be decoded, in turn.

    `tick` is called at each frame of the file. Raises VideoError where frames are missing and none can be numbered.
    """
    from av.error import FFmpegError
    from av.video.reformatter import Interpolation, VideoReformatter

    counted = not timeline.stamped and _has_to_count(path, timeline, tick)
    turns = timeline.rotation // 90
    width, height = timeline.facts.width, timeline.facts.height
    if turns % 2:
        width, height = height, width
    scaler = VideoReformatter()
    last = -1
    for frame in _frames(path, tick):
        place = last + 1 if counted else _place(timeline, frame.pts, last)
        if place is None:
            continue
        last = place
        number = int(timeline.number[place])
        if number >= stop:
            return
        if number < start or frame.is_corrupt:
            continue
        # decord scales bilinearly too: frames of the two are alike.
        with contextlib.suppress(FFmpegError):
            picture = scaler.reformat(
                frame, size or width, size or height, "rgb24", interpolation=Interpolation.BILINEAR
            ).to_ndarray()
            yield number, np.rot90(cast(NDArray[np.uint8], picture), turns)


def _frames(path: Path, tick: Callable[[], None]) -> "Iterator[VideoFrame]":
    from av.error import FFmpegError

    container, stream = open_video(path)
    with container, contextlib.suppress(FFmpegError, OSError):
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
