"""What the width of an interval depends on: covariates that the prediction of a frame gives at no cost."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...configs.schema import Config
from ..learning.calibration import VERSION, Calibration
from ..learning.model_file import model_path, read_calibration
from ..progress import Reporter
from ..storage.checkpoint import read_metadata

if TYPE_CHECKING:
    from torch import Tensor

    from ...models.head import TemporalHead

COVARIATES: dict[str, int] = {
    "face": -1,
    "size": -1,
    "doubt": 1,
    "deviation": 1,
    "unsteady": 1,
    "absent": 1,
    "valence": 0,
    "arousal": 0,
    "change": 1,
}
"""Name: 1 if the width may only rise with it, -1 if it may only fall, 0 for both. face: log-odds of a face. size: log
of the height of the face in pixels, at most that of the crop. doubt: entropy of the expressions. deviation: log of the
distance of the features from their mean over the training set. unsteady: how much the deviation differs from frame to
frame. absent: log of the time since the last frame with a face. valence, arousal: distance of the prediction from 0.
change: change of the prediction within half a second."""
MODES = ("offline", "stream", "picture")
"""The ways to run a model. Each has intervals of its own."""
MEMORY = 0.4
"""Seconds: covariates of a frame are averaged over about this time on both sides, in a stream over the time before."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """What is known about n frames of one person.

    time: float64 [n], seconds. face: float [n], probability of a face. seen: bool [n]. height: float [n], of the face
    box in pixels of the crop or of the frame, whichever has fewer. doubt: float [n], entropy of the expressions divided
    by its maximum. deviation: float [n], root mean square of the standardised features; of several models [n, models].
    """

    time: NDArray[np.float64]
    face: NDArray[np.floating[Any]]
    seen: NDArray[np.bool_]
    height: NDArray[np.floating[Any]]
    doubt: NDArray[np.floating[Any]]
    deviation: NDArray[np.floating[Any]]


def deviation_of(head: "TemporalHead", feature: "Tensor") -> "Tensor":
    """Root mean square [n] of the features [n, 2048], standardised with the statistics of the training set that the
    head stores."""
    return ((feature.float() - head.mean) / head.spread).square().mean(1).sqrt()


def entropy(probability: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Entropy of the classes of each row [n, c], in [0, 1]."""
    p = np.clip(probability.astype(np.float64), 1e-12, 1)
    return -(p * np.log(p)).sum(1) / np.log(max(2, p.shape[1]))


def covariates(evidence: Evidence, value: NDArray[np.floating[Any]], *, causal: bool) -> NDArray[np.float64]:
    """The columns of COVARIATES, float64 [n, c]. value: [n, 2], the prediction. causal: only earlier frames count."""
    p = np.clip(evidence.face.astype(np.float64), 1e-4, 1 - 1e-4)
    face = np.log(p / (1 - p))
    size = np.log(np.maximum(evidence.height.astype(np.float64), 4.0))
    deviation = np.log(np.maximum(evidence.deviation.astype(np.float64), 1e-3))
    jumps = np.abs(np.diff(deviation, prepend=deviation[:1]))
    raw = np.stack((face, size, evidence.doubt, deviation, jumps), 1)
    mean = smoothed(raw, evidence.time, causal=causal)
    absent = np.log1p(absence(evidence.time, evidence.seen, causal=causal) / 0.2)
    finite = np.nan_to_num(value.astype(np.float64))
    speed = rate_of_change(finite, evidence.time, causal=causal)
    return np.column_stack((mean, absent, np.abs(finite), speed))


def absence(time: NDArray[np.float64], seen: NDArray[np.bool_], *, causal: bool) -> NDArray[np.float64]:
    """Seconds to the nearest frame with a face [n], or since the last one. Without any: the whole time."""
    rows = np.flatnonzero(seen)
    if not len(rows):
        return np.full(len(time), float(time[-1] - time[0]) if len(time) else 0.0) + 1.0
    at = np.searchsorted(rows, np.arange(len(time)), side="right")
    before = time - time[rows[np.maximum(at - 1, 0)]]
    after = time[rows[np.minimum(at, len(rows) - 1)]] - time
    before, after = np.where(at > 0, before, np.inf), np.where((at < len(rows)) & ~seen, after, np.inf)
    if causal:
        return np.where(np.isfinite(before), before, time - time[0] + 1.0)
    return np.minimum(before, after)


def smoothed(values: NDArray[Any], time: NDArray[np.float64], *, causal: bool) -> NDArray[np.float64]:
    """Mean of the rows [n, c] within MEMORY seconds."""
    rows = np.arange(len(time))
    first = np.minimum(np.searchsorted(time, time - MEMORY - 1e-9), rows)
    end = rows + 1 if causal else np.maximum(np.searchsorted(time, time + MEMORY + 1e-9), rows + 1)
    total = np.concatenate((np.zeros((1, values.shape[1])), np.cumsum(values, 0)))
    return (total[end] - total[first]) / (end - first)[:, None]


