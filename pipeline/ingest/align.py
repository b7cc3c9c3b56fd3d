"""Pairs labels with frames. Pure: no files, no video."""

import numpy as np

from ..errors import AlignmentError
from ..records import Aligned, Labels

TOLERANCE = 3
"""Rows and frames of the real set differ by this at most, either way, where the two do belong together."""


def align(labels: Labels, frames: int, *, lost: frozenset[int] = frozenset(), tolerance: int = TOLERANCE) -> Aligned:
    """Gives each decoded frame its label: row i of the labels (from 0) belongs to frame i, always.

    frames: how many the video has, the lost ones counted. lost: numbers of those that could not be decoded; they are
    absent from the result, and what follows them keeps its number. A frame beyond the last row is there and not
    valid; a row beyond the last frame is left out. Raises AlignmentError where rows and frames differ by more than
    `tolerance`.
    """
    if frames < 0 or any(not 0 <= number < frames for number in lost):
        raise ValueError(f"lost frames {sorted(lost)[:5]} do not lie in a video of {frames} frames")
    difference = check(len(labels), frames, tolerance=tolerance)
    kept = np.ones(frames, dtype=np.bool_)
    kept[list(lost)] = False
    index = np.flatnonzero(kept).astype(np.int64)
    labelled = index[index < len(labels)]
    target = np.zeros((len(index), 2), dtype=np.float32)
    valid = np.zeros(len(index), dtype=np.bool_)
    target[: len(labelled)] = labels.value[labelled]
    valid[: len(labelled)] = labels.valid[labelled]
    return Aligned(index=index, target=target, valid=valid, difference=difference)


def check(rows: int, frames: int, *, tolerance: int = TOLERANCE) -> int:
    """Rows minus frames, if at most `tolerance` either way. Raises AlignmentError."""
    difference = rows - frames
    if abs(difference) > tolerance:
        raise AlignmentError(
            f"{rows} rows for {frames} frames ({difference:+d}), expected at most {tolerance} either way",
            "Check that annotation and video are of the same release, and the video is whole.",
        )
    return difference
