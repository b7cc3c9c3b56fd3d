"""The look all figures share.

Figures are drawn by matplotlib's Agg canvas, without pyplot: no global state, no window, safe beside other plots.
matplotlib is imported when the first figure is drawn.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import WorkError
from ..storage.leftovers import temporary_beside

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DIMENSIONS = ("valence", "arousal")
FONTS = ("Inter", "Helvetica Neue", "Segoe UI", "Arial", "Liberation Sans", "DejaVu Sans")
PLANE_WORDS = {(0.55, 0.72): "excited", (0.74, 0.2): "pleased", (0.58, -0.62): "relaxed",
               (-0.55, -0.62): "bored", (-0.74, -0.2): "sad", (-0.55, 0.72): "tense"}  # fmt: skip
"""Where words for feelings lie in the valence-arousal plane, roughly (Russell, 1980: a circumplex)."""

PEOPLE = ("#2ee6c5", "#ff8fe0", "#ffe066", "#a9b8ff")
"""Of people and of the STN's box, on pictures: they stand out from faces, and are neither valence's nor arousal's."""
PEOPLE_ON_PAPER = ("#0b7d6e", "#a3329a", "#8a6d00", "#5a55c9")

ROUND = (20, 30, 60, 120, 300, 600, 900, 1800, 3600)
"""Seconds between the marks of a clock."""


@dataclass(frozen=True)
class Theme:
    """Colours of a figure. Orange and blue: the pair that colour-blind readers tell apart."""

    name: str
    paper: str
    ink: str
    soft: str
    line: str
    shade: str
    valence: str
    arousal: str
    mark: str
    """What is neither valence nor arousal."""

    def of(self, dimension: str) -> str:
        return self.valence if dimension == "valence" else self.arousal


LIGHT = Theme("light", "#ffffff", "#1b1f27", "#646b78", "#e3e6eb", "#eceef2", "#c2570c", "#2457c5", "#0b7d6e")
DARK = Theme("dark", "#171a21", "#eceef2", "#9aa2b1", "#2c313c", "#262b35", "#ffa45c", "#7fb0ff", "#3fd0ba")


@contextmanager
def drawing(theme: Theme, width: float, height: float) -> Iterator["Figure"]:
    """An empty figure of `width` x `height` inches in the shared style; what is drawn inside has the style too."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context(_style(theme)):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure


def save(figure: "Figure", path: Path, dpi: int = 160) -> Path:
    """Writes the figure as PNG, whole or not at all; equal figures give equal bytes. Raises WorkError."""
    temporary = temporary_beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(figure, temporary, dpi)
        temporary.replace(path)
    except OSError as error:
        raise WorkError(
            f"{path}: cannot be written ({error.strerror or error})", "Free space, or go elsewhere."
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    return path


def write(figure: "Figure", target: Path | BytesIO, dpi: int) -> None:
    """The figure as PNG, into a file or into memory; inside its `drawing`."""
    with warnings.catch_warnings():
        # A file name in a script that no font here has: boxes in the place of letters are no reason to stop.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing", category=UserWarning)
        figure.savefig(target, format="png", dpi=dpi, metadata={"Software": "affect"})


def heading(axes: "Axes", text: str, beside: str = "", theme: Theme = LIGHT) -> None:
    """A title on the left, a remark in the quiet colour on the right. Nothing in them is read as a formula."""
    axes.set_title(text, loc="left", parse_math=False)
    if beside:
        axes.set_title(beside, loc="right", color=theme.soft, fontweight="normal", fontsize=9, parse_math=False)


def mark_absent(axes: "Axes", time: NDArray[np.float64], seen: NDArray[np.bool_], theme: Theme) -> None:
    """Shades the stretches without a face. A stretch reaches halfway to its neighbours."""
    if len(time) == 1 and not seen[0]:
        axes.axvspan(time[0] - 0.5, time[0] + 0.5, color=theme.shade, linewidth=0, zorder=0)
        return
    for start, stop in runs_of(~seen):
        left = time[start] if start == 0 else (time[start - 1] + time[start]) / 2
        right = time[stop - 1] if stop == len(time) else (time[stop - 1] + time[stop]) / 2
        axes.axvspan(left, right, color=theme.shade, linewidth=0, zorder=0)


def runs_of(flags: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """The half-open stretches [start, stop) where flags are true."""
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
    """Names the time axis: seconds for what is short, minutes:seconds for the rest."""
    from matplotlib.ticker import MultipleLocator

    length = float(time[-1] - time[0]) if len(time) else 0.0
    if length >= 120:
        step = next((step for step in ROUND if length / step <= 8), 3600 * (1 + length // (8 * 3600)))
        axes.xaxis.set_major_locator(MultipleLocator(step))
        axes.xaxis.set_major_formatter(lambda seconds, _: f"{int(seconds) // 60}:{int(seconds) % 60:02d}")
        axes.set_xlabel("time, min:s")
    else:
        axes.set_xlabel("time, s")


def smooth(values: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Centred moving average over `width` frames that passes over NaN; NaN stays NaN."""
    kernel = np.ones(max(1, width | 1))
    there = np.isfinite(values)
    half = len(kernel) // 2
    total = np.convolve(np.where(there, values, 0.0), kernel)[half : half + len(values)]
    count = np.convolve(there.astype(np.float64), kernel)[half : half + len(values)]
    return np.where(there, total / np.maximum(count, 1), np.nan)


def shorten(text: str, most: int = 60) -> str:
    """A name that fits a title: the middle goes first."""
    if len(text) <= most:
        return text
    return f"{text[: most // 2]}…{text[-(most // 2 - 1) :]}"


def _style(theme: Theme) -> dict[Any, Any]:
    from matplotlib import font_manager

    there = set(font_manager.get_font_names())
    return {
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
