"""Traces as tables with a row per frame or per clip, and pictures with a row each, as CSV, JSON or Parquet."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..names import csv_text, json_text
from ..storage.atomic import replacing, unwritable, write_text
from .image_prediction import ImagePrediction
from .trace import TraceData

FORMATS = ("csv", "json", "parquet")
COLUMNS = ("frame", "time", "face", "valence", "arousal", "x0", "y0", "x1", "y1")
PICTURE_COLUMNS = ("picture", *COLUMNS[2:])
CLIP_COLUMNS = ("clip", "first_frame", "last_frame", "start", "end", "face", "valence", "arousal")
TIMES = ("time", "start", "end")
INTERVAL_COLUMNS = ("valence_low", "valence_high", "arousal_low", "arousal_high")
"""The last columns of each table, if the model has intervals."""


@dataclass(frozen=True)
class Column:
    """values: [rows], NaN for no value; text has dtype object. decimals: decimals in text formats; None for integers
    and text."""

    values: NDArray[Any]
    decimals: int | None


Table = dict[str, Column]


def frame_columns(traces: Sequence[TraceData]) -> Table:
    """A row per frame; with several people, a row per frame and person. With `predict.fps`, the last column is
    `sampled`: 1 if the networks have seen the frame, 0 if its values are interpolated. traces: the people of one
    video."""
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
    if traces[0].interval is not None:
        table |= {name: _column(traces, name, 6) for name in INTERVAL_COLUMNS}
    if traces[0].sampled is not None:
        sampled = _column(traces, "sampled", None)
        table["sampled"] = Column(sampled.values.astype(np.int64), None)
    return table


def clip_columns(traces: Sequence[TraceData]) -> Table:
    """A row per clip, person after person: means over the frames of the clip, for valence and arousal over the frames
    with a value, and for the ends of the intervals too. Clips do not overlap; the last one may be shorter."""
    rows: list[tuple[float, ...]] = []
    for trace in traces:
        values = trace.value
        if trace.interval is not None:
            values = np.concatenate((values, trace.interval.reshape(-1, 4)), 1)
        for clip, start in enumerate(range(0, len(trace), trace.clip)):
            part = slice(start, min(start + trace.clip, len(trace)))
            value = values[part]
            value = value[np.isfinite(value).all(1)]
            mean = value.mean(0) if len(value) else np.full(value.shape[1], np.nan)
            ends = (trace.frame[part][0], trace.frame[part][-1], trace.time[part][0], trace.time[part][-1])
            rows.append((clip, *ends, trace.face[part].mean(), *mean, -1 if trace.person is None else trace.person))
    names = CLIP_COLUMNS if traces[0].interval is None else (*CLIP_COLUMNS, *INTERVAL_COLUMNS)
    decimals = (None, None, None, 6, 6, 4, 6, 6, *[6] * 4)
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    table = {
        name: Column(values.astype(np.int64) if digits is None else values, digits)
        for name, values, digits in zip(names, columns, decimals, strict=False)
    }
    return table if traces[0].person is None else {"person": Column(columns[-1].astype(np.int64), None), **table}


def picture_columns(predictions: Sequence[ImagePrediction]) -> Table:
    """A row per picture. A picture without a face has only its name and face probability."""
    table: Table = {"picture": Column(np.array([it.name for it in predictions], object), None)}
    for name, decimals in (("face", 4), ("valence", 6), ("arousal", 6)):
        table[name] = Column(np.array([getattr(it, name) for it in predictions]), decimals)
    boxes = np.array([it.box or [np.nan] * 4 for it in predictions], np.float32)
    table |= {edge: Column(boxes[:, side], 1) for side, edge in enumerate(COLUMNS[-4:])}
    for name in predictions[0].emotions:
        table[name] = Column(np.array([it.emotions[name] for it in predictions]), 6)
    if predictions[0].interval is not None:
        ends = np.array([it.interval for it in predictions]).reshape(-1, 4)
        table |= {name: Column(ends[:, number], 6) for number, name in enumerate(INTERVAL_COLUMNS)}
    return table


def picture_file(path: Path, predictions: Sequence[ImagePrediction], format: str) -> None:  # noqa: A002
    """Writes the table of pictures atomically. Raises WorkError, and InputError if a package is missing."""
    _write(path, picture_columns(predictions), format)


def frame_file(path: Path, traces: Sequence[TraceData], format: str) -> None:  # noqa: A002
    """Writes the table of frames atomically. Raises WorkError, and InputError if a package is missing."""
    _write(path, frame_columns(traces), format)


def clip_file(path: Path, traces: Sequence[TraceData], format: str) -> None:  # noqa: A002
    """Writes the table of clips atomically. Raises WorkError, and InputError if a package is missing."""
    _write(path, clip_columns(traces), format)


def require_format(format: str) -> None:  # noqa: A002
    """Raises InputError if the format is unknown or its package is not installed."""
    if format not in FORMATS:
        raise InputError(f"--format {format}: unknown", f"Allowed: {', '.join(FORMATS)}.")
    if format == "parquet":
        try:
            import pyarrow.parquet  # noqa: F401  # pyright: ignore[reportUnusedImport]
        except ImportError as error:
            remedy = "Install it (pip install pyarrow), or choose csv or json."
            raise InputError("Parquet files need pyarrow, which is not installed", remedy) from error


def _write(path: Path, table: Table, format: str) -> None:  # noqa: A002
    require_format(format)
    if format == "parquet":
        _write_parquet(path, table)
    else:
        write_text(path, _csv(table) if format == "csv" else _json(table), "another folder")


def _csv(table: Table) -> str:
    return csv_text(table, zip(*(_cells(name, column) for name, column in table.items()), strict=True))


def _json(table: Table) -> str:
    """A list of objects, one per line, with the same digits as the CSV; null for no value."""
    columns = [
        map(json_text, column.values.tolist()) if column.values.dtype == object else _cells(name, column)
        for name, column in table.items()
    ]
    rows = [
        "{" + ", ".join(f"{json.dumps(name)}: {cell or 'null'}" for name, cell in zip(table, cells, strict=True)) + "}"
        for cells in zip(*columns, strict=True)
    ]
    return "[\n" + ",\n".join(rows) + "\n]\n"


def _write_parquet(path: Path, table: Table) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {name: pa.array(_utf8(column.values), from_pandas=True) for name, column in table.items()}
    try:
        # Pass an open file, because pyarrow takes a name with a colon for a URL.
        with replacing(path) as temporary, temporary.open("wb") as file:
            pq.write_table(pa.table(columns), file)
    except OSError as error:
        raise unwritable(path, error, "another folder") from error


def _utf8(values: NDArray[Any]) -> NDArray[Any]:
    """Escapes bytes of file names that are not UTF-8, as `write_text` does."""
    if values.dtype != object:
        return values
    return np.array([text.encode("utf-8", errors="backslashreplace").decode() for text in values.tolist()], object)


def _cells(name: str, column: Column) -> Iterator[str]:
    if column.decimals is None:
        return (str(value) for value in column.values.tolist())
    decimals = None if name in TIMES and _has_collisions(column) else column.decimals
    return (_cell(value, decimals) for value in column.values.tolist())


def _cell(value: float, decimals: int | None) -> str:
    """decimals: None gives all digits."""
    if not np.isfinite(value):
        return ""
    return repr(value) if decimals is None else f"{value:.{decimals}f}"


def _has_collisions(column: Column) -> bool:
    """Whether rounding would give two different times the same text."""
    exact = np.unique(column.values)
    return len({f"{second:.{column.decimals}f}" for second in exact.tolist()}) < len(exact)


def _column(traces: Sequence[TraceData], name: str, decimals: int | None) -> Column:
    return Column(np.stack([getattr(trace, name) for trace in traces], 1).ravel(), decimals)
