"""Smoothing of predictions over time: a running median or Gaussian. Its width is chosen on the validation split."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .metrics import pooled

Filter = Literal["none", "median", "gaussian"]

NONE: dict[str, Any] = {"kind": "none", "width": 1}


class Smoother:
    """Smooths a track as a stream: each row becomes the median or the weighted mean of the `width` rows around it. The
    window is shorter at both ends. NaN rows are ignored; if all rows of a window are NaN, the result is NaN.

    width: odd; the deviation of the Gaussian is a quarter of it. `push` takes rows and returns the final rows, in
    order; `finish` returns the rest. A row is final `width // 2` rows later. Memory does not grow, and the result does
    not depend on how the rows are split over calls.
    """

    def __init__(self, kind: Filter, width: int) -> None:
        if kind not in ("none", "median", "gaussian") or width < 1 or width % 2 == 0:
            raise ValueError(
                f"smoothing is {kind!r} with width {width}, expected none, median or gaussian with an odd width"
            )
        self._kind, self._half = kind, 0 if kind == "none" else width // 2
        offsets = np.arange(-self._half, self._half + 1)
        self._weights = np.exp(-0.5 * (offsets / max(width / 4, 1e-9)) ** 2)
        self._rows: NDArray[np.float64] | None = None  # starts half a window before the first row not yet returned

    def push(self, rows: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """rows: [k, d], the next rows. Returns float32 [m, d], the rows that are now final."""
        rows = np.asarray(rows, np.float64)
        if self._rows is None:  # no rows before the start
            self._rows = np.full((self._half, rows.shape[1]), np.nan)
        known = np.concatenate((self._rows, rows))
        final = max(0, len(known) - 2 * self._half)
        self._rows = known[final:]
        if not final or not self._half:
            return known[:final].astype(np.float32)
        windows = np.lib.stride_tricks.sliding_window_view(known, 2 * self._half + 1, axis=0)  # [final, d, width]
        smoothed = _median(windows) if self._kind == "median" else _weighted(windows, self._weights)
        return smoothed.astype(np.float32)

    def finish(self) -> NDArray[np.float32]:
        """Ends the track. Returns float32 [m, d], the rows not returned before."""
        if self._rows is None:
            return np.empty((0, 2), np.float32)
        return self.push(np.full((self._half, self._rows.shape[1]), np.nan))


def smooth(values: NDArray[np.floating[Any]], kind: Filter, width: int) -> NDArray[np.float32]:
    """Smooths a whole track [n, d]. Returns float32 [n, d]. NaN is ignored."""
    smoother = Smoother(kind, width)
    return np.concatenate((smoother.push(values), smoother.finish()))


def choose_smoothing(
    values: Sequence[NDArray[np.float32]], tracks: Sequence[Any], kind: Filter | Literal["auto"], widths: Sequence[int]
) -> dict[str, Any]:
    """The filter with the best mean CCC over all valid frames: {kind, width, ccc_valence, ccc_arousal, ccc_mean,
    ccc_mean_before}; the last is without a filter. kind is none if no filter improves the CCC.

    values: of each track, [n, 2]; tracks have `target` and `valid`. kind: `auto` tries both filters.
    """
    target = np.concatenate([track.target for track in tracks])
    valid = np.concatenate([track.valid for track in tracks])

    def score(filtered: Sequence[NDArray[np.float32]]) -> dict[str, float]:
        figures = pooled(np.concatenate(filtered), target, valid)
        return {name: figures[name] for name in ("ccc_valence", "ccc_arousal", "ccc_mean")}

    before = score(values)
    best: dict[str, Any] = {**NONE, **before}
    names: tuple[Filter, ...] = ("median", "gaussian") if kind == "auto" else (kind,)
    for name in names:
        for width in sorted(widths) if name != "none" else ():
            found = score([smooth(value, name, width) for value in values])
            if found["ccc_mean"] > best["ccc_mean"]:
                best = {"kind": name, "width": width, **found}
    return {**best, "ccc_mean_before": before["ccc_mean"]}


def _median(windows: NDArray[np.float64]) -> NDArray[np.float64]:
    middle = np.full(windows.shape[:2], np.nan)
    whole = np.isfinite(windows).all(2)
    middle[whole] = np.median(windows[whole], axis=1)
    partial = np.isfinite(windows).any(2) & ~whole
    if partial.any():
        middle[partial] = np.nanmedian(windows[partial], axis=1)
    return middle


def _weighted(windows: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Adds the rows of the window one by one, so that the rounding does not depend on the number of windows."""
    total, weight = np.zeros(windows.shape[:2]), np.zeros(windows.shape[:2])
    for row, row_weight in enumerate(weights):
        known = np.isfinite(windows[..., row])
        total += np.where(known, row_weight * windows[..., row], 0.0)
        weight += row_weight * known
    return np.divide(total, weight, out=np.full(total.shape, np.nan), where=weight > 0)
