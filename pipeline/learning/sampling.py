"""Which training windows an epoch has: end to end, or evened out over subjects or over the valence-arousal plane.

Starts: int64 [k], the first row of each window of one track.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Starts = NDArray[np.int64]

CELLS = 6
"""Cells of the plane each way, a third wide."""


def lay_windows(valid: NDArray[np.bool_], length: int, rng: np.random.Generator) -> Starts:
    """Windows end to end from a random offset, so each row of a track comes about once; those without a valid row are
    left out."""
    n = len(valid)
    phase = int(rng.integers(length))
    starts = np.unique(np.clip(np.arange(phase - length, n, length), 0, max(0, n - length)))
    count = np.concatenate(([0], np.cumsum(valid)))
    return starts[count[np.minimum(starts + length, n)] > count[starts]]


def even_subjects(valid: Sequence[NDArray[np.bool_]], length: int, rng: np.random.Generator) -> list[Starts]:
    """As many windows of each track, one more or less, and as many in all as lie end to end. Those of a short track
    come again at other offsets; of a long one some are left out, others in each epoch."""
    laid = [lay_windows(rows, length, rng) for rows in valid]
    there = np.flatnonzero([len(starts) > 0 for starts in laid])
    quota = np.zeros(len(laid), np.int64)
    if len(there):
        whole, rest = divmod(sum(map(len, laid)), len(there))
        quota[there] = whole
        quota[rng.permutation(there)[:rest]] += 1
    drawn = []
    for starts, rows, wanted in zip(laid, valid, quota.tolist(), strict=True):
        found = rng.permutation(starts)
        while len(found) < wanted:
            found = np.concatenate((found, rng.permutation(lay_windows(rows, length, rng))))
        drawn.append(found[:wanted])
    return drawn


def even_plane(
    valid: Sequence[NDArray[np.bool_]],
    targets: Sequence[NDArray[np.float32]],
    length: int,
    rng: np.random.Generator,
) -> list[Starts]:
    """As many windows as lie end to end, the more of one the rarer its targets [n, 2] are.

    A row weighs one over the square root of how many rows share its cell of the plane, a window the mean of its valid
    rows. The root: without it the one window of a rare cell would fill the epoch. Drawn at even steps over the summed
    weights, so a window comes at most once more or less often than it should.
    """
    laid = [lay_windows(rows, length, rng) for rows in valid]
    cells = [np.clip(((target + 1) * CELLS / 2).astype(np.int64), 0, CELLS - 1) @ [CELLS, 1] for target in targets]
    kept = [cell[rows] for cell, rows in zip(cells, valid, strict=True)]
    count = np.bincount(np.concatenate([np.empty(0, np.int64), *kept]), minlength=CELLS**2)
    weights = [np.empty(0)]
    for starts, cell, rows in zip(laid, cells, valid, strict=True):
        weight = np.where(rows, 1 / np.sqrt(np.maximum(count[cell], 1)), 0)
        sums, counts = (np.concatenate(([0], np.cumsum(it))) for it in (weight, rows))
        ends = np.minimum(starts + length, len(rows))
        weights.append((sums[ends] - sums[starts]) / np.maximum(counts[ends] - counts[starts], 1))
    owner = np.repeat(np.arange(len(laid)), [len(starts) for starts in laid])
    flat = np.concatenate([np.empty(0, np.int64), *laid])
    order = rng.permutation(len(flat))
    summed = np.cumsum(np.concatenate(weights)[order])
    if not len(summed):
        return laid
    marks = (np.arange(len(flat)) + rng.random()) / len(flat) * summed[-1]
    drawn = order[np.minimum(np.searchsorted(summed, marks, side="right"), len(flat) - 1)]
    return [flat[drawn[owner[drawn] == track]] for track in range(len(laid))]
