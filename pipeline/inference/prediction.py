"""The network's output for a video, and the rule for frames without a face. Imports no torch."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .intervals import Evidence


@dataclass(frozen=True)
class Prediction:
    """The network's output for one person in the n decoded frames of a video, before `fill`.

    index: int64 [n], frame numbers. time: float64 [n], seconds. face: float32 [n], probability. value: float32
    [n, 2 + e], valence, arousal and the probabilities of e emotions. box: float32 [n, 4], x0 y0 x1 y1 in source pixels,
    clipped to the picture. lost: number of frames that could not be decoded. evidence: for intervals, None without.
    distance: float32 [n] from the training data, see Reference.distance; None without a reference.
    sampled: bool [n], whether the networks
    have seen the frame; if not, its outputs are interpolated. None: they have seen all frames.
    """

    index: NDArray[np.int64]
    time: NDArray[np.float64]
    face: NDArray[np.float32]
    value: NDArray[np.float32]
    box: NDArray[np.float32]
    lost: int
    evidence: Evidence | None = None
    distance: NDArray[np.float32] | None = None
    sampled: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.index)


def fill(
    value: NDArray[np.floating[Any]], seen: NDArray[np.bool_], time: NDArray[np.float64], policy: str
) -> NDArray[np.float64]:
    """Replaces the values [n, d] of frames without a face. Returns float64 [n, d].

    seen: bool [n], whether the frame shows a face. policy: `hold` repeats the last value, and before the first face the
    first one; `interpolate` is linear in time, and holds at both ends; `empty` sets NaN. With no face at all, every
    value is NaN.
    """
    filled = np.where(seen[:, None], value.astype(np.float64), np.nan)
    rows = np.flatnonzero(seen)
    if policy == "empty" or not len(rows):
        return filled
    if policy == "hold":
        last = np.maximum.accumulate(np.where(seen, np.arange(len(seen)), rows[0]))
        return filled[last]
    for column in filled.T:
        column[~seen] = np.interp(time[~seen], time[rows], column[rows])
    return filled
