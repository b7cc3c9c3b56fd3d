"""Reads the faces of FER2013 with the votes of FER+ (Barsoum et al., 2016), joined by row."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import FerplusError
from .text_table import read_lines, short

Usage = Literal["Training", "PublicTest", "PrivateTest"]
USAGES: tuple[Usage, ...] = ("Training", "PublicTest", "PrivateTest")
CLASSES = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
COLUMNS = ("Usage", "Image name", *CLASSES, "unknown", "NF")
SIDE = 48
"""Width and height of a face in pixels."""
FACES, VOTES = "fer2013.csv", "fer2013new.csv"
REMEDY_FACES = "Restore fer2013.csv from the Kaggle challenge challenges-in-representation-learning-facial-expression."
REMEDY_VOTES = "Restore fer2013new.csv from github.com/microsoft/FERPlus."


@dataclass(frozen=True)
class FerplusFaces:
    """pixels: uint8 [n, 48, 48] grey. votes: float32 [n, 10], columns as CLASSES, then unknown and NF (no face)."""

    pixels: NDArray[np.uint8]
    votes: NDArray[np.float32]

    def __post_init__(self) -> None:
        n = len(self.votes)
        if self.pixels.shape != (n, SIDE, SIDE) or self.votes.shape != (n, len(CLASSES) + 2):
            raise ValueError(
                f"pixels {self.pixels.shape} and votes {self.votes.shape} have different lengths or wrong shapes"
            )

    def __len__(self) -> int:
        return len(self.votes)


def read_ferplus(folder_or_csv: Path, usage: Usage) -> FerplusFaces:
    """Reads the faces with this usage and their votes. Raises FerplusError.

    folder_or_csv: the folder with fer2013.csv and fer2013new.csv, or the path of one of them.
    """
    folder = folder_or_csv if folder_or_csv.is_dir() else folder_or_csv.parent
    usages, votes = read_votes(folder / VOTES)
    selected = np.array(usages) == usage
    pixels = np.empty((int(selected.sum()), SIDE * SIDE), dtype=np.uint8)
    filled = rows = 0
    for rows, (line, found, text) in enumerate(_faces(folder / FACES), 1):
        if rows > len(usages):
            continue
        if found != usages[rows - 1]:
            raise FerplusError(
                f"{FACES}: line {line} has usage {found!r}, but {VOTES} has {usages[rows - 1]!r} in this row",
                REMEDY_FACES,
            )
        if selected[rows - 1]:
            pixels[filled] = _pixels(text, line)
            filled += 1
    if rows != len(usages):
        raise FerplusError(f"{FACES}: has {rows} faces, but {VOTES} has {len(usages)} rows", REMEDY_FACES)
    return FerplusFaces(pixels.reshape(-1, SIDE, SIDE), votes[selected])


def read_votes(path: Path) -> tuple[list[str], NDArray[np.float32]]:
    """Reads the usage of each row, and the votes, float32 [n, 10]. Raises FerplusError."""
    lines = read_lines(path, FerplusError, REMEDY_VOTES)
    if not lines or tuple(lines[0].split(",")) != COLUMNS:
        raise FerplusError(f"{short(path)}: line 1 is not {','.join(COLUMNS)!r}", REMEDY_VOTES)
    usages: list[str] = []
    votes = np.empty((len(lines) - 1, len(COLUMNS) - 2), dtype=np.float32)
    for row, line in enumerate(lines[1:]):
        usage, *rest = line.split(",")
        counts = rest[1:]
        if usage not in USAGES or len(counts) != votes.shape[1] or not all(_is_count(count) for count in counts):
            raise FerplusError(
                f"{short(path)}: line {row + 2} is {line[:60]!r}, expected a usage, a name and ten vote counts",
                REMEDY_VOTES,
            )
        usages.append(usage)
        votes[row] = [int(count) for count in counts]
    return usages, votes


def majority(votes: NDArray[np.float32]) -> NDArray[np.int64]:
    """The class of each face by the majority rule of FER+, or -1. votes: [n, 10]; result: [n].

    A class with a single vote is dropped as an outlier. The winner needs more than half of the remaining votes and must
    be one of the eight classes.
    """
    kept = _without_outliers(votes)
    winner = kept.argmax(axis=1)
    won = 2 * kept.max(axis=1) > kept.sum(axis=1)
    return np.where(won & (winner < len(CLASSES)), winner, -1).astype(np.int64)


def distribution(votes: NDArray[np.float32]) -> NDArray[np.float32]:
    """The share of the votes for each class, float32 [n, 8]. Rows sum to 1, or are all 0 for an unusable face.

    A class with a single vote is dropped as an outlier. A face is unusable if unknown and NF together have half or
    more of the remaining votes.
    """
    kept = _without_outliers(votes)
    classes = kept[:, : len(CLASSES)]
    total = classes.sum(axis=1, keepdims=True)
    usable = 2 * total > kept.sum(axis=1, keepdims=True)
    return np.divide(classes, total, out=np.zeros_like(classes), where=usable)


def rule_counts(votes: NDArray[np.float32], usage: Sequence[str]) -> dict[str, dict[str, Any]]:
    """For each usage: rows, faces that each rule keeps, and faces per class by majority. For the table in the docs."""
    counts: dict[str, dict[str, Any]] = {}
    for name in USAGES:
        own = votes[np.array(usage) == name]
        classes = majority(own)
        counts[name] = {
            "rows": len(own),
            "majority": int((classes >= 0).sum()),
            "distribution": int((distribution(own).sum(axis=1) > 0).sum()),
            "classes": {label: int((classes == number).sum()) for number, label in enumerate(CLASSES)},
        }
    return counts


def _without_outliers(votes: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.where(votes > 1, votes, 0).astype(np.float32)


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 3


def _faces(path: Path) -> Iterator[tuple[int, str, str]]:
    """Line number, usage and pixels of each row. Columns can have any order, and blanks around their names."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            header = [name.strip() for name in next(reader, [])]
            if not {"pixels", "Usage"} <= set(header):
                raise FerplusError(f"{short(path)}: line 1 is not 'emotion,pixels,Usage'", REMEDY_FACES)
            usage, pixels = header.index("Usage"), header.index("pixels")
            for fields in reader:
                if len(fields) != len(header):
                    raise FerplusError(
                        f"{short(path)}: line {reader.line_num} has {len(fields)} fields, expected {len(header)}",
                        REMEDY_FACES,
                    )
                yield reader.line_num, fields[usage].strip(), fields[pixels]
    except OSError as error:
        raise FerplusError(f"{short(path)}: cannot be read ({error.strerror})", REMEDY_FACES) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise FerplusError(f"{short(path)}: is not a text table ({error})", REMEDY_FACES) from error


def _pixels(text: str, line: int) -> NDArray[np.uint8]:
    """Parses 2304 numbers of one to three digits.

    Works on all bytes at once, which is five times as fast as int() for each number.
    """
    code = np.frombuffer(b"  " + text.strip().encode() + b" ", dtype=np.uint8)
    digit = code.astype(np.int16) - ord("0")
    is_digit = (digit >= 0) & (digit <= 9)
    last = np.flatnonzero(is_digit[:-1] & ~is_digit[1:])
    one, two = is_digit[last - 1], is_digit[last - 1] & is_digit[last - 2]
    value = digit[last] + 10 * digit[last - 1] * one + 100 * digit[last - 2] * two
    # every digit must be part of one of these numbers, and every other byte must be a blank
    clean = (is_digit | (code == ord(" "))).all() and is_digit.sum() == len(last) + one.sum() + two.sum()
    if not clean or len(value) != SIDE * SIDE or value.max() > 255:
        raise FerplusError(f"{FACES}: line {line} does not have {SIDE * SIDE} pixels from 0 to 255", REMEDY_FACES)
    return value.astype(np.uint8)
