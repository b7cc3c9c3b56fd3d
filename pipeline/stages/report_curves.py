"""The report's curves, drawn by the page itself: losses and CCC over epochs, read off by pointer or arrow keys."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .figures import OLD, OLD_LABEL, SHOWN_RUNS
from .report_data import DIMENSIONS, Run
from .report_subjects import path

WIDE, TALL = 400.0, 200.0


@dataclass(frozen=True)
class Line:
    """One curve. look: classes of CSS. value: float64 [k], NaN where there is none, at epoch [k]."""

    label: str
    look: str
    epoch: NDArray[np.float64]
    value: NDArray[np.float64]


@dataclass(frozen=True)
class Chart:
    """Curves over epochs. level: a dotted line and its label. best: the epoch kept. bottom, top: of the axis."""

    title: str
    remark: str
    lines: tuple[Line, ...]
    best: int | None
    bottom: float
    top: float
    level: tuple[float, str] | None = None


def charts(runs: Sequence[Run]) -> list[Chart]:
    """Loss of arousal and of valence, and CCC on validation. runs: best first; that one is drawn strong."""
    runs = [run for run in runs if run.history][:SHOWN_RUNS]
    made = []
    for dimension in ("arousal", "valence"):
        lines = []
        for rank, run in enumerate(runs):
            lines.append(_line(run, f"train_mse_{dimension}", "training", f"{dimension} dashed", rank))
            lines.append(_line(run, f"validation_mse_{dimension}", "validation", dimension, rank))
        shown = tuple(line for line in lines if np.isfinite(line.value).any())
        top = 1.12 * max(OLD[dimension], *(_upper(line.value) for line in shown), 0.0)
        level = (OLD[dimension], f"{OLD_LABEL}: {OLD[dimension]:.2f}")
        made.append(
            Chart(f"{dimension.capitalize()} loss", "MSE, lower is better", shown, _best(runs), 0.0, top, level)
        )
    lines = [
        _line(run, key, label, look, rank)
        for rank, run in enumerate(runs)
        for key, label, look in (
            *((f"validation_ccc_{dimension}", dimension, dimension) for dimension in DIMENSIONS),
            ("validation_iou", "IoU of the STN", "quiet dashed"),
        )
    ]
    shown = tuple(line for line in lines if np.isfinite(line.value).any())
    bottom = min([0.0, *(float(np.nanmin(line.value)) for line in shown)])
    made.append(Chart("Validation CCC", "higher is better", shown, _best(runs), max(-1.0, 1.1 * bottom), 1.0))
    return made


def charts_html(made: Sequence[Chart]) -> str:
    return f'<div class="charts">{"".join(map(_chart, made))}</div>'


def _chart(chart: Chart) -> str:
    first = min((float(line.epoch[0]) for line in chart.lines), default=1.0)
    last = max((float(line.epoch[-1]) for line in chart.lines), default=1.0)
    span = max(last - first, 1.0)

    def x(epoch: NDArray[np.float64]) -> NDArray[np.float64]:
        return (epoch - first) / span * WIDE

    def y(value: NDArray[np.float64]) -> NDArray[np.float64]:
        return (1 - (value - chart.bottom) / (chart.top - chart.bottom)) * TALL

    drawn, marks, keys = "", "", ""
    steps = _steps(chart.bottom, chart.top)
    for step in steps:
        at = float(y(np.array(step)))
        drawn += f'<line class="grid" x2="{WIDE:.0f}" y1="{at:.1f}" y2="{at:.1f}"/>'
        marks += f'<span class="tick" style="top:{at / TALL:.2%}">{_plain(step)}</span>'
    if chart.level:
        at = float(y(np.array(chart.level[0])))
        drawn += f'<line class="level" x2="{WIDE:.0f}" y1="{at:.1f}" y2="{at:.1f}"/>'
        marks += f'<span class="said" style="top:{at / TALL:.2%}">{escape(chart.level[1])}</span>'
    for line in reversed(chart.lines):
        drawn += f'<path class="{line.look}" d="{path(x(line.epoch), y(line.value))}"/>'
    own = [line for line in chart.lines if "pale" not in line.look]
    for line in own:
        keys += f'<span class="{line.look}"><i></i>{escape(line.label)}</span>'
        there = np.flatnonzero(line.epoch == (chart.best or -1))
        if "dashed" not in line.look and len(there) and math.isfinite(line.value[there[0]]):
            left, top = float(x(line.epoch[there[0]])) / WIDE, float(y(line.value[there[0]])) / TALL
            marks += f'<i class="kept {line.look}" style="left:{left:.2%};top:{top:.2%}"></i>'
    for epoch in _epochs(first, last):
        marks += f'<span class="under" style="left:{(epoch - first) / span:.2%}">{epoch}</span>'
    title, remark = escape(chart.title), escape(chart.remark)
    return (
        f'<figure class="chart"><figcaption><b>{title}</b><span>{remark}</span></figcaption>'
        f'<div class="area" tabindex="0" role="group" aria-label="{title}, {remark}: arrow keys read it off" '
        f'data-chart="{escape(json.dumps(_told(chart, own, first, span)))}">'
        f'<svg viewBox="0 0 {WIDE:.0f} {TALL:.0f}" preserveAspectRatio="none" aria-hidden="true">{drawn}</svg>{marks}'
        '<i class="ghost"></i><div class="tip" role="status"></div></div>'
        f'<p class="keys">{keys}<span>over epochs</span></p></figure>'
    )


def _told(chart: Chart, lines: Sequence[Line], first: float, span: float) -> dict[str, Any]:
    """What the page's script reads off: of each epoch, its place from 0 to 1 and each line's value."""
    epochs = sorted({int(epoch) for line in lines for epoch in line.epoch})
    by_line = [dict(zip(line.epoch.astype(int).tolist(), line.value.tolist(), strict=True)) for line in lines]
    values = [[_finite(own.get(epoch)) for epoch in epochs] for own in by_line]
    return {
        "epochs": epochs, "place": [(epoch - first) / span for epoch in epochs],
        "labels": [line.label for line in lines], "values": values, "best": chart.best,
    }  # fmt: skip


def _line(run: Run, key: str, label: str, look: str, rank: int) -> Line:
    epoch = np.array([line["epoch"] for line in run.history], np.float64)
    value = np.array(
        [it if isinstance(it := line.get(key), int | float) else math.nan for line in run.history], np.float64
    )
    return Line(label if rank == 0 else f"{run.name}: {label}", look if rank == 0 else f"{look} pale", epoch, value)


def _best(runs: Sequence[Run]) -> int | None:
    return runs[0].best_epoch if runs else None


def _upper(values: NDArray[np.float64]) -> float:
    """What an axis has to reach; a first epoch that shoots up must not flatten the rest."""
    there = values[np.isfinite(values)]
    return float(min(there.max(), 4 * np.median(there)))


def _steps(bottom: float, top: float) -> list[float]:
    step = next(step for step in (0.01, 0.02, 0.05, 0.1, 0.2, 0.25, 0.5, 1, 2, 5, 1e9) if (top - bottom) / step <= 5.5)
    return [k * step for k in range(math.ceil(bottom / step - 1e-9), math.floor(top / step + 1e-9) + 1)]


def _epochs(first: float, last: float) -> list[int]:
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500, 10**9) if (last - first) / step <= 6)
    return [epoch for epoch in range(int(first), int(last) + 1) if epoch == int(first) or epoch % step == 0]


def _plain(value: float) -> str:
    return f"{value:.4g}".replace("-", "−")


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 5)
