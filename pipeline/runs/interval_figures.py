"""Coverage and width of intervals on annotated subjects. Needs no torch."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..records import DIMENSIONS


def add_interval_figures(
    figures: dict[str, Any], tracks: Sequence[Any], ends: Sequence[NDArray[np.float64]], level: float
) -> None:
    """Adds coverage_ and width_ of each dimension to the figures of a split and to its `per_subject`, and the level.

    coverage: share of the annotations that lie in the interval. width: mean, between 0 and 2. tracks have `subject`,
    `target` [n, 2] and `valid`. ends: of each track, [n, 2, 2].
    """
    per_subject = figures["per_subject"]
    inside, width = [], []
    for track, own in zip(tracks, ends, strict=True):
        rows = track.valid
        if not rows.any():
            continue
        target = track.target[rows].astype(np.float64)
        inside.append((own[rows, :, 0] <= target) & (target <= own[rows, :, 1]))
        width.append(own[rows, :, 1] - own[rows, :, 0])
        per_subject[track.subject] |= _figures(inside[-1], width[-1])
    figures |= {"level": level, **_figures(np.concatenate(inside), np.concatenate(width))}


def _figures(inside: NDArray[np.bool_], width: NDArray[np.float64]) -> dict[str, float]:
    return {
        f"{name}_{dimension}": float(values[:, column].mean())
        for name, values in (("coverage", inside), ("width", width)) for column, dimension in enumerate(DIMENSIONS)
    }  # fmt: skip
