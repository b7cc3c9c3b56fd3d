"""What the network says of a video, and the rule for frames without a face. No torch."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Prediction:
    """What the network says of one person in a video's n decoded frames, before frames without a face are seen to.

    index: int64 [n], frame numbers. time: float64 [n], seconds. face: float32 [n], probability. value: float32
    [n, 2 + e], valence, arousal and e emotions' probabilities. box: float32 [n, 4], x0 y0 x1 y1 in source pixels,
    within the picture. lost: how many frames could not be decoded.
    """

    index: NDArray[np.int64]
    time: NDArray[np.float64]
    face: NDArray[np.float32]
    value: NDArray[np.float32]
    box: NDArray[np.float32]
    lost: int

    def __len__(self) -> int:
        return len(self.index)


def fill(
    value: NDArray[np.floating[Any]], seen: NDArray[np.bool_], time: NDArray[np.float64], policy: str
) -> NDArray[np.float64]:
    """The values [n, d] with those of frames without a face replaced; NaN where there is none.

    seen: bool [n]. policy: `hold` repeats the last value seen, and the first one before it; `interpolate` draws a line
    over time between the neighbours, and holds the ends; `empty` leaves none. With no face anywhere all are empty.
    """
    filled = np.where(seen[:, None], value.astype(np.float64), np.nan)
    there = np.flatnonzero(seen)
    if policy == "empty" or not len(there):
        return filled
    if policy == "hold":
        last = np.maximum.accumulate(np.where(seen, np.arange(len(seen)), there[0]))
        return filled[last]
    for column in filled.T:
        column[~seen] = np.interp(time[~seen], time[there], column[there])
    return filled
