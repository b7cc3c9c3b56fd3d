"""Figures of the report, as PNG in a light or dark theme. The first one imports matplotlib."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...learning.metrics import ccc
from ...records import DIMENSIONS
from ..style import PEOPLE, Theme, clock, drawing, heading, plane, save, shorten, smooth
from .data import Series
from .stn_samples import StnSample

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STN_COLOUR = PEOPLE[0]


def draw_truth(
    path: Path, chosen: Mapping[str, Series], everything: Sequence[Series], metrics: Mapping[str, Any], theme: Theme
) -> Path:
    """Predictions and annotations of the chosen subjects over time, and a density plot of all frames.

    chosen: by title. metrics: ccc_valence and ccc_arousal over all frames, for the titles of the density plots.
    """
    rows = max(len(chosen), 2)
    with drawing(theme, 14, 1.2 + 2.05 * rows) as figure:
        grid = figure.add_gridspec(1, 2, width_ratios=(3.1, 1), wspace=0.04)
        left = grid[0].subgridspec(max(len(chosen), 1), 2, wspace=0.05, hspace=0.08)
        for row, (title, series) in enumerate(chosen.items()):
            for column, dimension in enumerate(DIMENSIONS):
                axes = figure.add_subplot(left[row, column])
                _over_time(axes, series, column, theme)
                both = series.valid
                fit = ccc(series.value[both, column], series.truth[both, column]) if both.any() else 0.0
                heading(axes, shorten(title, 40) if column == 0 else "", f"{dimension}: CCC {_signed(fit)}", theme)
                if row == 0 and column == 1:
                    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, borderaxespad=0.2, handlelength=1.4)
                if row + 1 < len(chosen):
                    axes.set_xlabel("")
        right = grid[1].subgridspec(2, 1, hspace=0.06)
        value = np.concatenate([series.value[series.valid] for series in everything])
        truth = np.concatenate([series.truth[series.valid] for series in everything])
        for row, dimension in enumerate(DIMENSIONS):
            axes = figure.add_subplot(right[row])
            _draw_density(axes, truth[:, row], value[:, row], theme.of(dimension), theme)
            value_ccc = metrics.get(f"ccc_{dimension}")
            heading(axes, dimension.capitalize(), f"CCC {_signed(value_ccc)}" if value_ccc is not None else "", theme)
        return save(figure, path)


def _over_time(axes: "Axes", series: Series, column: int, theme: Theme) -> None:
    value, truth, time = series.value[:, column], series.truth[:, column], series.time
    axes.axhline(0, color=theme.line, linewidth=1, zorder=1)
    colour = theme.of(DIMENSIONS[column])
    many = len(time) > 1500  # more frames than pixels: pale frames, and a strong moving average
    if series.interval is not None:
        ends = [series.interval[:, column, side] for side in (0, 1)]
        low, high = (smooth(it, len(time) // 400) for it in ends) if many else ends
        axes.fill_between(time, low, high, color=colour, alpha=0.16, linewidth=0, label="interval", zorder=1.5)
        for edge in (low, high):
            axes.plot(time, edge, color=colour, alpha=0.7, linewidth=0.6, linestyle=(0, (5, 2)))
    if many:
        axes.plot(time, value, color=colour, alpha=0.25, linewidth=0.6)
        value = smooth(value, len(time) // 400)
    axes.plot(time, truth, color=theme.ink, linewidth=1.5, alpha=0.75, label="annotated")
    axes.plot(time, value, color=colour, linewidth=2, label="predicted", zorder=3)
    axes.set(ylim=(-1.05, 1.05), yticks=(-1, 0, 1))
    axes.margins(x=0.01)
    clock(axes, time)


def _draw_density(
    axes: "Axes", truth: NDArray[np.float64], value: NDArray[np.float64], colour: str, theme: Theme
) -> None:
    from matplotlib.colors import LinearSegmentedColormap, LogNorm

    axes.plot((-1, 1), (-1, 1), color=theme.soft, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    shades = LinearSegmentedColormap.from_list("shades", [_mix(theme.paper, colour, 0.25), colour])
    axes.hexbin(
        truth, value, gridsize=44, extent=(-1, 1, -1, 1), mincnt=1, norm=LogNorm(), cmap=shades, linewidths=0, zorder=2
    )  # fmt: skip
    axes.set(
        xlim=(-1.03, 1.03), ylim=(-1.03, 1.03), aspect="equal", xticks=(-1, 0, 1), yticks=(-1, 0, 1),
        xlabel="annotated", ylabel="predicted",
    )  # fmt: skip


def draw_plane(path: Path, everything: Sequence[Series], theme: Theme) -> Path:
    """The valence-arousal plane: density of annotations, density of predictions, and the mean change between them."""
    value = np.concatenate([series.value[series.valid] for series in everything])
    truth = np.concatenate([series.truth[series.valid] for series in everything])
    with drawing(theme, 13.2, 4.7) as figure:
        panels = figure.subplots(1, 3, gridspec_kw={"wspace": 0.05})
        for axes, points, title in ((panels[0], truth, "Annotated"), (panels[1], value, "Predicted")):
            plane(axes, theme)
            _draw_plane_density(axes, points, theme)
            heading(axes, title, f"{len(points):,} frames", theme)
        plane(panels[2], theme, words=False)
        _draw_changes(panels[2], truth, value, theme)
        heading(panels[2], "Annotated to predicted", "mean of each cell", theme)
        return save(figure, path)


def _draw_plane_density(axes: "Axes", points: NDArray[np.float64], theme: Theme) -> None:
    from matplotlib.colors import LinearSegmentedColormap, LogNorm

    shades = LinearSegmentedColormap.from_list("density", [_mix(theme.paper, theme.mark, 0.22), theme.mark, theme.ink])
    axes.hexbin(*points.T, gridsize=36, extent=(-1, 1, -1, 1), mincnt=1, norm=LogNorm(), cmap=shades, linewidths=0,
                zorder=2)  # fmt: skip


def _draw_changes(
    axes: "Axes", truth: NDArray[np.float64], value: NDArray[np.float64], theme: Theme, cells: int = 10
) -> None:
    cell = ((truth + 1) / 2 * cells).astype(int).clip(0, cells - 1)
    flat = cell[:, 0] * cells + cell[:, 1]
    count = np.bincount(flat, minlength=cells * cells)
    kept = count >= max(3, 0.0005 * len(truth))
    tail, tip = (
        np.stack([np.bincount(flat, points[:, k], cells * cells) for k in (0, 1)], 1)[kept] / count[kept, None]
        for points in (truth, value)
    )
    for (x, y), (to_x, to_y) in zip(tail, tip, strict=True):
        axes.annotate("", (to_x, to_y), (x, y), zorder=3, arrowprops={
            "arrowstyle": "-|>,head_width=0.18,head_length=0.35", "color": theme.mark, "linewidth": 1.2, "shrinkA": 0,
            "shrinkB": 0,
        })  # fmt: skip
    axes.scatter(*tail.T, s=12, color=theme.ink, linewidths=0, zorder=4)


def draw_crops(path: Path, samples: Sequence[StnSample], theme: Theme) -> Path:
    """A grid of frames with the box of the STN and the true box, each above its crop."""
    columns = min(6, len(samples))
    rows = -(-len(samples) // columns)
    tall = min(max(sample.picture.shape[0] / sample.picture.shape[1] for sample in samples), 1.0)
    width = 2.2
    with drawing(theme, width * columns, rows * (width * (1 + tall) + 0.5) + 0.4) as figure:
        figure.set_layout_engine("constrained", w_pad=0.05, h_pad=0.04)
        figure.suptitle(
            "Output of the STN: its box in colour, the true box dashed, and the crop below", x=0.01, ha="left",
            fontsize=11.5, fontweight="bold",
        )  # fmt: skip
        grid = figure.add_gridspec(2 * rows, columns, height_ratios=[tall, 1] * rows)
        for number, sample in enumerate(samples):
            row, column = divmod(number, columns)
            above, below = (figure.add_subplot(grid[2 * row + k, column]) for k in (0, 1))
            for axes, picture, side in ((above, sample.picture, "S"), (below, sample.crop, "N")):
                axes.imshow(picture, interpolation="bicubic")
                axes.set_axis_off()
                axes.set_anchor(side)
            _boxes(above, sample)
            above.set_title(shorten(sample.subject, 22), loc="left", fontsize=9, pad=4, parse_math=False)
            remark = "no face" if sample.presence < 0.5 else f"IoU {sample.iou:.2f}" if sample.iou is not None else ""
            above.set_title(remark, loc="right", fontsize=8.5, pad=4, color=theme.soft, fontweight="normal")
        return save(figure, path, dpi=130)


def _boxes(axes: "Axes", sample: StnSample) -> None:
    from matplotlib.patches import Polygon

    axes.add_patch(Polygon(sample.box - 0.5, closed=True, fill=False, edgecolor="#00000070", linewidth=3.4))
    axes.add_patch(Polygon(sample.box - 0.5, closed=True, fill=False, edgecolor=STN_COLOUR, linewidth=2))
    if sample.true is not None:
        x0, y0, x1, y1 = sample.true - 0.5
        corners = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
        axes.add_patch(
            Polygon(corners, closed=True, fill=False, edgecolor="white", linewidth=1.3, linestyle=(0, (3, 2)))
        )


def _signed(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def _mix(one: str, other: str, share: float) -> tuple[float, ...]:
    from matplotlib.colors import to_rgb

    return tuple((1 - share) * a + share * b for a, b in zip(to_rgb(one), to_rgb(other), strict=True))
