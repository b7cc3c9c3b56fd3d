"""TraceData: the values of one person in one video, a row per decoded frame. Tables, plots and overlays show it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...configs.schema import Config
from ..learning.reference import Reference, Unlike
from ..records import DIMENSIONS
from .intervals import Intervals
from .prediction import Prediction, fill
from .unlike import judge


@dataclass(frozen=True)
class Moment:
    """One person in one frame, as yielded by `model.stream`.

    frame: frame number, from 0. time: seconds. face: probability of a face. seen: whether `face` reaches
    `predict.face_threshold`. valence, arousal: in [-1, 1], or NaN without a value. box: x0 y0 x1 y1 in pixels of the
    source. late: number of frames dropped before this one, because they arrived faster than they could be processed.
    valence_low, valence_high, arousal_low, arousal_high: ends of the intervals in [-1, 1]; NaN without one. distance:
    from the training data, see Trace; NaN if the model has no reference.
    """

    frame: int
    time: float
    face: float
    seen: bool
    valence: float
    arousal: float
    box: tuple[float, float, float, float]
    late: int = 0
    valence_low: float = math.nan
    valence_high: float = math.nan
    arousal_low: float = math.nan
    arousal_high: float = math.nan
    distance: float = math.nan


@dataclass(frozen=True, eq=False)
class TraceData:
    """Valence and arousal of one person over the n decoded frames of a video.

    name: name of the video. source: path of the video. frame: int64 [n], frame numbers from 0; frames that could not be
    decoded have no row. time: float64 [n], presentation timestamps in seconds. face: float32 [n], probability of a
    face. seen: bool [n], whether `face` reaches `predict.face_threshold`. valence, arousal: float64 [n] in [-1, 1];
    frames without a face follow `predict.no_face`, NaN means no value. box: float32 [n, 4], the face box of the STN,
    x0 y0 x1 y1 in pixels. emotions: float64 [n] per expression, if requested. person: 0, 1, … from left to right if
    several people were requested, else None. clip: frames in a clip. lost: number of frames that could not be decoded.
    interval: float64 [n, 2, 2], low and high end of valence, then of arousal, in [-1, 1], NaN without a value; None if
    the model has no intervals. level: share of frames whose annotation should lie in the interval.
    distance: float32 [n], of the face in each frame from the faces of the training split: 0 is the median of held-out
    training people, 1 their 99th percentile; None if the model has no reference. unlike: the distance of the whole
    video, its percentile among held-out people, and whether it is beyond the training data; None without a reference or
    without a face.
    sampled: bool [n], with `predict.fps` whether the networks have seen the frame; the values of the other frames are
    interpolated. None without `predict.fps`.
    """

    name: str
    source: Path
    frame: NDArray[np.int64]
    time: NDArray[np.float64]
    face: NDArray[np.float32]
    seen: NDArray[np.bool_]
    valence: NDArray[np.float64]
    arousal: NDArray[np.float64]
    box: NDArray[np.float32]
    emotions: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    person: int | None = None
    clip: int = 32
    lost: int = 0
    interval: NDArray[np.float64] | None = None
    level: float | None = None
    distance: NDArray[np.float32] | None = None
    unlike: Unlike | None = None
    sampled: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.frame)

    def __repr__(self) -> str:
        person = "" if self.person is None else f", person {self.person}"
        return f"<affect.Trace {self.name!r}{person}: {len(self)} frames, {self.time[-1] - self.time[0]:.1f} s>"

    @property
    def valence_low(self) -> NDArray[np.float64]:
        """float64 [n], lower end of the interval of valence; NaN without one."""
        return self._end(0, 0)

    @property
    def valence_high(self) -> NDArray[np.float64]:
        """float64 [n], upper end of the interval of valence; NaN without one."""
        return self._end(0, 1)

    @property
    def arousal_low(self) -> NDArray[np.float64]:
        """float64 [n], lower end of the interval of arousal; NaN without one."""
        return self._end(1, 0)

    @property
    def arousal_high(self) -> NDArray[np.float64]:
        """float64 [n], upper end of the interval of arousal; NaN without one."""
        return self._end(1, 1)

    def _end(self, dimension: int, side: int) -> NDArray[np.float64]:
        return np.full(len(self), np.nan) if self.interval is None else self.interval[:, dimension, side]

    @property
    def value(self) -> NDArray[np.float64]:
        """float64 [n, 2]: valence, arousal."""
        return np.stack((self.valence, self.arousal), 1)

    def summary(self) -> dict[str, Any]:
        """frames, lost, seconds, face_share; mean, min and max of valence and arousal; liveliest: the time of the
        highest arousal, in seconds. Facts about values are None if there are no values. With intervals also level, and
        the mean width of the intervals of valence and arousal. With a reference and a face also training_distance,
        training_percentile and beyond_training, see Unlike. With
        `predict.fps` also sampled, the number of frames that the networks have seen."""
        facts: dict[str, Any] = {
            "frames": len(self),
            "lost": self.lost,
            "seconds": round(float(self.time[-1] - self.time[0]), 6),
            "face_share": round(float(self.seen.mean()), 4),
        }
        for dimension, values in (("valence", self.valence), ("arousal", self.arousal)):
            finite = values[np.isfinite(values)]
            for statistic, compute in (("mean", np.mean), ("min", np.min), ("max", np.max)):
                facts[f"{dimension}_{statistic}"] = round(float(compute(finite)), 6) if len(finite) else None
        if self.sampled is not None:
            facts["sampled"] = int(self.sampled.sum())
        known = np.isfinite(self.arousal)
        facts["liveliest"] = round(float(self.time[np.nanargmax(self.arousal)]), 6) if known.any() else None
        if self.interval is not None:
            facts["level"] = self.level
            for column, dimension in enumerate(DIMENSIONS):
                width = np.ptp(self.interval[known, column], axis=1)
                facts[f"{dimension}_width"] = round(float(width.mean()), 6) if len(width) else None
        if self.unlike is not None:
            facts |= self.unlike.facts()
        return facts


class Certainty(NamedTuple):
    """What a model has to tell how certain its values are: calibrated intervals, and a reference of its training
    faces."""

    intervals: Intervals | None = None
    reference: Reference | None = None


UNKNOWN = Certainty()


def make_trace(
    prediction: Prediction, config: Config, source: Path, *, name: str = "", classes: Sequence[str] = (),
    person: int | None = None, clip: int = 32, certainty: Certainty = UNKNOWN,
) -> TraceData:  # fmt: skip
    """Applies `predict.face_threshold` and `predict.no_face` to a prediction.

    classes: names of the emotions in prediction.value, empty if it has none. certainty: of the model.
    """
    intervals, reference = certainty
    seen = prediction.face >= config.predict.face_threshold
    value = fill(prediction.value, seen, prediction.time, config.predict.no_face)
    bounds = None
    if intervals is not None and prediction.evidence is not None:
        bounds = intervals.bounds("offline", prediction.evidence, value[:, :2])
    return TraceData(
        name or source.stem, source, prediction.index, prediction.time, prediction.face, seen, value[:, 0], value[:, 1],
        prediction.box, dict(zip(classes, value[:, 2:].T, strict=True)), person, clip, prediction.lost,
        bounds, None if bounds is None or intervals is None else intervals.level,
        prediction.distance, None if prediction.distance is None else judge(reference, prediction.distance, seen),
        prediction.sampled,
    )  # fmt: skip


def summary_lines(traces: Sequence[TraceData]) -> list[str]:
    """The lines of a summary for the terminal. traces: the people of one video."""
    lines = []
    for trace in traces:
        facts = trace.summary()
        title = trace.name if trace.person is None else f"{trace.name}, person {trace.person}"
        share = f"a face in {_percent(facts['face_share'])} of them" if facts["face_share"] else "no face in any"
        sampled = f" ({facts['sampled']:,} of them sampled)" if "sampled" in facts else ""
        lines.append(f"{title}: {facts['frames']:,} frames{sampled} in {facts['seconds']:.1f} s, {share}")
        if facts["liveliest"] is None:
            continue
        for dimension in ("valence", "arousal"):
            mean, low, high = (signed(facts[f"{dimension}_{name}"]) for name in ("mean", "min", "max"))
            at = f"; highest at {moment(facts['liveliest'])}" if dimension == "arousal" else ""
            lines.append(f"  {dimension}  mean {mean}, from {low} to {high}{at}")
    return lines


def moment(seconds: float) -> str:
    """A time as text: `4.2 s`, or from one minute on `3:07` or `1:03:07`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    hours = f"{whole // 3600}:" if whole >= 3600 else ""
    return f"{hours}{whole // 60 % 60:0{2 if hours else 1}d}:{whole % 60:02d}"


def signed(value: float) -> str:
    """A value with its sign and two decimals."""
    return f"{value:+.2f}".replace("-", "−")


def _percent(share: float) -> str:
    """A share above 0 as a percentage. Only a share of 1 gives 100%, and the smallest result is 1%."""
    return f"{min(max(share, 0.01), 0.99) if share < 1 else 1:.0%}"
