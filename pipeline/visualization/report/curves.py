"""The report's learning curves: loss and CCC by epoch as one picture, and the values shown at the pointer."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...records import DIMENSIONS
from ..style import Theme, drawing, heading, save, shorten
from .data import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_RUNS = 6
BASELINE_MSE = {"arousal": 0.24, "valence": 0.39}
"""Validation MSE of the script that this project replaces, on the data it was written for."""
BASELINE_LABEL = "old script, on its own data (Aff-Wild)"
PANEL_BOXES = ((0.03, 0.145, 0.29, 0.715), (0.3625, 0.145, 0.29, 0.715), (0.695, 0.145, 0.29, 0.715))
"""Left, bottom, width and height of each panel, as shares of the picture."""
X_MARGIN = 0.03
"""Empty share of the epoch axis on both sides."""


@dataclass(frozen=True)
class Curve:
    """One line. dimension: sets the colour, None for grey. best_run: drawn strong, others are pale.

    value: float64 [k], NaN where an epoch has none. epoch: float64 [k].
    """

    run: str
    label: str
    dimension: str | None
    dashed: bool
    best_run: bool
    epoch: NDArray[np.float64]
    value: NDArray[np.float64]


@dataclass(frozen=True)
class Panel:
    """Curves over epochs. bottom, top: range of the y axis. best_epoch: of the best run. baseline: a dotted line."""

    title: str
    remark: str
    curves: tuple[Curve, ...]
    best_epoch: int | None
    bottom: float
    top: float
    baseline: float | None = None

    @property
    def epochs(self) -> tuple[float, float]:
        """Range of the x axis."""
        every = [float(epoch) for curve in self.curves for epoch in curve.epoch]
        first, last = min(every, default=1.0), max(every, default=1.0)
        margin = X_MARGIN * (last - first) or 0.5
        return first - margin, last + margin


def make_panels(runs: Sequence[Run]) -> list[Panel]:
    """Arousal loss, valence loss and validation CCC. runs: best first; at most MAX_RUNS are shown."""
    runs = [run for run in runs if run.history][:MAX_RUNS]
    best_epoch = runs[0].best_epoch if runs else None
    panels = []
    for dimension in ("arousal", "valence"):
        curves = _curves(
            runs,
            (f"train_mse_{dimension}", "training", dimension, True),
            (f"validation_mse_{dimension}", "validation", dimension, False),
        )
        top = 1.16 * max(BASELINE_MSE[dimension], *(_upper_limit(curve.value) for curve in curves), 0.0)
        title = f"{dimension.capitalize()} loss"
        panels.append(Panel(title, "MSE, lower is better", curves, best_epoch, 0.0, top, BASELINE_MSE[dimension]))
    curves = _curves(
        runs,
        *((f"validation_ccc_{dimension}", dimension, dimension, False) for dimension in DIMENSIONS),
        ("validation_iou", "IoU of the STN", None, True),
    )
    lowest = min([0.0, *(float(np.nanmin(curve.value)) for curve in curves)])
    panels.append(Panel("Validation CCC", "higher is better", curves, best_epoch, max(-1.0, 1.1 * lowest), 1.0))
    return panels


def draw_curves(path: Path, runs: Sequence[Run], theme: Theme) -> Path:
    """Writes the picture of all panels as PNG. runs: best first."""
    with drawing(theme, 12.6, 4.3) as figure:
        figure.set_layout_engine("none")
        for panel, box in zip(make_panels(runs), PANEL_BOXES, strict=True):
            _draw_panel(figure.add_axes(box), panel, theme)
        return save(figure, path)


def readouts(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """For each panel of the picture its box and its values by epoch. web/curves.js shows them at the pointer.

    left, top, width, height: shares of the picture. position: of each epoch, from 0 to 1 across the panel.
    """
    found = []
    for panel, (left, bottom, width, height) in zip(make_panels(runs), PANEL_BOXES, strict=True):
        first, last = panel.epochs
        curves = [curve for curve in panel.curves if curve.best_run]
        epochs = sorted({int(epoch) for curve in curves for epoch in curve.epoch})
        by_epoch = [dict(zip(curve.epoch.astype(int).tolist(), curve.value.tolist(), strict=True)) for curve in curves]
        data = {
            "epochs": epochs, "position": [(epoch - first) / (last - first) for epoch in epochs],
            "labels": [curve.label for curve in curves], "best": panel.best_epoch,
            "values": [[_finite(values.get(epoch)) for epoch in epochs] for values in by_epoch],
        }  # fmt: skip
        box = {"left": left, "top": 1 - bottom - height, "width": width, "height": height}
        found.append({"title": panel.title, "remark": panel.remark, "box": box, "data": data})
    return found


def _curves(runs: Sequence[Run], *specs: tuple[str, str, str | None, bool]) -> tuple[Curve, ...]:
    """Curves of all runs that have values. specs: key in metrics.jsonl, label, dimension, dashed."""
    found = []
    for rank, run in enumerate(runs):
        epoch = np.array([line["epoch"] for line in run.history], np.float64)
        for key, label, dimension, dashed in specs:
            value = np.array([_number(line.get(key)) for line in run.history])
            if np.isfinite(value).any():
                found.append(Curve(run.name, label, dimension, dashed, rank == 0, epoch, value))
    return tuple(found)


def _draw_panel(axes: "Axes", panel: Panel, theme: Theme) -> None:
    from matplotlib.ticker import MaxNLocator

    heading(axes, panel.title, panel.remark, theme)
    if panel.baseline is not None:
        _draw_baseline(axes, panel.baseline, theme)
    for curve in panel.curves:
        _draw_curve(axes, curve, panel.best_epoch, theme)
    axes.set(xlim=panel.epochs, ylim=(panel.bottom, panel.top), xlabel="epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if panel.curves:
        if panel.baseline is None:
            axes.legend(loc="lower right")
        else:
            axes.legend(loc="upper right", bbox_to_anchor=(1.0, 0.82))


def _draw_baseline(axes: "Axes", value: float, theme: Theme) -> None:
    from matplotlib.patheffects import withStroke

    axes.axhline(value, color=theme.soft, linestyle=(0, (1, 2)), linewidth=1.6, zorder=1)
    axes.annotate(
        f"{BASELINE_LABEL}: {value:.2f}", (0.98, value), (0, 4), ha="right", fontsize=8.5, color=theme.soft,
        xycoords=("axes fraction", "data"), textcoords="offset points",
        path_effects=[withStroke(linewidth=3, foreground=theme.paper)],
    )  # fmt: skip


def _draw_curve(axes: "Axes", curve: Curve, best_epoch: int | None, theme: Theme) -> None:
    colour = theme.of(curve.dimension) if curve.dimension else theme.soft
    style: dict[str, Any] = {"color": colour, "alpha": 1.0, "zorder": 3} if curve.best_run else {
        "color": colour, "alpha": 0.35, "zorder": 2,
    }  # fmt: skip
    if curve.dashed:
        style |= {"linestyle": (0, (4, 2)), "linewidth": 1.3}
    else:
        style["linewidth"] = 2.2 if curve.best_run else 1.4
    label = curve.label if curve.best_run else None
    axes.plot(curve.epoch, curve.value, label=label, marker="o" if len(curve.value) == 1 else None, **style)
    if not curve.best_run and curve.label == "validation":
        last = np.flatnonzero(np.isfinite(curve.value))[-1]
        axes.annotate(
            shorten(curve.run, 18), (curve.epoch[last], curve.value[last]), (-2, 3), textcoords="offset points",
            ha="right", fontsize=8, color=colour, alpha=0.7, parse_math=False,
        )  # fmt: skip
    if curve.best_run and not curve.dashed:
        best = np.flatnonzero(curve.epoch == best_epoch)
        axes.plot(
            curve.epoch[best], curve.value[best], "o", color=colour, markersize=7, markeredgecolor=theme.paper,
            markeredgewidth=1.6, zorder=4,
        )  # fmt: skip


def _upper_limit(values: NDArray[np.float64]) -> float:
    """Highest value to show. A first epoch with a very high loss must not flatten the rest."""
    finite = values[np.isfinite(values)]
    return float(min(finite.max(), 4 * np.median(finite)))


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 5)
