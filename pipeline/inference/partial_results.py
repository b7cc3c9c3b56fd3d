"""Passes the results of a running prediction to a callback as soon as they are final. Imports no torch."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..records import VideoFacts


@dataclass(frozen=True)
class FrameResults:
    """The results of the next k frames.

    facts: about the whole video. index: int64 [k]. time: float64 [k], seconds. face: float32 [k], probability. box:
    float32 [k, 4], pixels of the video. value: float32 [k, 2], valence and arousal.
    """

    facts: VideoFacts
    index: NDArray[np.int64]
    time: NDArray[np.float64]
    face: NDArray[np.float32]
    box: NDArray[np.float32]
    value: NDArray[np.float32]


OnFrames = Callable[[FrameResults], None]


class ResultAligner:
    """Matches frames with their values. Values arrive later: they are final when all windows of the frame are read."""

    def __init__(self, on_frames: OnFrames | None, facts: VideoFacts) -> None:
        self._on_frames, self._facts = on_frames, facts
        self._pending: list[NDArray] = []

    def push(
        self,
        index: NDArray[np.int64],
        time: NDArray[np.float64],
        face: NDArray[np.float32],
        box: NDArray[np.float32],
        value: NDArray[np.float32],
    ) -> None:
        """Adds the next frames (index, time, face, box) and the next m final values [m, 2], and calls the callback."""
        if self._on_frames is None:
            return
        columns = [index, time, face, box]
        if self._pending:
            columns = [np.concatenate(pair) for pair in zip(self._pending, columns, strict=True)]
        m = len(value)
        self._pending = [column[m:] for column in columns]
        index, time, face, box = (column[:m] for column in columns)
        self._on_frames(FrameResults(self._facts, index, time, face, box, value))
