"""The common style of all figures.

Figures use the Agg canvas of matplotlib without pyplot, so there is no global state and no window. A user's
matplotlibrc and MPLBACKEND have no effect. matplotlib is imported when the first figure is drawn.
"""

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..names import shown
from ..storage.atomic import replacing, unwritable

if TYPE_CHECKING:
    from types import ModuleType

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FONTS = ("Inter", "Helvetica Neue", "Segoe UI", "Arial", "Liberation Sans", "DejaVu Sans")
PLANE_WORDS = {(0.55, 0.72): "excited", (0.74, 0.2): "pleased", (0.58, -0.62): "relaxed",
               (-0.55, -0.62): "bored", (-0.74, -0.2): "sad", (-0.55, 0.72): "tense"}  # fmt: skip
"""Approximate places of words in the valence-arousal plane, from the circumplex of Russell (1980)."""

PEOPLE = ("#2ee6c5", "#ff8fe0", "#ffe066", "#a9b8ff")
"""Colours of people and of the STN's box on pictures: visible on faces, and different from valence and arousal."""
PEOPLE_ON_PAPER = ("#0b7d6e", "#a3329a", "#8a6d00", "#5a55c9")

CLOCK_STEPS = (20, 30, 60, 120, 300, 600, 900, 1800, 3600)
"""Seconds between the ticks of a time axis."""

NON_FIGURE_SETTINGS = ("backend", "interactive", "toolbar", "timezone", "date.epoch", "tk.", "webagg.", "docstring.")
"""Prefixes of matplotlib settings that do not affect a figure. Some of them may start a backend when they are set."""


@dataclass(frozen=True)
class Theme:
    """Colours of a figure. Colour-blind readers can distinguish orange and blue."""

    name: str
    paper: str
    ink: str
    soft: str
    line: str
    shade: str
    valence: str
    arousal: str
    mark: str
    """For anything that is neither valence nor arousal."""

    def of(self, dimension: str) -> str:
        return self.valence if dimension == "valence" else self.arousal


LIGHT = Theme("light", "#ffffff", "#1b1f27", "#646b78", "#e3e6eb", "#eceef2", "#c2570c", "#2457c5", "#0b7d6e")
DARK = Theme("dark", "#171a21", "#eceef2", "#9aa2b1", "#2c313c", "#262b35", "#ffa45c", "#7fb0ff", "#3fd0ba")


def import_matplotlib() -> "ModuleType":
    """Imports matplotlib, even if MPLBACKEND or the user's matplotlibrc makes a normal import fail."""
    try:
        import matplotlib as mpl
    except (ValueError, RuntimeError):
        # An unknown backend, such as Jupyter's outside Jupyter, or a matplotlibrc that is not UTF-8.
        own = {"MPLBACKEND": "agg", "MATPLOTLIBRC": os.devnull}
        for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
            del sys.modules[name]  # half imported
        before = {name: os.environ.get(name) for name in own}
        os.environ.update(own)
        try:
            import matplotlib as mpl
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
    return mpl


@contextmanager
def drawing(theme: Theme, width: float, height: float) -> Iterator["Figure"]:
    """An empty figure of `width` x `height` inches. Draw inside the `with`: the style applies there."""
    mpl = import_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context(_style(theme)):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure


def save(figure: "Figure", path: Path, dpi: int = 160) -> Path:
    """Writes the figure as PNG, atomically. Equal figures give equal bytes. Raises WorkError."""
    try:
        with replacing(path) as temporary:
            write(figure, temporary, dpi)
    except OSError as error:
        raise unwritable(path, error, "another folder") from error
    return path


def write(figure: "Figure", target: Path | BytesIO, dpi: int) -> None:
    """Writes the figure as PNG to a file or to memory. Call it inside `drawing`."""
    with warnings.catch_warnings():
        # A file name may have characters that no font here has. Then the figure shows boxes.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing", category=UserWarning)
        figure.savefig(target, format="png", dpi=dpi, metadata={"Software": "affect"})


def heading(axes: "Axes", text: str, remark: str = "", theme: Theme = LIGHT) -> None:
    """A title on the left and a grey remark on the right. A $ in them does not start a formula."""
    axes.set_title(one_line(text), loc="left", parse_math=False)
    if remark:
        axes.set_title(
            one_line(remark), loc="right", color=theme.soft, fontweight="normal", fontsize=9, parse_math=False
        )


def mark_absent(axes: "Axes", time: NDArray[np.float64], seen: NDArray[np.bool_], theme: Theme) -> None:
    """Shades the intervals without a face, up to the middle between neighbouring frames."""
    if len(time) == 1 and not seen[0]:
        axes.axvspan(time[0] - 0.5, time[0] + 0.5, color=theme.shade, linewidth=0, zorder=0)
        return
    for start, stop in runs_of(~seen):
        left = time[start] if start == 0 else (time[start - 1] + time[start]) / 2
        right = time[stop - 1] if stop == len(time) else (time[stop - 1] + time[stop]) / 2
        axes.axvspan(left, right, color=theme.shade, linewidth=0, zorder=0)


