"""Reads annotation files: valence and arousal for each video frame. FORMATS lists the known formats."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import AnnotationError
from ..records import NOT_ANNOTATED, Labels
from .text_table import NUMBER, read_grid, read_lines, short

HEADER = "valence,arousal"
COLUMNS = ("valence", "arousal")
REMEDY = "Correct the file, or restore it from the release of the data set."


@dataclass(frozen=True)
class AnnotationFormat:
    """How a data set stores the labels of a subject.

    suffix: of the files, lower case. matches: whether a file with this suffix is an annotation in this format, by its
    path alone; the subject has the name of this file.
    files: all files with labels of that subject, the given file first. read: reads them; raises AnnotationError.
    split_folder: the folder that is named after the split. None if other tasks use the same layout; then the catalog
    also looks at the folder of the task and at the first line.
    """

    name: str
    suffix: str
    matches: Callable[[Path], bool]
    files: Callable[[Path], tuple[Path, ...]]
    read: Callable[[Path], Labels]
    split_folder: Callable[[Path], Path] | None = None


def format_of(path: Path) -> AnnotationFormat | None:
    """The format of an annotation file, or None if the file is not an annotation."""
    return next((known for known in FORMATS if path.suffix.lower() == known.suffix and known.matches(path)), None)


def annotation_files(path: Path) -> tuple[Path, ...]:
    """All files that store the labels of the subject with this annotation."""
    known = format_of(path)
    return known.files(path) if known else (path,)


def read_labels(path: Path) -> Labels:
    """Reads the labels of one subject. Raises AnnotationError."""
    known = format_of(path)
    if known is None:
        names = ", ".join(known.name for known in FORMATS)
        raise AnnotationError(f"{short(path)}: is not an annotation in a known format ({names})", REMEDY)
    return known.read(path)


def read_affwild2(path: Path) -> Labels:
    """Reads an Aff-Wild2 annotation: a header, then a row of two values per frame. Raises AnnotationError."""
    lines = read_lines(path, AnnotationError, REMEDY)
    if not lines:
        raise AnnotationError(f"{short(path)}: is empty, expected the header {HEADER!r} and a row per frame", REMEDY)
    if lines[0] != HEADER:
        message = f"{short(path)}: line 1 is {lines[0][:40]!r}, expected {HEADER!r}"
        raise AnnotationError(message, _header_remedy(lines[0]))
    if len(lines) == 1:
        raise AnnotationError(f"{short(path)}: has a header but no rows, expected a row per frame", REMEDY)
    grid = read_grid(path, lines[1:], COLUMNS, 2, AnnotationError, REMEDY)
    for column, name in enumerate(COLUMNS):
        _check_range(path, grid[:, column], name, 2)
    return _make_labels(grid)


def read_affwild(valence: Path) -> Labels:
    """Reads an Aff-Wild annotation: a file per dimension, each with one value per line and no header.

    Raises AnnotationError.
    """
    arousal = _arousal_file(valence)
    columns = []
    for path, name in ((valence, "valence"), (arousal, "arousal")):
        lines = read_lines(path, AnnotationError, REMEDY)
        if not lines:
            raise AnnotationError(f"{short(path)}: is empty, expected a value per frame", REMEDY)
        grid = read_grid(path, lines, (name,), 1, AnnotationError, REMEDY)
        _check_range(path, grid[:, 0], name, 1)
        columns.append(grid[:, 0])
    if len(columns[0]) != len(columns[1]):
        raise AnnotationError(
            f"{short(arousal)}: has {len(columns[1])} values, but {short(valence)} has {len(columns[0])}", REMEDY
        )
    return _make_labels(np.stack(columns, axis=1))


def _arousal_file(valence: Path) -> Path:
    folder = valence.parent
    name = {"valence": "arousal", "VALENCE": "AROUSAL"}.get(folder.name, "Arousal")
    return folder.with_name(name) / valence.name


FORMATS = (
    AnnotationFormat(
        name="Aff-Wild (train/valence/*.txt and train/arousal/*.txt)",
        suffix=".txt",
        matches=lambda path: path.parent.name.lower() == "valence",
        files=lambda valence: (valence, _arousal_file(valence)),
        read=read_affwild,
        split_folder=lambda valence: valence.parent.parent,
    ),
    AnnotationFormat(
        name="Aff-Wild2 (Train_Set/*.txt)",
        suffix=".txt",
        matches=lambda _path: True,
        files=lambda path: (path,),
        read=read_affwild2,
    ),
)
"""The first format that matches a path is used."""


def resembles_labels(line: str) -> bool:
    """Whether a first line could belong to an annotation, even a malformed one: empty, a header, or numbers."""
    words = _words(line)
    return not words or not {"valence", "arousal"}.isdisjoint(words) or all(NUMBER.fullmatch(word) for word in words)


def holds_labels(line: str) -> bool:
    """Whether a first line belongs to labels in any layout: it names both columns, or is two numbers.

    False for the tables of `affect predict`, which have a column `face`.
    """
    words = _words(line)
    numbers = len(words) == 2 and all(NUMBER.fullmatch(word) for word in words)
    return numbers or ({"valence", "arousal"}.issubset(words) and "face" not in words)


def _header_remedy(line: str) -> str:
    words = _words(line)
    if words == list(COLUMNS):
        return f"Write line 1 exactly as {HEADER}: lower case, one comma, no spaces."
    if words == list(reversed(COLUMNS)):
        return f"Put valence first, in line 1 and in every row: {HEADER}."
    if set(COLUMNS) < set(words):
        return f"Keep only the columns {HEADER}, with one row per frame, starting at the first frame."
    if words and all(NUMBER.fullmatch(word) for word in words):
        return f"Insert the line {HEADER} above the rows."
    return REMEDY


def _words(line: str) -> list[str]:
    return [word for word in re.split(r"[\s,;\"']+", line.casefold()) if word]


def _check_range(path: Path, column: NDArray[np.float64], name: str, first: int) -> None:
    wrong = np.flatnonzero((np.abs(column) > 1) & (column != NOT_ANNOTATED))
    if len(wrong):
        row = int(wrong[0])
        raise AnnotationError(
            f"{short(path)}: line {row + first} has {name} {column[row]:.15g}, "
            f"expected -1 to 1, or -5 for not annotated ({len(wrong)} such values in the file)",
            REMEDY,
        )


def _make_labels(grid: NDArray[np.float64]) -> Labels:
    # A row with only one of the two values is not valid: losses and metrics need both.
    valid = (grid != NOT_ANNOTATED).all(axis=1)
    return Labels(value=np.where(valid[:, None], grid, 0.0).astype(np.float32), valid=valid)
