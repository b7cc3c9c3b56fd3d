"""Face boxes: ours (`<subject>.csv`) and Aff-Wild's (a folder of one .pts file per frame)."""

import os
import re
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import BoxError, WorkError
from ..records import Boxes
from .lines import NUMBER, read_grid, read_lines, short

HEADER = "frame,x0,y0,x1,y1"
COLUMNS = tuple(HEADER.split(","))
REMEDY = "Mend the file, or delete it and run `affect detect-boxes`."
LAST = 2**53
"""Frame numbers beyond this are no longer exact in the float64 they are read as."""


def read_boxes(path: Path) -> Boxes:
    """Reads one subject's boxes: a CSV of ours, or a folder of Aff-Wild's .pts files. Raises BoxError.

    The file counts frames from 1, `Boxes` from 0. A file without rows means no face anywhere.
    """
    if path.is_dir():
        return read_pts(path)
    lines = read_lines(path, BoxError, REMEDY)
    if not lines or lines[0] != HEADER:
        found = repr(lines[0][:40]) if lines else "missing"
        raise BoxError(f"{short(path)}: line 1 is {found}, expected {HEADER!r}", REMEDY)
    grid = read_grid(path, lines[1:], COLUMNS, 2, BoxError, REMEDY)
    frame, corners = grid[:, 0], grid[:, 1:]
    _refuse(path, (frame != np.floor(frame)) | (frame < 1) | (frame > LAST), "frame", frame, "a whole number from 1")
    _refuse(path, np.diff(frame, prepend=0) <= 0, "frame", frame, "frames in rising order, each once")
    exact = _narrow(corners)
    _refuse(path, ~np.isfinite(exact).all(axis=1), "x0", corners[:, 0], "corners in pixels")
    _refuse(path, exact[:, 2] <= exact[:, 0], "x1", corners[:, 2], "x1 beyond x0")
    _refuse(path, exact[:, 3] <= exact[:, 1], "y1", corners[:, 3], "y1 beyond y0")
    return Boxes(frame=frame.astype(np.int64) - 1, corners=exact)


def write_boxes(path: Path, boxes: Boxes) -> None:
    """Writes boxes so that read_boxes gives them back exactly; whole or not at all, and the folder with them. Raises
    WorkError."""
    rows = [HEADER]
    for frame, corners in zip(boxes.frame.tolist(), boxes.corners, strict=True):
        # numpy's text of a float32 is the shortest that reads back to the same float32
        rows.append(",".join([str(frame + 1), *(str(value).removesuffix(".0") for value in corners)]))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text("\n".join(rows) + "\n", encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise WorkError(
            f"{path}: cannot be written ({error.strerror})", "Free space, or choose another --out."
        ) from error


def read_pts(folder: Path) -> Boxes:
    """Reads Aff-Wild's boxes: `K.pts` holds the corners of frame K's box, K from 0. Raises BoxError.

    The box is the one that encloses the points of the file, however many and in whatever order.
    """
    found: dict[int, Path] = {}
    try:
        entries = [entry.name for entry in os.scandir(folder)]
    except OSError as error:
        raise BoxError(f"{short(folder)}: cannot be read ({error.strerror})", "Check the path.") from error
    for name in sorted(entries):
        stem, suffix = os.path.splitext(name)  # noqa: PTH122  (a Path for each of a million files takes seconds)
        if suffix.lower() != ".pts" or name.startswith("."):
            continue
        if not re.fullmatch("[0-9]{1,15}", stem):
            raise BoxError(f"{short(folder)}/{name}: is not named by its frame", REMEDY)
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
        raise BoxError(f"{short(path)}: holds no points between braces", REMEDY)
    start = texts.index("{") + 1
    points: list[tuple[float, float]] = []
    for number, text in enumerate(texts[start:-1], start + 1):
        fields = text.split()
        if len(fields) != 2 or not all(NUMBER.fullmatch(field) for field in fields):
            raise BoxError(f"{short(path)}: line {number} is {text[:40]!r}, expected two numbers (x y)", REMEDY)
        points.append((float(fields[0]), float(fields[1])))
    narrow = _narrow(np.array(points).reshape(-1, 2))
    if len(narrow) < 2 or not np.isfinite(narrow).all() or (narrow.max(axis=0) <= narrow.min(axis=0)).any():
        raise BoxError(f"{short(path)}: its {len(points)} points span no box", REMEDY)
    (x0, y0), (x1, y1) = narrow.min(axis=0), narrow.max(axis=0)
    return float(x0), float(y0), float(x1), float(y1)


def _narrow(values: NDArray[np.float64]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # what overflows becomes infinite, and is refused as such
        return values.astype(np.float32)


def _refuse(
    path: Path, wrong: NDArray[np.bool_] | np.bool_, name: str, column: NDArray[np.float64], expected: str
) -> None:
    rows = np.flatnonzero(wrong)
    if len(rows):
        row = int(rows[0])
        raise BoxError(f"{short(path)}: line {row + 2} holds {name} {column[row]:.15g}, expected {expected}", REMEDY)
