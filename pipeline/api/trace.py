"""Trace: the result of `model.predict`. You can save and plot it, and a notebook displays it."""

import html
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..inference.trace import TraceData, summary_lines

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame


@dataclass(frozen=True, eq=False, repr=False)
class Trace(TraceData):
    __doc__ = TraceData.__doc__

    @classmethod
    def of(cls, data: TraceData) -> "Trace":
        """The same data as a Trace."""
        return cls(**{field.name: getattr(data, field.name) for field in fields(TraceData)})

    def to_dataframe(self) -> "DataFrame":
        """A DataFrame with a row per frame and the columns of the CSV. Needs pandas: `pip install pandas`."""
        try:
            from pandas import DataFrame
        except ImportError as error:
            raise InputError(
                "to_dataframe needs pandas, which is not installed", "Install it: pip install pandas"
            ) from error
        from ..inference.tables import frame_columns

        return DataFrame({name: column.values for name, column in frame_columns([self]).items()})

    def save(self, path: "str | Path") -> Path:
        """Writes the rows as .csv, .json or .parquet, or the plot as .png, by the suffix of the path.

        Raises InputError, WorkError.
        """
        from ..inference.tables import FORMATS, frame_file

        path = Path(path)
        suffix = path.suffix.lower().removeprefix(".")
        if suffix == "png":
            self.plot(path)
        elif suffix in FORMATS:
            frame_file(path, [self], suffix)
        else:
            allowed = ", ".join(f".{name}" for name in (*FORMATS, "png"))
            raise InputError(f"{path}: the suffix {path.suffix!r} is not supported", f"Allowed: {allowed}.")
        return path

    def plot(self, path: "str | Path | None" = None) -> "Figure":
        """Plots valence and arousal over time and in the plane, and the frames of the peaks if the video still exists.

        path: also write the plot to this PNG file.
        """
        from ..visualization.trace_plot import draw_traces

        return draw_traces([self], Path(path) if path else None)

    def _repr_html_(self) -> str:
        from ..visualization.trace_plot import embedded

        summary = html.escape("\n".join(summary_lines([self])))
        return f'<pre>{summary}</pre><img style="max-width:100%" alt="{summary}" src="{embedded([self])}">'
