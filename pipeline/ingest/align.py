"""Pairs labels with frames. No file access."""

import numpy as np

from ..errors import AlignmentError
from ..records import Aligned, Labels

TOLERANCE = 3
"""Largest difference between rows and frames. In Aff-Wild2, matching files differ by at most this many."""


def align(labels: Labels, frames: int, *, lost: frozenset[int] = frozenset(), tolerance: int = TOLERANCE) -> Aligned:
    """Gives each decoded frame its label: row i belongs to frame i, both counted from 0.

    frames: length of the video, including lost frames. lost: numbers of frames that could not be decoded. They are not
    in the result; later frames keep their numbers. Frames after the last row are in the result, but not valid. Rows
    after the last frame are dropped. Raises AlignmentError if rows and frames differ by more than `tolerance`.
    """
    if frames < 0 or any(not 0 <= number < frames for number in lost):
        raise ValueError(f"lost frames {sorted(lost)[:5]} are not in a video of {frames} frames")
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
    """Returns rows minus frames. Raises AlignmentError if they differ by more than `tolerance`."""
    difference = rows - frames
    if abs(difference) > tolerance:
        raise AlignmentError(
            f"{rows} rows for {frames} frames ({difference:+d}), expected a difference of at most {tolerance}",
            "Check that annotation and video are from the same release and that the video is complete.",
        )
    return difference
