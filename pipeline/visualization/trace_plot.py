"""The plot of one video: both values over time, their path on the plane, and frames at the peaks."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..inference.trace import TraceData, moment
from ..records import DIMENSIONS, shape
from .style import (  # fmt: skip
    LIGHT,
    PEOPLE_ON_PAPER,
    Theme,
    clock,
    drawing,
    heading,
    mark_absent,
    plane,
    save,
    shorten,
    smooth,
    write,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_PEAKS = 5
THUMBNAIL_SCALE = 2.4
"""Height of a thumbnail, in heights of the face box."""
MIN_DISTANCE = 0.06
"""Between two peaks, as a share of the video."""
MANY_ROWS = 1500
"""With more frames than this, there are more frames than pixels."""
HATCHES = {"valence": "", "arousal": "////"}
"""Of the bands, so that they differ in print and for colour-blind readers."""
THUMBNAIL_ASPECT = 4 / 3
"""Width of a thumbnail by its height."""


@dataclass(frozen=True)
class Peak:
    """A moment with a thumbnail. row: in the trace. colour: of the person or of the dimension."""

    trace: TraceData
    row: int
    words: str
    colour: str
    value: float


def draw_traces(traces: Sequence[TraceData], path: Path | io.BytesIO | None = None) -> "Figure":
    """Draws the figure, and saves it as PNG if there is a path. traces: one per person, all of one video.

    Raises WorkError.
    """
    theme = LIGHT
    shown = [(peak, picture) for peak in find_peaks(traces) if (picture := _thumbnail(peak)) is not None]
    several = len(traces) > 1
    rows = [2.5] * (2 if several else 1) + ([1.55] if shown else [])
    with drawing(theme, 12, sum(rows) + (0.7 if several else 1.7)) as figure:
        from matplotlib.patches import ConnectionPatch

        outer = figure.add_gridspec(1, 2, width_ratios=(2.75, 1))
        left = outer[0].subgridspec(len(rows), 1, height_ratios=rows[::-1] if shown else rows)
        first = int(bool(shown))
        panels = [figure.add_subplot(left[first + k]) for k in range(2 if several else 1)]
        for k, axes in enumerate(panels):
            if several:
                _one_dimension(axes, traces, DIMENSIONS[k], theme)
            else:
                _both_dimensions(axes, traces[0], theme)
            axes.set(ylim=(-1.05, 1.05), xlim=_span(traces[0].time))
            axes.set_yticks((-1, -0.5, 0, 0.5, 1), ("−1", "−0.5", "0", "0.5", "1"))
            clock(axes, traces[0].time)
            if axes is not panels[-1]:
                axes.set_xlabel("")
        if shown:
            strip = figure.add_subplot(left[0])
            centres = _strip(strip, shown, traces[0].time)
            heading(strip, shorten(traces[0].name), _remark(traces), theme)
            for (peak, _), centre in zip(shown, centres, strict=True):
                axes = panels[0] if not several or peak.words.startswith("valence") else panels[1]
                axes.plot(peak.trace.time[peak.row], peak.value, "o", color=peak.colour, markersize=6.5, zorder=5,
                          markeredgecolor=theme.paper, markeredgewidth=1.5)  # fmt: skip
                down = (
                    1.05 if several else peak.value
                )  # a line through the curves of several people would be hard to see
                connection = ConnectionPatch(
                    (centre, 0.0), (float(peak.trace.time[peak.row]), down), strip.transData, panels[0].transData,
                    color=peak.colour, alpha=0.35,
                )  # fmt: skip
                connection.set_in_layout(False)
                figure.add_artist(connection)
        else:
            heading(panels[0], shorten(traces[0].name), _remark(traces), theme)
        path_axes = figure.add_subplot(outer[1])
        plane(path_axes, theme)
        heading(path_axes, "Path on the plane", theme=theme)
        _path(path_axes, traces)
        if isinstance(path, Path):
            save(figure, path, dpi=130)
        elif path is not None:
            write(figure, path, dpi=110)
        return figure


def embedded(traces: Sequence[TraceData]) -> str:
    """The plot as a data URL, for a page that is one file."""
    data = io.BytesIO()
    draw_traces(traces, data)
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode("ascii")


def find_peaks(traces: Sequence[TraceData]) -> list[Peak]:
    """The highest and lowest valence and arousal in frames with a face, in order of time.

    At most MAX_PEAKS, and only one of peaks that are close together.
    """
    length = float(traces[0].time[-1] - traces[0].time[0])
    found: list[Peak] = []
    for highest in (True, False):
        for column, dimension in ((1, "arousal"), (0, "valence")):
            for trace in traces:
                value = np.where(trace.seen, trace.value[:, column], np.nan)
                if not np.isfinite(value).any():
                    continue
                row = int(np.nanargmax(value) if highest else np.nanargmin(value))
                if any(abs(trace.time[row] - it.trace.time[it.row]) < length * MIN_DISTANCE for it in found):
                    continue
                colour = LIGHT.of(dimension) if trace.person is None else PEOPLE_ON_PAPER[trace.person]
                number = f"{value[row]:+.2f}".replace("-", "−")
                found.append(Peak(trace, row, f"{dimension} {number}", colour, float(value[row])))
    return sorted(found[:MAX_PEAKS], key=lambda peak: peak.trace.time[peak.row])


def _thumbnail(peak: Peak) -> NDArray[np.uint8] | None:
    """The face and its surroundings in that frame, uint8 [h, w, 3]; None if the frame cannot be decoded."""
    from ..ingest.video.thumbnails import frames_at

    found = frames_at(peak.trace.source, [float(peak.trace.time[peak.row])])[0]
    if found is None:
        return None
    stored_height, stored_width = found.picture.shape[:2]
    width, height = shape(stored_width, stored_height, found.pixel_aspect)
    picture = found.picture
    if (width, height) != (stored_width, stored_height):
        import cv2

        picture = np.asarray(cv2.resize(np.ascontiguousarray(picture), (width, height)), np.uint8)
    across, down = width / stored_width, height / stored_height
    x0, y0, x1, y1 = (peak.trace.box[peak.row] * (across, down, across, down)).tolist()
    high = min(
        max((y1 - y0) * THUMBNAIL_SCALE, (x1 - x0) * THUMBNAIL_SCALE / THUMBNAIL_ASPECT),
        height,
        width / THUMBNAIL_ASPECT,
    )
    left = min(max((x0 + x1 - high * THUMBNAIL_ASPECT) / 2, 0), width - high * THUMBNAIL_ASPECT)
    top = min(max((y0 + y1 - high) / 2, 0), height - high)
    part = picture[round(top) : round(top + high), round(left) : round(left + high * THUMBNAIL_ASPECT)]
    return part if part.size else picture  # a very small face or picture may leave nothing


def _strip(axes: "Axes", shown: Sequence[tuple[Peak, NDArray[np.uint8]]], time: NDArray[np.float64]) -> list[float]:
    """Draws the thumbnails in a row, each as close to its time as possible. Returns their centres in seconds."""
    axes.set_axis_off()
    low, high = _span(time)
    axes.set(xlim=(low, high), ylim=(0, 1))
    each = (high - low) / MAX_PEAKS
    centres = _spread([float(peak.trace.time[peak.row]) for peak, _ in shown], each, low, high)
    for (peak, picture), centre in zip(shown, centres, strict=True):
        place = axes.inset_axes((centre - 0.46 * each, 0.2, 0.92 * each, 0.8), transform=axes.transData)
        place.imshow(picture, interpolation="antialiased")
        place.set_xticks([])
        place.set_yticks([])
        for spine in place.spines.values():
            spine.set(visible=True, color=peak.colour, linewidth=1.6)
        at = peak.trace.time[peak.row]
        place.set_xlabel(f"{peak.words}, {moment(float(at))}", color=peak.colour, fontsize=8.5, labelpad=3)
    return centres


def _spread(ideal: Sequence[float], apart: float, low: float, high: float) -> list[float]:
    """Positions close to the wanted ones, which rise: `apart` from each other, and half of it from both ends."""
    places: list[float] = []
    for place in ideal:
        places.append(max(place, places[-1] + apart if places else low + apart / 2))
    limit = high - apart / 2
    for k in range(len(places) - 1, -1, -1):
        places[k] = min(places[k], limit)
        limit = places[k] - apart
    return places


def _both_dimensions(axes: "Axes", trace: TraceData, theme: Theme) -> None:
    mark_absent(axes, trace.time, trace.seen, theme)
    axes.axhline(0, color=theme.soft, linewidth=0.8, zorder=1)
    for dimension in DIMENSIONS:
        _band(axes, trace, dimension, theme.of(dimension), HATCHES[dimension])
    for dimension in DIMENSIONS:
        _line(axes, trace, dimension, dimension, theme.of(dimension))
    _legend(axes)


def _one_dimension(axes: "Axes", traces: Sequence[TraceData], dimension: str, theme: Theme) -> None:
    axes.axhline(0, color=theme.soft, linewidth=0.8, zorder=1)
    for trace in traces:
        _band(axes, trace, dimension, PEOPLE_ON_PAPER[trace.person or 0])
    for trace in traces:
        _line(axes, trace, dimension, f"person {trace.person}", PEOPLE_ON_PAPER[trace.person or 0])
    axes.set_ylabel(dimension)
    if dimension == DIMENSIONS[0]:
        _legend(axes)


def _legend(axes: "Axes") -> None:
    axes.legend(
        loc="lower right", bbox_to_anchor=(1.0, 0.99), ncols=4, handlelength=1.2, borderaxespad=0.1, borderpad=0.1
    )


def _line(axes: "Axes", trace: TraceData, dimension: str, label: str, colour: str) -> None:
    time, values = trace.time, getattr(trace, dimension)
    if len(values) > MANY_ROWS:  # pale frames, and a strong moving average
        axes.plot(time, values, color=colour, alpha=0.28, linewidth=0.7)
        values = smooth(values, _smoothing_rows(time))
    axes.plot(time, values, color=colour, linewidth=1.9, label=label, marker="o" if len(values) == 1 else None)


def _band(axes: "Axes", trace: TraceData, dimension: str, colour: str, hatch: str = "") -> None:
    """The interval as a pale band with thin edges; the hatch tells two bands apart without colour."""
    if trace.interval is None:
        return
    low, high = (getattr(trace, f"{dimension}_{end}") for end in ("low", "high"))
    if len(low) > MANY_ROWS:
        low, high = (smooth(values, _smoothing_rows(trace.time)) for values in (low, high))
    if len(low) == 1:
        axes.errorbar(
            trace.time, getattr(trace, dimension), [getattr(trace, dimension) - low, high - getattr(trace, dimension)],
            color=colour, capsize=6, linewidth=1.2,
        )  # fmt: skip
        return
    from matplotlib.colors import to_rgba

    axes.fill_between(
        trace.time, low, high, facecolor=to_rgba(colour, 0.13), edgecolor=to_rgba(colour, 0.3), hatch=hatch,
        linewidth=0, zorder=1.5,
    )  # fmt: skip
    for values in (low, high):
        axes.plot(trace.time, values, color=colour, alpha=0.75, linewidth=0.7, linestyle=(0, (5, 1.5)))


def _smoothing_rows(time: NDArray[np.float64]) -> int:
    rate = (len(time) - 1) / max(time[-1] - time[0], 1e-6)
    return round(max(rate, len(time) / 400))


def _path(axes: "Axes", traces: Sequence[TraceData]) -> None:
    has_points = False
    for trace in traces:
        shown = np.flatnonzero(np.isfinite(trace.value).all(axis=1))
        has_points |= bool(len(shown))
        shown = shown[:: max(1, len(shown) // 3000)]
        if trace.person is not None:
            axes.scatter(*trace.value[shown].T, color=PEOPLE_ON_PAPER[trace.person], s=9, linewidths=0, alpha=0.6,
                         zorder=3)  # fmt: skip
            continue
        points = axes.scatter(*trace.value[shown].T, c=trace.time[shown], cmap="viridis", s=10, linewidths=0, zorder=3)
        if len(shown) > 1:
            bar = axes.figure.colorbar(points, ax=axes, orientation="horizontal", fraction=0.045, pad=0.02, aspect=30)
            bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
            bar.ax.tick_params(length=0, labelsize=8)
            bar.set_label("time, s", fontsize=8)
    if not has_points:
        axes.text(0, -0.3, "no face seen", ha="center", va="center", fontsize=10)


def _remark(traces: Sequence[TraceData]) -> str:
    level = traces[0].level
    band = [] if level is None else [f"band: {level * 100:g} % interval"]
    if len(traces) > 1:
        return "".join(band)
    seen = traces[0].seen
    absent = [] if seen.all() else [f"grey: no face ({1 - seen.mean():.0%} of frames)"]
    return "; ".join(band + absent)


def _span(time: NDArray[np.float64]) -> tuple[float, float]:
    first, last = float(time[0]), float(time[-1])
    return (first, last) if last > first else (first - 0.5, first + 0.5)
