"""Chooses the frames of a video that the networks see: some per second, and those where the picture has changed."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_GAP = 64
"""The networks see at least one of so many frames, so that the frames that wait for the next one fit into memory."""
MAX_DUE, MAX_FRAMES = 48, 192
"""A chunk has this many frames that are due: full batches for the networks. Or it has about so many frames, if fewer of
them are due."""
CHANGE = 12.0
"""A frame whose pixels differ by more than this on average, of 255, from the last chosen frame is chosen too."""
STEP = 8
"""Only every STEP-th row and column of a picture is compared."""
TOLERANCE = 0.05
"""Of the distance between two samples. Containers round their times to milliseconds."""

Pictures = Sequence[NDArray[np.uint8]] | NDArray[np.uint8]
"""n pictures, each uint8 [h, w, 3]: a list, or an array [n, h, w, 3]."""
Frames = tuple[NDArray[np.int64], NDArray[np.float64], Pictures]
"""Consecutive frames: numbers [n], times [n] in seconds, pictures."""


@dataclass(frozen=True)
class FrameChunk:
    """Consecutive frames, of which the last one is due.

    index: int64 [n]. time: float64 [n], seconds. due: bool [n], whether the networks must see the frame. pictures: n
    pictures.
    """

    index: NDArray[np.int64]
    time: NDArray[np.float64]
    due: NDArray[np.bool_]
    pictures: Pictures

    def __len__(self) -> int:
        return len(self.index)

    def pixels(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The pictures of these rows, uint8 [k, h, w, 3]."""
        if isinstance(self.pictures, np.ndarray):
            return self.pictures if len(rows) == len(self.pictures) else self.pictures[rows]
        return np.stack([self.pictures[row] for row in rows.tolist()])

    def part(self, start: int, stop: int | None = None) -> "FrameChunk":
        rows = slice(start, stop)
        return FrameChunk(self.index[rows], self.time[rows], self.due[rows], self.pictures[rows])

    def before(self, later: "FrameChunk") -> "FrameChunk":
        """The frames of this chunk, then those of the later one."""
        index, time = np.concatenate((self.index, later.index)), np.concatenate((self.time, later.time))
        due = np.concatenate((self.due, later.due))
        return FrameChunk(index, time, due, [*self.pictures, *later.pictures])


def frame_chunks(batches: Iterable[Frames], fps: float | None) -> Iterator[FrameChunk]:
    """The frames of a video in chunks, with the frames that are due.

    fps: how many frames per second are due; None: all. The first and the last frame of the video are always due, and
    so is a frame whose picture differs from the last one that was due. What is due depends on the times and pictures of
    the video, not on the batches.
    """
    if fps is None:
        for index, time, pictures in batches:
            yield FrameChunk(index, time, np.ones(len(index), bool), pictures)
        return
    chooser, waiting = _Chooser(fps), None
    for index, time, pictures in batches:
        chunk = FrameChunk(index, time, chooser.choose(time, pictures), pictures)
        waiting = chunk if waiting is None else waiting.before(chunk)
        while end := _end(waiting):
            yield waiting.part(0, end)
            waiting = waiting.part(end)
    if waiting is not None and len(waiting):
        waiting.due[-1] = True
        yield waiting


def _end(waiting: FrameChunk) -> int:
    """The number of frames of the next chunk; 0 if more frames must arrive first."""
    due = np.flatnonzero(waiting.due)
    if len(due) >= MAX_DUE:
        return int(due[MAX_DUE - 1]) + 1
    return int(due[-1]) + 1 if len(due) and len(waiting) >= MAX_FRAMES else 0


class _Chooser:
    """Decides frame by frame. Time is divided into slots of 1 / fps seconds; the first frame of each slot is due."""

    def __init__(self, fps: float) -> None:
        self._fps = fps
        self._start = 0.0
        self._slot, self._gap = -1, 0
        self._last: NDArray[np.int16] | None = None

    def choose(self, time: NDArray[np.float64], pictures: Pictures) -> NDArray[np.bool_]:
        """Whether each of the next frames is due, bool [n]."""
        due = np.zeros(len(time), bool)
        for row, (seconds, picture) in enumerate(zip(time.tolist(), pictures, strict=True)):
            small = picture[::STEP, ::STEP].astype(np.int16)
            if self._last is None:
                self._start = seconds
            slot = int((seconds - self._start) * self._fps + TOLERANCE)
            self._gap += 1
            due[row] = slot > self._slot or self._gap >= MAX_GAP or self._changed(small)
            if due[row]:
                self._slot, self._gap, self._last = max(slot, self._slot), 0, small
        return due

    def _changed(self, small: NDArray[np.int16]) -> bool:
        return self._last is None or bool(np.abs(small - self._last).mean() > CHANGE)
