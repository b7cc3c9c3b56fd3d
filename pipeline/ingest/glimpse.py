"""A few frames of a video at given moments, without decoding all of it."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import VideoError
from .timeline import open_video

PATIENCE = 400
"""Frames decoded after a keyframe before a moment is given up."""


def glimpse(path: Path, moments: Sequence[float]) -> list[NDArray[np.uint8] | None]:
    """The frames shown at these seconds of the file, uint8 [h, w, 3] RGB, upright; None where there is none to be had,
    as where the file is gone."""
    from av.error import FFmpegError

    found: list[NDArray[np.uint8] | None] = [None] * len(moments)
    try:
        container, stream = open_video(path)
    except VideoError:
        return found
    with container:
        base = float(stream.time_base or 1)
        origin = (container.start_time or 0) / 1e6
        for place, moment in enumerate(moments):
            with contextlib.suppress(FFmpegError, OSError):
                target = moment + origin
                container.seek(int(max(0.0, target) / base), stream=stream)
                for count, frame in enumerate(container.decode(stream)):
                    late = frame.pts is not None and frame.pts * base >= target - 0.002
                    if late or count == PATIENCE:
                        if late:
                            picture = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
                            found[place] = np.rot90(picture, round(frame.rotation / 90) % 4)
                        break
    return found
