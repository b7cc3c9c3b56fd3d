"""Traces as tables: a row per frame, a row per clip; as CSV, JSON or Parquet."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, WorkError
from .runs import write_text
from .trace import Trace

FORMATS = ("csv", "json", "parquet")
COLUMNS = ("frame", "time", "face", "valence", "arousal", "x0", "y0", "x1", "y1")
CLIP_COLUMNS = ("clip", "first_frame", "last_frame", "start", "end", "face", "valence", "arousal")
TIMES = ("time", "start", "end")


@dataclass(frozen=True)
class Column:
    """values: [rows], NaN where there is none. decimals: how many text gives; None: whole numbers."""

    values: NDArray[Any]
    decimals: int | None


Table = dict[str, Column]


def frame_columns(traces: Sequence[Trace]) -> Table:
    """A row per frame, and where several people were asked for per frame and person. traces: of one video."""
    table: Table = {"frame": _column(traces, "frame", None), "time": _column(traces, "time", 6)}
    if traces[0].person is not None:
        people = np.stack([np.full(len(trace), trace.person) for trace in traces], 1).ravel()
        table["person"] = Column(people, None)
    table |= {"face": _column(traces, "face", 4), "valence": _column(traces, "valence", 6)}
    table["arousal"] = _column(traces, "arousal", 6)
    boxes = np.stack([trace.box for trace in traces], 1).reshape(-1, 4)
    table |= {edge: Column(boxes[:, side], 1) for side, edge in enumerate(("x0", "y0", "x1", "y1"))}
    for name in traces[0].emotions:
        table[name] = Column(np.stack([trace.emotions[name] for trace in traces], 1).ravel(), 6)
    return table


def clip_columns(traces: Sequence[Trace]) -> Table:
    """A row per clip, person by person: means over its frames, values over those that have some. Clips lie end to end;
    the last one is as long as what is left."""
    rows: list[tuple[float, ...]] = []
    for trace in traces:
        for clip, start in enumerate(range(0, len(trace), trace.clip)):
            part = slice(start, min(start + trace.clip, len(trace)))
            value = trace.value[part]
            value = value[np.isfinite(value).all(1)]
            mean = value.mean(0) if len(value) else np.full(2, np.nan)
            ends = (trace.frame[part][0], trace.frame[part][-1], trace.time[part][0], trace.time[part][-1])
            rows.append((clip, *ends, trace.face[part].mean(), *mean, -1 if trace.person is None else trace.person))
    decimals = (None, None, None, 6, 6, 4, 6, 6)
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    table = {
        name: Column(values.astype(np.int64) if places is None else values, places)
        for name, values, places in zip(CLIP_COLUMNS, columns, decimals, strict=False)
    }
    return table if traces[0].person is None else {"person": Column(columns[-1].astype(np.int64), None), **table}


def frame_file(path: Path, traces: Sequence[Trace], format: str) -> None:  # noqa: A002
    """Writes the frames' table, whole or not at all. Raises InputError where a package is missing, WorkError."""
    _write(path, frame_columns(traces), format)


def clip_file(path: Path, traces: Sequence[Trace], format: str) -> None:  # noqa: A002
    """Writes the clips' table likewise."""
    _write(path, clip_columns(traces), format)


def need_format(format: str) -> None:  # noqa: A002
    """Raises InputError for a format that is unknown, or whose package is not installed."""
    if format not in FORMATS:
        raise InputError(f"--format {format}: unknown", f"Allowed: {', '.join(FORMATS)}.")
    if format == "parquet":
        try:
            import pyarrow.parquet  # noqa: F401  # pyright: ignore[reportUnusedImport]
        except ImportError as error:
            remedy = "Install it: pip install 'affect[parquet]'. Or take csv or json."
            raise InputError("Parquet files need pyarrow, which is not installed", remedy) from error


def _write(path: Path, table: Table, format: str) -> None:  # noqa: A002
    need_format(format)
    try:
        if format == "parquet":
            _write_parquet(path, table)
        else:
            write_text(path, _csv(table) if format == "csv" else _json(table))
    except WorkError as error:
        raise WorkError(error.problem, "Free space, or choose another folder.") from error
    except OSError as error:
        raise WorkError(f"{path}: cannot be written ({error.strerror})", "Choose another folder.") from error


def _csv(table: Table) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table)
    writer.writerows(zip(*(_cells(name, column) for name, column in table.items()), strict=True))
    return text.getvalue()


def _json(table: Table) -> str:
    """A list of objects, a line each; null for no value. The numbers are those of the CSV."""
    columns = [_cells(name, column) for name, column in table.items()]
    rows = [
        "{" + ", ".join(f"{json.dumps(name)}: {cell or 'null'}" for name, cell in zip(table, cells, strict=True)) + "}"
        for cells in zip(*columns, strict=True)
    ]
    return "[\n" + ",\n".join(rows) + "\n]\n"


def _write_parquet(path: Path, table: Table) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {name: pa.array(column.values, from_pandas=True) for name, column in table.items()}
    part = path.with_name(f".{path.name}.part")
    try:
        pq.write_table(pa.table(columns), part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _cells(name: str, column: Column) -> Iterator[str]:
    if column.decimals is None:
        return (str(value) for value in column.values.tolist())
    places = None if name in TIMES and _too_close(column) else column.decimals
    return (_cell(value, places) for value in column.values.tolist())


def _cell(value: float, places: int | None) -> str:
    if not np.isfinite(value):
        return ""
    return repr(value) if places is None else f"{value:.{places}f}"


def _too_close(column: Column) -> bool:
    """Whether rounding would make two frames simultaneous."""
    exact = np.unique(column.values)
    return len({f"{second:.{column.decimals}f}" for second in exact.tolist()}) < len(exact)


def _column(traces: Sequence[Trace], name: str, decimals: int | None) -> Column:
    return Column(np.stack([getattr(trace, name) for trace in traces], 1).ravel(), decimals)
