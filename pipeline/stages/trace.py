"""Trace: one person in one video, a row per decoded frame. It is what `model.predict` gives and what files hold."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...configs.schema import Config
from ..errors import InputError
from .prediction import Prediction, fill

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame


@dataclass(frozen=True)
class Moment:
    """One person in one frame, as `model.stream` gives it.

    frame: from 0. time: seconds. face: probability; seen: whether it reaches `predict.face_threshold`. valence,
    arousal: in [-1, 1], NaN where there is none. box: x0 y0 x1 y1 in pixels of the source. late: frames that were
    passed over before this one, as they came faster than they could be looked at.
    """

    frame: int
    time: float
    face: float
    seen: bool
    valence: float
    arousal: float
    box: tuple[float, float, float, float]
    late: int = 0


@dataclass(frozen=True, eq=False)
class Trace:
    """Valence and arousal of one person over a video's n decoded frames.

    name: of the video. source: its path. frame: int64 [n], from 0; frames that cannot be decoded have no row. time:
    float64 [n], presentation timestamps in seconds. face: float32 [n], the probability of a face. seen: bool [n],
    whether that reaches `predict.face_threshold`. valence, arousal: float64 [n] in [-1, 1]; frames without a face
    follow `predict.no_face`, NaN where there is no value. box: float32 [n, 4], where the STN looked, x0 y0 x1 y1 in
    pixels. emotions: float64 [n] of each expression, where they were asked for. person: 0, 1, … from left to right,
    where several were asked for, else None. clip: frames in a clip. lost: how many frames could not be decoded.
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

    def __len__(self) -> int:
        return len(self.frame)

    def __repr__(self) -> str:
        who = "" if self.person is None else f", person {self.person}"
        return f"<affect.Trace {self.name!r}{who}: {len(self)} frames, {self.time[-1] - self.time[0]:.1f} s>"

    @property
    def value(self) -> NDArray[np.float64]:
        """float64 [n, 2]: valence, arousal."""
        return np.stack((self.valence, self.arousal), 1)

    def summary(self) -> dict[str, Any]:
        """frames, lost, seconds, face_share; mean, min and max of both values; liveliest: the second of greatest
        arousal. Of a video without a face, what hangs on faces is None."""
        facts: dict[str, Any] = {
            "frames": len(self),
            "lost": self.lost,
            "seconds": round(float(self.time[-1] - self.time[0]), 6),
            "face_share": round(float(self.seen.mean()), 4),
        }
        for dimension, values in (("valence", self.valence), ("arousal", self.arousal)):
            own = values[np.isfinite(values)]
            for word, of in (("mean", np.mean), ("min", np.min), ("max", np.max)):
                facts[f"{dimension}_{word}"] = round(float(of(own)), 6) if len(own) else None
        known = np.isfinite(self.arousal)
        facts["liveliest"] = round(float(self.time[np.nanargmax(self.arousal)]), 6) if known.any() else None
        return facts

    def to_dataframe(self) -> "DataFrame":
        """A row per frame, with the columns of the CSV. Needs pandas: `pip install 'affect[dataframe]'`."""
        try:
            from pandas import DataFrame
        except ImportError as error:
            raise InputError("to_dataframe needs pandas", "Install it: pip install 'affect[dataframe]'.") from error
        from .tables import frame_columns

        return DataFrame({name: column.values for name, column in frame_columns([self]).items()})

    def save(self, path: "str | Path") -> Path:
        """Writes the rows as .csv, .json or .parquet, or the plot as .png, by the suffix. InputError, WorkError."""
        from .tables import FORMATS, frame_file

        path = Path(path)
        suffix = path.suffix.lower().removeprefix(".")
        if suffix == "png":
            self.plot(path)
        elif suffix in FORMATS:
            frame_file(path, [self], suffix)
        else:
            allowed = ", ".join(f".{name}" for name in (*FORMATS, "png"))
            raise InputError(f"{path}: cannot be saved as {path.suffix or 'that'}", f"Allowed: {allowed}.")
        return path

    def plot(self, path: "str | Path | None" = None) -> "Figure":
        """Both traces over time, the way through the plane, and the frames of the peaks while the video is there; also
        as PNG, where a path is given."""
        from .trace_plot import draw_traces

        return draw_traces([self], Path(path) if path else None)

    def _repr_html_(self) -> str:
        from .trace_plot import embedded

        words = html.escape("\n".join(in_words([self])))
        return f'<pre>{words}</pre><img style="max-width:100%" alt="{words}" src="{embedded([self])}">'


def make_trace(
    prediction: Prediction, config: Config, source: Path, *, name: str = "", classes: Sequence[str] = (),
    person: int | None = None, clip: int = 32,
) -> Trace:  # fmt: skip
    """The trace of a prediction: `predict.face_threshold` says which frames have a face, `predict.no_face` what the
    others get. classes: names of the emotions in prediction.value, none where it has none."""
    seen = prediction.face >= config.predict.face_threshold
    value = fill(prediction.value, seen, prediction.time, config.predict.no_face)
    return Trace(
        name or source.stem, source, prediction.index, prediction.time, prediction.face, seen, value[:, 0], value[:, 1],
        prediction.box, dict(zip(classes, value[:, 2:].T, strict=True)), person, clip, prediction.lost,
    )  # fmt: skip


def in_words(traces: Sequence[Trace]) -> list[str]:
    """A summary for people to read, line by line; `traces` are those of one video."""
    lines = []
    for trace in traces:
        facts = trace.summary()
        who = trace.name if trace.person is None else f"{trace.name}, person {trace.person}"
        share = f"a face in {_percent(facts['face_share'])} of them" if facts["face_share"] else "no face in any"
        lines.append(f"{who}: {facts['frames']:,} frames in {facts['seconds']:.1f} s, {share}")
        if facts["liveliest"] is None:
            continue
        for dimension in ("valence", "arousal"):
            mean, low, high = (_signed(facts[f"{dimension}_{word}"]) for word in ("mean", "min", "max"))
            at = f"; liveliest at {moment(facts['liveliest'])}" if dimension == "arousal" else ""
            lines.append(f"  {dimension}  mean {mean}, from {low} to {high}{at}")
    return lines


def moment(seconds: float) -> str:
    """4.2 s, or 3:07 of what is longer than a minute."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    hours = f"{whole // 3600}:" if whole >= 3600 else ""
    return f"{hours}{whole // 60 % 60:0{2 if hours else 1}d}:{whole % 60:02d}"


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def _percent(share: float) -> str:
    """Never 100% of what is not all, nor 0% of what is something."""
    return f"{min(max(share, 0.01), 0.99) if share < 1 else 1:.0%}"
