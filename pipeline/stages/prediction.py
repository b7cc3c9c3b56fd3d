"""A video's prediction and what is made of it: values for frames without a face, tables, figures. No torch."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

COLUMNS = ("frame", "time", "face", "valence", "arousal", "x0", "y0", "x1", "y1")
CLIP_COLUMNS = ("clip", "first_frame", "last_frame", "start", "end", "face", "valence", "arousal")


@dataclass(frozen=True)
class Prediction:
    """What the network says of a video's n decoded frames, before frames without a face are seen to.

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


def frame_table(prediction: Prediction, value: NDArray[np.float64], classes: Sequence[str]) -> str:
    """CSV, a row per decoded frame. value: [n, 2 + e], NaN for an empty cell; classes: names of the e emotions."""
    return _table((*COLUMNS, *classes), _frame_rows(prediction, value))


def clip_table(prediction: Prediction, value: NDArray[np.float64], length: int) -> str:
    """CSV, a row per clip of `length` frames: means over its frames, values over those that have some."""
    return _table(CLIP_COLUMNS, _clip_rows(prediction, value, length))


def summary(prediction: Prediction, value: NDArray[np.float64], seen: NDArray[np.bool_]) -> dict[str, Any]:
    """liveliest: the second of greatest arousal. Of a video without a face, what hangs on faces is None."""
    there = np.isfinite(value[:, 0])
    facts: dict[str, Any] = {
        "frames": len(prediction),
        "lost": prediction.lost,
        "seconds": round(float(prediction.time[-1] - prediction.time[0]), 6),
        "face_share": round(float(seen.mean()), 4),
    }
    for column, dimension in enumerate(("valence", "arousal")):
        own = value[there, column]
        for word, of in (("mean", np.mean), ("min", np.min), ("max", np.max)):
            facts[f"{dimension}_{word}"] = round(float(of(own)), 6) if len(own) else None
    facts["liveliest"] = round(float(prediction.time[np.nanargmax(value[:, 1])]), 6) if there.any() else None
    return facts


def _frame_rows(prediction: Prediction, value: NDArray[np.float64]) -> Iterator[Sequence[object]]:
    times = _exact(prediction.time)
    for row, number in enumerate(prediction.index.tolist()):
        affect, emotions = _cells(value[row, :2]), _cells(value[row, 2:])
        box = [f"{edge:.1f}" for edge in prediction.box[row]]
        yield number, times[row], f"{prediction.face[row]:.4f}", *affect, *box, *emotions


def _clip_rows(prediction: Prediction, value: NDArray[np.float64], length: int) -> Iterator[Sequence[object]]:
    """Clips lie end to end; the last one is as long as what is left."""
    times = _exact(prediction.time)
    for clip, start in enumerate(range(0, len(prediction), length)):
        stop = min(start + length, len(prediction))
        rows = value[start:stop, :2]
        rows = rows[np.isfinite(rows).all(1)]
        mean = rows.mean(0) if len(rows) else np.full(2, np.nan)
        ends = prediction.index[start], prediction.index[stop - 1], times[start], times[stop - 1]
        yield clip, *ends, f"{prediction.face[start:stop].mean():.4f}", *_cells(mean)


def _exact(time: NDArray[np.float64]) -> list[str]:
    """Microseconds, unless that would make two frames simultaneous."""
    rounded = [f"{second:.6f}" for second in time]
    return rounded if len(set(rounded)) == len(rounded) else [repr(second) for second in time.tolist()]


def _cells(values: NDArray[np.float64]) -> list[str]:
    return [f"{value:.6f}" if np.isfinite(value) else "" for value in values]


def _table(header: Sequence[str], rows: Iterator[Sequence[object]]) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(header)
    table.writerows(rows)
    return text.getvalue()
