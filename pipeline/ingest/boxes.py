"""Reads and writes face boxes: `<subject>.csv` of affect, or a folder of Aff-Wild with one .pts file per frame."""

import os
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import BoxError
from ..records import Boxes
from ..storage.atomic import write_text
from .text_table import NUMBER, read_grid, read_lines, short

HEADER = "frame,x0,y0,x1,y1"
COLUMNS = tuple(HEADER.split(","))
REMEDY = "Correct the file, or delete it and run `affect detect-boxes`."
MAX_FRAME = 2**53
"""Numbers are read as float64, which is exact up to here."""


def read_boxes(path: Path) -> Boxes:
    """Reads the boxes of a subject, from a CSV file or a folder of .pts files. Raises BoxError.

    The CSV file counts frames from 1, `Boxes` from 0. A file without rows means that no frame has a face.
    """
    if path.is_dir():
        return read_pts(path)
    lines = read_lines(path, BoxError, REMEDY)
    if not lines or lines[0] != HEADER:
        found = repr(lines[0][:40]) if lines else "missing"
        raise BoxError(f"{short(path)}: line 1 is {found}, expected {HEADER!r}", REMEDY)
    grid = read_grid(path, lines[1:], COLUMNS, 2, BoxError, REMEDY)
    frame, corners = grid[:, 0], grid[:, 1:]
    _check_rows(
        path, (frame != np.floor(frame)) | (frame < 1) | (frame > MAX_FRAME), "frame", frame, "a whole number from 1"
    )
    _check_rows(path, np.diff(frame, prepend=0) <= 0, "frame", frame, "increasing frame numbers")
    exact = _to_float32(corners)
    _check_rows(path, ~np.isfinite(exact).all(axis=1), "x0", corners[:, 0], "corners in pixels")
    _check_rows(path, exact[:, 2] <= exact[:, 0], "x1", corners[:, 2], "x1 > x0")
    _check_rows(path, exact[:, 3] <= exact[:, 1], "y1", corners[:, 3], "y1 > y0")
    return Boxes(frame=frame.astype(np.int64) - 1, corners=exact)


def write_boxes(path: Path, boxes: Boxes) -> None:
    """Writes boxes as CSV, atomically. read_boxes restores them exactly. Creates the folder. Raises WorkError."""
    rows = [HEADER]
    for frame, corners in zip(boxes.frame.tolist(), boxes.corners, strict=True):
        # str of a numpy float32 is the shortest text that is read as the same float32
        rows.append(",".join([str(frame + 1), *(str(value).removesuffix(".0") for value in corners)]))
    write_text(path, "\n".join(rows) + "\n", "another --out")


def read_pts(folder: Path) -> Boxes:
    """Reads a folder of Aff-Wild: `K.pts` has the corners of the box of frame K, counted from 0. Raises BoxError.

    The box encloses all points of the file, in any number and order.
    """
    found: dict[int, Path] = {}
    try:
        entries = [entry.name for entry in os.scandir(folder)]
    except OSError as error:
        raise BoxError(f"{short(folder)}: cannot be read ({error.strerror})", "Check the path.") from error
    for name in sorted(entries):
        stem, suffix = os.path.splitext(name)  # noqa: PTH122  (a million Path objects take seconds)
        if suffix.lower() != ".pts" or name.startswith("."):
            continue
        if not re.fullmatch("[0-9]{1,15}", stem):
            raise BoxError(f"{short(folder)}/{name}: its name is not a frame number, expected <frame>.pts", REMEDY)
        if int(stem) in found:
            raise BoxError(f"{short(folder)}/{name}: frame {int(stem)} has two files", REMEDY)
        found[int(stem)] = folder / name
    frames = sorted(found)
    corners = np.array([_read_points(found[frame]) for frame in frames], dtype=np.float32).reshape(-1, 4)
    return Boxes(frame=np.array(frames, dtype=np.int64), corners=corners)


def _read_points(path: Path) -> tuple[float, float, float, float]:
    lines = read_lines(path, BoxError, REMEDY)
    texts = [line.strip() for line in lines]
    if "{" not in texts or texts[-1] != "}":
        raise BoxError(f"{short(path)}: has no points between braces", REMEDY)
    start = texts.index("{") + 1
    points: list[tuple[float, float]] = []
    for number, text in enumerate(texts[start:-1], start + 1):
        fields = text.split()
        if len(fields) != 2 or not all(NUMBER.fullmatch(field) for field in fields):
            raise BoxError(f"{short(path)}: line {number} is {text[:40]!r}, expected two numbers (x y)", REMEDY)
        points.append((float(fields[0]), float(fields[1])))
    corners = _to_float32(np.array(points).reshape(-1, 2))
    if len(corners) < 2 or not np.isfinite(corners).all() or (corners.max(axis=0) <= corners.min(axis=0)).any():
        raise BoxError(f"{short(path)}: its {len(points)} points do not enclose an area", REMEDY)
    (x0, y0), (x1, y1) = corners.min(axis=0), corners.max(axis=0)
    return float(x0), float(y0), float(x1), float(y1)


def _to_float32(values: NDArray[np.float64]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # overflow gives infinity, which the caller rejects
        return values.astype(np.float32)


def _check_rows(
    path: Path, wrong: NDArray[np.bool_] | np.bool_, name: str, column: NDArray[np.float64], expected: str
) -> None:
    rows = np.flatnonzero(wrong)
    if len(rows):
        row = int(rows[0])
        raise BoxError(f"{short(path)}: line {row + 2} has {name} {column[row]:.15g}, expected {expected}", REMEDY)
