"""Frames of a video that is being predicted, told to whoever watches as soon as their values are final. No torch."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..records import VideoFacts


@dataclass(frozen=True)
class Arrived:
    """The next k frames. index: int64 [k]. time: float64 [k] seconds. face: float32 [k]. box: float32 [k, 4], pixels of
    the video. value: float32 [k, 2], valence and arousal. facts: of the whole video."""

    facts: VideoFacts
    index: NDArray[np.int64]
    time: NDArray[np.float64]
    face: NDArray[np.float32]
    box: NDArray[np.float32]
    value: NDArray[np.float32]


Watch = Callable[[Arrived], None]


class Arrivals:
    """Pairs frames with their values, which come later: a frame's value is final once all its windows are seen."""

    def __init__(self, watch: Watch | None, facts: VideoFacts) -> None:
        self._watch, self._facts = watch, facts
        self._waiting: list[NDArray] = []

    def push(
        self,
        index: NDArray[np.int64],
        time: NDArray[np.float64],
        face: NDArray[np.float32],
        box: NDArray[np.float32],
        value: NDArray[np.float32],
    ) -> None:
        """index, time, face, box: of the frames seen next. value: [m, 2], the final ones that come next."""
        if self._watch is None:
            return
        seen = [index, time, face, box]
        if self._waiting:
            seen = [np.concatenate(pair) for pair in zip(self._waiting, seen, strict=True)]
        m = len(value)
        self._waiting = [column[m:] for column in seen]
        number, second, there, corners = (column[:m] for column in seen)
        self._watch(Arrived(self._facts, number, second, there, corners, value))