def runs_of(flags: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """The half-open intervals [start, stop) of true flags."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], flags, [False])).astype(np.int8)))
    return [(int(start), int(stop)) for start, stop in zip(edges[::2], edges[1::2], strict=True)]


def plane(axes: "Axes", theme: Theme, *, words: bool = True) -> None:
    """The valence-arousal plane: unit circle, cross, and words for orientation."""
    from matplotlib.patches import Circle
    from matplotlib.patheffects import withStroke

    axes.set(xlim=(-1.08, 1.08), ylim=(-1.08, 1.08), aspect="equal", xlabel="valence", ylabel="arousal")
    axes.grid(False)
    axes.set_xticks((-1, 0, 1), ("−1", "0", "1"))
    axes.set_yticks((-1, 0, 1), ("−1", "0", "1"))
    axes.add_patch(Circle((0, 0), 1, fill=False, edgecolor=theme.line, linewidth=1.2, zorder=1))
    axes.axhline(0, color=theme.line, linewidth=1, zorder=1)
    axes.axvline(0, color=theme.line, linewidth=1, zorder=1)
    if words:
        halo = [withStroke(linewidth=3, foreground=theme.paper)]
        for (x, y), word in PLANE_WORDS.items():
            axes.text(x, y, word, ha="center", va="center", fontsize=8, color=theme.soft, zorder=5, path_effects=halo)


def clock(axes: "Axes", time: NDArray[np.float64]) -> None:
    """Labels the time axis: seconds below two minutes, else minutes:seconds."""
    from matplotlib.ticker import MultipleLocator

    length = float(time[-1] - time[0]) if len(time) else 0.0
    if length >= 120:
        step = next((step for step in CLOCK_STEPS if length / step <= 8), 3600 * (1 + length // (8 * 3600)))
        axes.xaxis.set_major_locator(MultipleLocator(step))
        axes.xaxis.set_major_formatter(lambda seconds, _: f"{int(seconds) // 60}:{int(seconds) % 60:02d}")
        axes.set_xlabel("time, min:s")
    else:
        axes.set_xlabel("time, s")


def smooth(values: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Centred moving average over `width` frames, without NaN; a NaN frame stays NaN."""
    kernel = np.ones(max(1, width | 1))
    there = np.isfinite(values)
    half = len(kernel) // 2
    total = np.convolve(np.where(there, values, 0.0), kernel)[half : half + len(values)]
    count = np.convolve(there.astype(np.float64), kernel)[half : half + len(values)]
    return np.where(there, total / np.maximum(count, 1), np.nan)


def one_line(text: str) -> str:
    """The text without line breaks, control characters and bytes that are not UTF-8."""
    return shown(" ".join(text.split()))


def shorten(text: str, max_length: int = 60) -> str:
    """Shortens a name for a title by removing its middle."""
    if len(text) <= max_length:
        return text
    return f"{text[: max_length // 2]}…{text[-(max_length // 2 - 1) :]}"


def _style(theme: Theme) -> dict[Any, Any]:
    """matplotlib's defaults instead of the user's settings, with the changes of the theme."""
    from matplotlib import font_manager, rcParamsDefault

    there = set(font_manager.get_font_names())
    defaults = {name: value for name, value in rcParamsDefault.items() if not name.startswith(NON_FIGURE_SETTINGS)}
    return defaults | {
        "font.family": [font for font in FONTS if font in there], "font.size": 10,
        "figure.facecolor": theme.paper, "savefig.facecolor": theme.paper, "axes.facecolor": theme.paper,
        "text.color": theme.ink, "axes.labelcolor": theme.soft, "axes.edgecolor": theme.line,
        "xtick.color": theme.soft, "ytick.color": theme.soft, "xtick.labelsize": 9, "ytick.labelsize": 9,
        "xtick.major.size": 0, "ytick.major.size": 0, "axes.labelsize": 9.5,
        "axes.grid": True, "grid.color": theme.line, "grid.linewidth": 0.8, "axes.axisbelow": True,
        "axes.spines.top": False, "axes.spines.right": False, "axes.spines.left": False,
        "axes.titlesize": 11.5, "axes.titleweight": "bold", "axes.titlepad": 10, "axes.unicode_minus": True,
        "legend.frameon": False, "legend.fontsize": 9, "lines.solid_capstyle": "round",
        "figure.constrained_layout.w_pad": 0.12, "figure.constrained_layout.h_pad": 0.12,
    }  # fmt: skip