def rate_of_change(values: NDArray[np.float64], time: NDArray[np.float64], *, causal: bool) -> NDArray[np.float64]:
    """Root of the summed variances of the values [n, d] within MEMORY seconds."""
    mean, square = (smoothed(it, time, causal=causal) for it in (values, values**2))
    return np.sqrt((square - mean**2).clip(min=0).sum(1))


@dataclass(frozen=True)
class Intervals:
    """The intervals of a model, or of several models whose values are averaged.

    calibrations: of each model, by the way to run it. level: `predict.level`. size: side of the frames that the models
    take. crop: side of the crops.
    """

    calibrations: tuple[Mapping[str, Calibration], ...]
    level: float
    size: int
    crop: int

    def traits(
        self,
        box: NDArray[np.float32],
        emotion: NDArray[np.float32],
        deviation: NDArray[np.float32],
        height: int | NDArray[np.int64],
    ) -> NDArray[np.float64]:
        """Height of the face in pixels, entropy of the expressions, and deviation for each model: [n, 2 + models].

        box: [n, 4] in pixels of the source. emotion: [n, e]. height: of the video, or of each picture.
        """
        pixels = (box[:, 3] - box[:, 1]) * np.minimum(1.0, self.size / np.maximum(height, 1))
        return np.column_stack((np.minimum(pixels, self.crop), entropy(emotion), deviation)).astype(np.float64)

    def bounds(self, mode: str, evidence: Evidence, value: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """The ends of the intervals, float64 [n, 2, 2]: low and high of valence, then of arousal, in [-1, 1].

        mode: `offline`, `stream` or `picture`. value: [n, 2], the mean of the models; where it is NaN, the ends are
        NaN. evidence.deviation: [n, models]. Of several models, it is the mean of their widths.
        """
        half = np.zeros((len(value), 2))
        if mode == "picture":  # no picture is near another
            evidence = replace(evidence, time=np.arange(len(value)) * 1e6)
        for number, modes in enumerate(self.calibrations):
            own = replace(evidence, deviation=evidence.deviation[:, number])
            half += modes[mode].half_width(covariates(own, value, causal=mode != "offline"), self.level)
        middle, half = value.astype(np.float64), half / len(self.calibrations)
        return np.stack((middle - half, middle + half), 2).clip(-1, 1)


def interval_settings(models: Sequence[Path], config: Config, reporter: Reporter) -> dict[str, Any]:
    """The settings and files that the intervals of these models depend on, for fingerprints; empty without intervals.

    Says so if the models were calibrated on too few people for the level. Does not import torch. Raises WeightsError.
    """
    facts = [read_metadata(model_path(path)).get("calibration") for path in models]
    known = [it for it in facts if it and it.get("version") == VERSION and it["modes"]]
    if len(known) < len(facts):
        return {}
    level, people = config.predict.level, min(it["modes"]["offline"]["people"] for it in known)
    if level > people / (people + 1):
        needed, highest = math.ceil(level / (1 - level) - 1e-9), math.floor(100 * people / (people + 1)) / 100
        reporter.info(
            f"predict.level {level:g} needs intervals calibrated on at least {needed} people, and the model has "
            f"{people}: all intervals are -1 to 1. The highest level is {highest:g}"
        )
    return {"level": level, "calibration": [it["digest"] for it in known]}


def load_intervals(models: Sequence[Path], config: Config, size: int) -> Intervals | None:
    """The intervals of these models; None unless all of them are calibrated. Raises WeightsError."""
    calibrations = tuple(read_calibration(path) for path in models)
    if not all(set(MODES) <= set(modes) for modes in calibrations):
        return None
    return Intervals(calibrations, config.predict.level, size, config.stn.crop)


def evidence_of(
    time: NDArray[np.float64], face: NDArray[np.float32], seen: NDArray[np.bool_], traits: NDArray[np.float64]
) -> Evidence:
    """The evidence of n frames. traits: see Intervals.traits."""
    return Evidence(time, face, seen, traits[:, 0], traits[:, 1], traits[:, 2:])


class StreamIntervals:
    """The intervals of a stream, frame by frame, in constant memory: from the first model, as the values are."""

    def __init__(self, intervals: Intervals) -> None:
        self._intervals = replace(intervals, calibrations=intervals.calibrations[:1])
        self._rows: list[tuple[Evidence, NDArray[np.float64]]] = []

    def bounds(self, evidence: Evidence, value: NDArray[np.float64]) -> NDArray[np.float64]:
        """The ends of the next frame, float64 [2, 2]. evidence: of one frame. value: [2]."""
        self._rows.append((evidence, value))
        oldest = evidence.time[0] - MEMORY
        seen = max((row for row, (it, _) in enumerate(self._rows) if it.seen[0]), default=-1)  # may be long ago
        recent = [it for row, it in enumerate(self._rows) if it[0].time[0] >= oldest or row == seen]
        self._rows = recent
        names = vars(evidence)
        joined = Evidence(**{name: np.concatenate([getattr(it, name) for it, _ in recent]) for name in names})
        return self._intervals.bounds("stream", joined, np.stack([it for _, it in recent]))[-1]
