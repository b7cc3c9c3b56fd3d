"""Reads folders of pictures with face boxes: `boxes.csv` names the pictures that show faces, the others show none."""

import csv
import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import BoxError
from .text_table import NUMBER, read_lines, short

BOXES = "boxes.csv"
COLUMNS = ("image", "x0", "y0", "x1", "y1")
EXTRA_COLUMNS = ("label", "by")
NO_FACE = "none"
"""The label of a picture without a face. Its corners are empty."""
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
REMEDY = "Correct the file: each row is image,x0,y0,x1,y1 with corners in pixels; a row without a face has label none."
PARTS = 1000
"""`held_out` distinguishes shares of one PARTS-th."""


@dataclass(frozen=True)
class Picture:
    """A picture file and its faces. name: the path in its folder. corners: float32 [k, 4], x0 y0 x1 y1 in pixels,
    half-open, of the k faces. labels: the label of each, "" where the file has none."""

    name: str
    path: Path
    corners: NDArray[np.float32]
    labels: tuple[str, ...]


def read_pictures(folder: Path) -> list[Picture]:
    """The pictures of a folder and its subfolders, sorted by name. Raises BoxError, which names the line.

    A picture with rows in `boxes.csv` shows exactly these faces; one without a row, or with the label `none`, shows
    none. No picture is opened.
    """
    path = folder / BOXES
    if not path.is_file():
        raise BoxError(f"{path}: does not exist", f"Name a folder with pictures and a {BOXES}.")
    lines = read_lines(path, BoxError, REMEDY)
    header = tuple(lines[0].split(",")) if lines else ()
    if header[:5] != COLUMNS or not set(header[5:]) <= set(EXTRA_COLUMNS):
        found = repr(lines[0][:60]) if lines else "missing"
        raise BoxError(
            f"{short(path)}: line 1 is {found}, expected {','.join(COLUMNS)} and optionally label,by", REMEDY
        )
    files = _picture_files(folder)
    boxes: dict[str, list[tuple[float, ...]]] = {name: [] for name in files}
    labels: dict[str, list[str]] = {name: [] for name in files}
    empty: set[str] = set()
    for number, fields in enumerate(csv.reader(lines[1:]), 2):
        where = f"{short(path)}: line {number}"
        if len(fields) != len(header):
            raise BoxError(f"{where} holds {len(fields)} values, expected {len(header)} ({','.join(header)})", REMEDY)
        row = dict(zip(header, fields, strict=True))
        name, label = row["image"], row.get("label", "")
        if name not in files:
            raise BoxError(
                f"{where} names {name!r}, which is not a picture in {folder}", "Restore it or delete the row."
            )
        if label == NO_FACE:
            empty.add(name)
        else:
            boxes[name].append(_corners(where, fields[1:5]))
            labels[name].append(label)
        if name in empty and boxes[name]:
            raise BoxError(f"{where}: {name} has a box and the label {NO_FACE}", REMEDY)
    return [
        Picture(name, folder / name, np.array(boxes[name], np.float32).reshape(-1, 4), tuple(labels[name]))
        for name in sorted(files)
    ]


def held_out(name: str, share: float, purpose: str) -> bool:
    """Whether the picture is in the given share of all people. The same for every picture of a person: files that
    differ only in the number after an underscore, as `lfw/Ann_Lee_0001.jpg`, show one person.

    purpose: another purpose gives another, independent share.
    """
    person = re.sub(r"_[0-9]+$", "", Path(name).with_suffix("").as_posix())
    digest = hashlib.sha256(f"{purpose}\0{person}".encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") % PARTS < share * PARTS


def pictures_digest(folder: Path) -> str:
    """Hex digest of `boxes.csv`, and of the name and size of each picture. Raises BoxError where it cannot be read."""
    digest = hashlib.sha256()
    try:
        digest.update((folder / BOXES).read_bytes())
        for name in sorted(_picture_files(folder)):
            digest.update(f"\0{name}\0{(folder / name).stat().st_size}".encode(errors="surrogateescape"))
    except OSError as error:
        raise BoxError(
            f"{folder / BOXES}: cannot be read ({error.strerror})", f"Name a folder with pictures and a {BOXES}."
        ) from error
    return digest.hexdigest()


def _picture_files(folder: Path) -> set[str]:
    found = set()
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inside = Path(root).relative_to(folder)
        found |= {
            (inside / name).as_posix() for name in names
            if os.path.splitext(name)[1].lower() in SUFFIXES and not name.startswith(".")  # noqa: PTH122
        }  # fmt: skip
    return found


def _corners(where: str, fields: Sequence[str]) -> tuple[float, ...]:
    for column, field in zip(COLUMNS[1:], fields, strict=True):
        if not NUMBER.fullmatch(field) or not np.isfinite(float(field)) or abs(float(field)) > 1e6:
            raise BoxError(f"{where} holds {field[:40]!r} as {column}, expected a number of pixels", REMEDY)
    x0, y0, x1, y1 = (float(field) for field in fields)
    if x1 <= x0 or y1 <= y0:
        raise BoxError(f"{where} holds the box {','.join(fields)}, expected x1 > x0 and y1 > y0", REMEDY)
    return x0, y0, x1, y1
