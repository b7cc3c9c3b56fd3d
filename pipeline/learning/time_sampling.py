"""Encodes only some frames of a track and interpolates the outputs of the others.

Where the outputs of two frames differ, the frame between them is encoded too, until the outputs of neighbours are
similar or no frame is left between them. So a cut is found to the frame.
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

FEATURE_CHANGE = 0.7
"""Two frames differ if the distance of their features is larger, relative to their norm."""
FACE_CHANGE = 0.15
"""Two frames differ if their face probabilities differ by more than this."""
FACE = 0.5
"""From this face probability on, a frame shows a face."""
MAYBE_FACE = 0.1
"""A face probability between this and the threshold is uncertain: the face may be found in the frames beside it."""

Outputs = Mapping[str, NDArray[np.floating]]
"""Outputs of n frames, each [n, ...], with at least `feature` [n, f] and `face` [n], a probability."""


class SparseEncoder:
    """Encodes the frames of one track, chunk by chunk.

    threshold: the face probability from which a frame shows a face.
    """

    def __init__(self, threshold: float = FACE) -> None:
        self._threshold = threshold
        self._before: tuple[NDArray[np.float64], Outputs] | None = None

    def push(
        self, time: NDArray[np.float64], due: NDArray[np.bool_], encode: Callable[[NDArray[np.int64]], Outputs]
    ) -> tuple[Outputs, NDArray[np.bool_]]:
        """The outputs of the next n frames, and which of them were encoded, bool [n].

        time: float64 [n], seconds. due: bool [n], frames to encode in any case; the last one is due. encode: returns
        the outputs of the frames at these rows. The outputs of other frames are linear in time between two encoded
        frames, of which the first may be the last one of the chunk before.
        """
        rows = np.flatnonzero(due)
        found, first = encode(rows), 0
        if self._before is not None:
            time, first = np.concatenate((self._before[0], time)), 1
            rows, found = np.concatenate(([0], rows + 1)), _joined(self._before[1], found)
        while len(middle := self._between(rows, found)):
            order = np.argsort(np.concatenate((rows, middle)))
            found = {name: value[order] for name, value in _joined(found, encode(middle - first)).items()}
            rows = np.concatenate((rows, middle))[order]
        self._before = time[-1:], {name: value[-1:] for name, value in found.items()}
        encoded = np.isin(np.arange(len(time)), rows)
        return {name: _interpolate(value, rows, time)[first:] for name, value in found.items()}, encoded[first:]

    def _between(self, rows: NDArray[np.int64], found: Outputs) -> NDArray[np.int64]:
        """The row in the middle of each two encoded rows that differ and are not neighbours."""
        face = found["face"]
        low, high = np.minimum(face[:-1], face[1:]), np.maximum(face[:-1], face[1:])
        seen = high >= self._threshold
        differ = (high - low > FACE_CHANGE) | (seen & (low < self._threshold)) | (~seen & (high > MAYBE_FACE))
        open_ = np.diff(rows) > 1
        compared = np.flatnonzero(open_ & seen & ~differ)
        if len(compared):
            differ[compared] = _distance(found["feature"], compared) > FEATURE_CHANGE
        return ((rows[:-1] + rows[1:]) // 2)[open_ & differ]


def _distance(feature: NDArray[np.floating], rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """The distance of the features of each row from the next row, divided by the mean norm of the two."""
    one, other = feature[rows].astype(np.float32), feature[rows + 1].astype(np.float32)
    norm = np.sqrt(((one**2).sum(1) + (other**2).sum(1)) / 2)
    return np.linalg.norm(one - other, axis=1) / np.maximum(norm, 1e-12)


def _interpolate(value: NDArray[np.floating], rows: NDArray[np.int64], time: NDArray[np.float64]) -> NDArray:
    """The values [k, ...] of the rows [k] at all rows, linear in time. Exact at the given rows."""
    if len(rows) == len(time):
        return value
    after = np.searchsorted(rows, np.arange(len(time)))
    before = np.where(rows[after] == np.arange(len(time)), after, after - 1)
    start = time[rows[before]]
    span = time[rows[after]] - start
    weight = np.divide(time - start, span, out=np.zeros(len(time)), where=span > 0).astype(np.float32)
    weight = weight.reshape(-1, *(1,) * (value.ndim - 1))
    return (value[before] * (1 - weight) + value[after] * weight).astype(value.dtype)


def _joined(one: Outputs, other: Outputs) -> Outputs:
    return {name: np.concatenate((value, other[name])) for name, value in one.items()}
