"""Reads text tables of numbers exactly. An invalid table is read again line by line to name the wrong line."""

import codecs
import contextlib
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError

NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
"""A valid number. float() would also accept `1_0`, `nan` and Arabic digits."""

BLANKS = " \t"


def short(path: Path) -> str:
    """The last three parts of a path, for messages."""
    return "/".join(path.parts[-3:])


def read_lines(path: Path, error: type[InputError], remedy: str) -> list[str]:
    """The lines of a text file, without blank lines at the end. Raises `error`.

    Accepts UTF-8 with or without a byte order mark, UTF-16 with one, and the line ends LF, CRLF and CR.
    """
    try:
        data = path.read_bytes()
    except OSError as cause:
        raise error(
            f"{short(path)}: cannot be read ({cause.strerror})", "Check the path, its permissions and the disk."
        ) from cause
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as cause:
        line = data.count(b"\n", 0, cause.start) + 1
        raise error(f"{short(path)}: line {line} is not text ({cause.reason})", remedy) from cause
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    while lines and not lines[-1].strip(BLANKS):
        lines.pop()
    return lines


def read_grid(
    path: Path, lines: Sequence[str], columns: Sequence[str], first: int, error: type[InputError], remedy: str
) -> NDArray[np.float64]:
    """Parses lines of comma-separated finite numbers to [n, len(columns)]. Raises `error`, which names the line.

    first: line number of lines[0] in the file.
    """
    if not lines:
        return np.empty((0, len(columns)))
    grid = None
    # loadtxt treats control characters and other Unicode spaces as blanks.
    if "".join(lines).isprintable():
        with contextlib.suppress(ValueError):
            grid = np.loadtxt(lines, delimiter=",", comments=None, ndmin=2)
    # loadtxt skips blank lines, which would shift the rows after them. The shape then differs.
    if grid is not None and grid.shape == (len(lines), len(columns)) and np.isfinite(grid).all():
        return grid
    return _read_line_by_line(path, lines, columns, first, error, remedy)


def _read_line_by_line(
    path: Path, lines: Sequence[str], columns: Sequence[str], first: int, error: type[InputError], remedy: str
) -> NDArray[np.float64]:
    grid = np.empty((len(lines), len(columns)))
    names = ",".join(columns)
    for row, line in enumerate(lines):
        where = f"{short(path)}: line {row + first}"
        if not line.strip(BLANKS):
            raise error(f"{where} is blank, but rows follow", remedy)
        fields = [field.strip(BLANKS) for field in line.split(",")]
        if len(fields) != len(columns):
            values = f"{len(fields)} value{'' if len(fields) == 1 else 's'}"
            raise error(f"{where} has {values}, expected {len(columns)} ({names})", remedy)
        for column, field in enumerate(fields):
            value = float(field) if NUMBER.fullmatch(field) else np.nan
            if not np.isfinite(value):
                shown = field if len(field) <= 40 else f"{field[:40]}…"
                raise error(f"{where} has {shown!r} as {columns[column]}, expected a finite number", remedy)
            grid[row, column] = value
    return grid
