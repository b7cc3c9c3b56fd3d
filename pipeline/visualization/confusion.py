"""The confusion matrix of the backbone, for `affect pretrain backbone` and for the report."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .style import LIGHT, Theme, drawing, heading, save


def has_confusion(report: Mapping[str, Any]) -> bool:
    """Whether a report of `affect pretrain backbone` has all that `draw_confusion` needs."""
    if not report.keys() >= {"classes", "confusion", "accuracy", "faces"}:
        return False
    classes = len(report["classes"])
    return classes > 0 and np.shape(report["confusion"]) == (classes, classes)


def draw_confusion(report: Mapping[str, Any], path: Path, theme: Theme = LIGHT) -> Path:
    """Writes the matrix as PNG: the share of each row in its cells, and the number of faces beside the class."""
    confusion, classes = np.asarray(report["confusion"]), report["classes"]
    faces = confusion.sum(1)
    share = confusion / np.maximum(faces, 1)[:, None]
    with drawing(theme, 6.8, 5.8) as figure:
        from matplotlib.colors import LinearSegmentedColormap

        axes = figure.subplots()
        colours = LinearSegmentedColormap.from_list("share", [theme.paper, theme.arousal])
        axes.imshow(share, cmap=colours, vmin=0, vmax=1)
        for row, column in zip(*np.nonzero(share >= 0.005), strict=True):
            colour = theme.paper if share[row, column] > 0.55 else theme.ink
            text = f"{share[row, column]:.2f}".removeprefix("0")
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=9)
        axes.set_xticks(range(len(classes)), classes, rotation=35, ha="right")
        axes.set_yticks(range(len(classes)), [f"{name}  {n:,}" for name, n in zip(classes, faces, strict=True)])
        axes.set(xlabel="recognised as", ylabel="majority of the votes")
        axes.grid(False)
        axes.spines[:].set_visible(False)
        axes.set_xticks(np.arange(1, len(classes)) - 0.5, minor=True)
        axes.set_yticks(np.arange(1, len(classes)) - 0.5, minor=True)
        axes.grid(True, which="minor", color=theme.line, linewidth=0.8)
        axes.tick_params(which="minor", length=0)
        heading(axes, "FER+ PrivateTest", f"accuracy {report['accuracy']:.1%} of {report['faces']:,} faces", theme)
        return save(figure, path)
