"""Reads the template of a challenge: which frames of which subjects need a prediction, and in which order."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .text_table import BLANKS, read_lines, short

HEADER = "image_location,valence,arousal"
REMEDY = "Use the template of the challenge unchanged: this header, then one row <subject>/00001.jpg,… per frame."
_LOCATION = re.compile(r"([^/\\,]+)/([0-9]+)\.(?:jpg|jpeg|png)", re.IGNORECASE)
MAX_DIGITS = 9
"""Longest frame number in a location."""


@dataclass(frozen=True)
class Template:
    """locations: first column of the file. subject: subject of each row. frame: int64 [n], from 0."""

    locations: tuple[str, ...]
    subject: tuple[str, ...]
    frame: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.locations)


def read_template(path: Path) -> Template:
    """Reads a template. Ignores the values after the first comma of a row.

    Raises InputError if the header is wrong, a row names no frame, or two rows name the same frame.
    """
    lines = read_lines(path, InputError, REMEDY)
    if not lines:
        raise InputError(f"{short(path)}: is empty, expected the header {HEADER!r} and rows", REMEDY)
    if lines[0].replace(" ", "").rstrip(",") not in (HEADER, "image_location"):
        raise InputError(f"{short(path)}: line 1 is {lines[0][:40]!r}, expected {HEADER!r}", REMEDY)
    if len(lines) == 1:
        raise InputError(f"{short(path)}: has a header but no rows", REMEDY)
    locations, subjects, frames = [], [], []
    seen: dict[tuple[str, int], int] = {}
    for number, line in enumerate(lines[1:], 2):
        where = f"{short(path)}: line {number}"
        location, *rest = (part.strip(BLANKS) for part in line.split(","))
        match = _LOCATION.fullmatch(location)
        if match is None or len(match[2]) > MAX_DIGITS or int(match[2]) < 1:
            raise InputError(
                f"{where} is {line[:60]!r}, expected <subject>/00001.jpg, with frames counted from 1", REMEDY
            )
        if len(rest) > 2:
            raise InputError(f"{where} has {1 + len(rest)} values, expected 3 ({HEADER})", REMEDY)
        key = match[1], int(match[2]) - 1
        if key in seen:
            raise InputError(f"{where} repeats the frame of line {seen[key]}: {location}", REMEDY)
        seen[key] = number
        locations.append(location)
        subjects.append(key[0])
        frames.append(key[1])
    return Template(tuple(locations), tuple(subjects), np.array(frames, np.int64))
