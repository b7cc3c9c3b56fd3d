"""Annotation files: one row of valence and arousal per video frame, or an error that names the line."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import AnnotationError
from ..records import NOT_ANNOTATED, Labels
from .lines import read_grid, read_lines, short

HEADER = "valence,arousal"
COLUMNS = ("valence", "arousal")
REMEDY = "Restore the file from the data set's release."


def read_labels(path: Path) -> Labels:
    """Reads one subject's annotation, whichever set it is of. Raises AnnotationError.

    Aff-Wild2: `<subject>.txt`, a header and two columns. Aff-Wild: `…/valence/<video>.txt`, a column without a header,
    whose other half is `…/arousal/<video>.txt`.
    """
    if is_affwild(path):
        return read_labels_affwild(path, arousal_beside(path))
    lines = read_lines(path, AnnotationError, REMEDY)
    if not lines:
        raise AnnotationError(f"{short(path)}: is empty, expected the header {HEADER!r} and a row per frame", REMEDY)
    if lines[0] != HEADER:
        raise AnnotationError(f"{short(path)}: line 1 is {lines[0][:40]!r}, expected {HEADER!r}", REMEDY)
    if len(lines) == 1:
        raise AnnotationError(f"{short(path)}: holds a header and no row, expected a row per frame", REMEDY)
    grid = read_grid(path, lines[1:], COLUMNS, 2, AnnotationError, REMEDY)
    for column, name in enumerate(COLUMNS):
        _check_range(path, grid[:, column], name, 2)
    return _labels(grid)


def read_labels_affwild(valence: Path, arousal: Path) -> Labels:
    """Reads Aff-Wild's two files of one column without a header. Raises AnnotationError."""
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
            f"{short(arousal)}: holds {len(columns[1])} values, but {short(valence)} {len(columns[0])}", REMEDY
        )
    return _labels(np.stack(columns, axis=1))


def is_affwild(path: Path) -> bool:
    """Whether a path is the valence half of an Aff-Wild annotation."""
    return path.parent.name.lower() == "valence"


def arousal_beside(valence: Path) -> Path:
    """Where the arousal half of an Aff-Wild annotation lies."""
    folder = valence.parent
    name = {"valence": "arousal", "VALENCE": "AROUSAL"}.get(folder.name, "Arousal")
    return folder.with_name(name) / valence.name


def _check_range(path: Path, column: NDArray[np.float64], name: str, first: int) -> None:
    wrong = np.flatnonzero((np.abs(column) > 1) & (column != NOT_ANNOTATED))
    if len(wrong):
        row = int(wrong[0])
        raise AnnotationError(
            f"{short(path)}: line {row + first} holds {name} {column[row]:.15g}, "
            f"expected -1 to 1, or -5 for not annotated ({len(wrong)} such in the file)",
            REMEDY,
        )


def _labels(grid: NDArray[np.float64]) -> Labels:
    # One sentinel is enough: half a label trains nothing and scores nothing.
    valid = (grid != NOT_ANNOTATED).all(axis=1)
    return Labels(value=np.where(valid[:, None], grid, 0.0).astype(np.float32), valid=valid)
