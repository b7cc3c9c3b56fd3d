"""Decodes a few frames of a video at given times."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...errors import VideoError
from .orientation import orientation_of
from .packets import frames_of
from .pyav_decoder import frames_by_pyav
from .timeline import Timeline, open_video, pixel_aspect_of, read_timeline

MAX_DECODED = 400
"""Number of frames decoded after a keyframe in search of a time."""

RESTARTING = ("matroska", "mpeg", "mpegts", "flv")
"""Containers whose timestamps can restart, so that seeking by time is not reliable."""


class StillFrame(NamedTuple):
    """picture: uint8 [h, w, 3] RGB, upright, in stored pixels. pixel_aspect: width / height of a displayed pixel."""

    picture: NDArray[np.uint8]
    pixel_aspect: float


def frames_at(path: Path, times: Sequence[float]) -> list[StillFrame | None]:
    """The frames at these times in seconds. None for a frame that cannot be read, also if the file is missing."""
    from av.error import FFmpegError

    found: list[StillFrame | None] = [None] * len(times)
    try:
        container, stream = open_video(path)
    except VideoError:
        return found
    with container:
        if container.format.name.split(",")[0] in RESTARTING:
            timeline = read_timeline(path)
            if timeline.restamped is not None:
                return [_frame_by_number(path, timeline, seconds) for seconds in times]
        base = float(stream.time_base or 1)
        origin = (container.start_time or 0) / 1e6
        for i, seconds in enumerate(times):
            with contextlib.suppress(FFmpegError, OSError):
                target = seconds + origin
                container.seek(int(max(0.0, target) / base), stream=stream)
                for count, frame in enumerate(frames_of(container, stream)):
                    reached = frame.pts is not None and frame.pts * base >= target - 0.002
                    if reached or count == MAX_DECODED:
                        if reached:
                            picture = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
                            orientation = orientation_of(frame)
                            aspect = pixel_aspect_of(stream, orientation)
                            found[i] = StillFrame(orientation.apply(picture), aspect)
                        break
    return found


def _frame_by_number(path: Path, timeline: Timeline, seconds: float) -> StillFrame | None:
    """The frame at this time, found by decoding all frames before it."""
    row = int(np.searchsorted(timeline.time, seconds - 0.002).clip(0, len(timeline.time) - 1))
    number = int(timeline.number[row])
    for _, picture in frames_by_pyav(path, timeline, None, number, number + 1, lambda: None):
        return StillFrame(picture, timeline.facts.pixel_aspect)
    return None
