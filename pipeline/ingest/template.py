"""A challenge's template: which frames of which subjects want a prediction, in which order."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .lines import BLANKS, read_lines, short

HEADER = "image_location,valence,arousal"
REMEDY = "Take the template as the challenge gives it: that header, then <subject>/00001.jpg,… row by row."
_LOCATION = re.compile(r"([^/\\,]+)/([0-9]+)\.(?:jpg|jpeg|png)", re.IGNORECASE)
_DIGITS = 9


@dataclass(frozen=True)
class Template:
    """locations: as they stand in the file. subject: whose each row is. frame: int64 [n], from 0."""

    locations: tuple[str, ...]
    subject: tuple[str, ...]
    frame: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.locations)


def read_template(path: Path) -> Template:
    """The rows of a template; what stands after the first comma of a row is not looked at. Raises InputError where the
    header is another, a row names no picture, or two rows name the same."""
    lines = read_lines(path, InputError, REMEDY)
    if not lines:
        raise InputError(f"{short(path)}: is empty, expected the header {HEADER!r} and rows", REMEDY)
    if lines[0].replace(" ", "").rstrip(",") not in (HEADER, "image_location"):
        raise InputError(f"{short(path)}: line 1 is {lines[0][:40]!r}, expected {HEADER!r}", REMEDY)
    if len(lines) == 1:
        raise InputError(f"{short(path)}: holds a header and no row", REMEDY)
    locations, subjects, frames = [], [], []
    seen: dict[tuple[str, int], int] = {}
    for number, line in enumerate(lines[1:], 2):
        where = f"{short(path)}: line {number}"
        location, *rest = (part.strip(BLANKS) for part in line.split(","))
        match = _LOCATION.fullmatch(location)
        if match is None or len(match[2]) > _DIGITS or int(match[2]) < 1:
            raise InputError(f"{where} is {line[:60]!r}, expected <subject>/00001.jpg, frames counting from 1", REMEDY)
        if len(rest) > 2:
            raise InputError(f"{where} holds {1 + len(rest)} values, expected 3 ({HEADER})", REMEDY)
        key = match[1], int(match[2]) - 1
        if key in seen:
            raise InputError(f"{where} names the same picture as line {seen[key]}: {location}", REMEDY)
        seen[key] = number
        locations.append(location)
        subjects.append(key[0])
        frames.append(key[1])
    return Template(tuple(locations), tuple(subjects), np.array(frames, np.int64))
