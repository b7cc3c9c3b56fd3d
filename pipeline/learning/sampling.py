"""Selection of the training windows of an epoch: end to end, or balanced over subjects or the valence-arousal plane.

Starts: int64 [k], the first row of each window of one track.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Starts = NDArray[np.int64]

GRID = 6
"""Cells of the plane in each direction; a cell is a third wide."""


def tile_windows(valid: NDArray[np.bool_], length: int, rng: np.random.Generator) -> Starts:
    """Windows end to end from a random offset, so each row of a track is in about one window. Windows without a valid
    row are left out."""
    n = len(valid)
    phase = int(rng.integers(length))
    starts = np.unique(np.clip(np.arange(phase - length, n, length), 0, max(0, n - length)))
    count = np.concatenate(([0], np.cumsum(valid)))
    return starts[count[np.minimum(starts + length, n)] > count[starts]]


def balance_subjects(valid: Sequence[NDArray[np.bool_]], length: int, rng: np.random.Generator) -> list[Starts]:
    """The same number of windows from each track, plus or minus one. The total is that of end-to-end windows. Short
    tracks repeat with other offsets. Long tracks leave out windows, different ones in each epoch."""
    tiled = [tile_windows(rows, length, rng) for rows in valid]
    usable = np.flatnonzero([len(starts) > 0 for starts in tiled])
    quota = np.zeros(len(tiled), np.int64)
    if len(usable):
        whole, rest = divmod(sum(map(len, tiled)), len(usable))
        quota[usable] = whole
        quota[rng.permutation(usable)[:rest]] += 1
    drawn = []
    for starts, rows, count in zip(tiled, valid, quota.tolist(), strict=True):
        found = rng.permutation(starts)
        while len(found) < count:
            found = np.concatenate((found, rng.permutation(tile_windows(rows, length, rng))))
        drawn.append(found[:count])
    return drawn


def balance_plane(
    valid: Sequence[NDArray[np.bool_]],
    targets: Sequence[NDArray[np.float32]],
    length: int,
    rng: np.random.Generator,
) -> list[Starts]:
    """As many windows as end to end; windows with rare targets [n, 2] are repeated, windows with common targets left
    out.

    The weight of a row is 1 / sqrt(number of rows in its cell of the plane). The weight of a window is the mean over
    its valid rows. Without the square root, the only window of a rare cell would fill the epoch. The windows are drawn
    at equal steps over the cumulative weights, so each count is within one of its expected value.
    """
    tiled = [tile_windows(rows, length, rng) for rows in valid]
    cells = [np.clip(((target + 1) * GRID / 2).astype(np.int64), 0, GRID - 1) @ [GRID, 1] for target in targets]
    kept = [cell[rows] for cell, rows in zip(cells, valid, strict=True)]
    count = np.bincount(np.concatenate([np.empty(0, np.int64), *kept]), minlength=GRID**2)
    weights = [np.empty(0)]
    for starts, cell, rows in zip(tiled, cells, valid, strict=True):
        weight = np.where(rows, 1 / np.sqrt(np.maximum(count[cell], 1)), 0)
        sums, counts = (np.concatenate(([0], np.cumsum(values))) for values in (weight, rows))
        ends = np.minimum(starts + length, len(rows))
        weights.append((sums[ends] - sums[starts]) / np.maximum(counts[ends] - counts[starts], 1))
    owner = np.repeat(np.arange(len(tiled)), [len(starts) for starts in tiled])
    flat = np.concatenate([np.empty(0, np.int64), *tiled])
    order = rng.permutation(len(flat))
    summed = np.cumsum(np.concatenate(weights)[order])
    if not len(summed):
        return tiled
    marks = (np.arange(len(flat)) + rng.random()) / len(flat) * summed[-1]
    drawn = order[np.minimum(np.searchsorted(summed, marks, side="right"), len(flat) - 1)]
    return [flat[drawn[owner[drawn] == track]] for track in range(len(tiled))]
