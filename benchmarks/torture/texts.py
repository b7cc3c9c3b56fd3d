"""Fuzzed annotation and box files. Each must be read as a second reader reads it, or be refused with its own error."""

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from affect.pipeline.errors import AnnotationError, BoxError
from affect.pipeline.ingest.annotations import read_labels
from affect.pipeline.ingest.boxes import read_boxes

from .mutations import MUTATIONS

FIELD = re.compile(r"[ \t]*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?[ \t]*")
WORDS = (
    "nan", "inf", "-inf", "1e400", "-5", "1.0000001", "-1.1", "0x1", "1_0", "", " ", "0.5,0.5", "٣", "5,", ",", ";",
    "\t", "valence,arousal", "frame,x0,y0,x1,y1", "1;2", "0,5", '"0.1"', "None", "\x00", "\u2028", "\x1c", "#1", "-0",
    "1e-320",
)  # fmt: skip
ENDS = ("\n", "\r\n", "\r", "\n\n", "\n \n", "")


def run(folder: Path, count: int, seed: int, log: Callable[[str], None]) -> dict[str, Any]:
    """Counts how many files were read correctly, refused, misread, or raised another exception. Half are box files."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    found: Counter[str] = Counter()
    for number in range(count):
        kind = number % 2
        path = folder / ("s.csv" if kind else "s.txt")
        path.write_bytes(fuzzed(kind, rng))
        outcome = classify(path, kind)
        if outcome not in ("read correctly", "refused"):
            log(f"  file {number}: {outcome}: {path.read_bytes()[:200]!r}")
        found[outcome.partition(":")[0]] += 1
    return {"files": count, **{key: found[key] for key in ("read correctly", "refused", "misread", "raised")}}


def fuzzed(kind: int, rng: np.random.Generator) -> bytes:
    """A table with some changed fields, lines or bytes, with random line endings and a random encoding."""
    rows = int(rng.integers(0, 30))
    if kind:
        corners = np.sort(rng.uniform(0, 500, (rows, 2, 2)), axis=1).reshape(rows, 4).round(int(rng.integers(0, 4)))
        frames = np.cumsum(rng.integers(1, 3, rows))
        lines = ["frame,x0,y0,x1,y1"]
        lines += [
            ",".join(map(str, (frame, *row))) for frame, row in zip(frames.tolist(), corners.tolist(), strict=True)
        ]
    else:
        values = rng.uniform(-1, 1, (rows, 2)).round(int(rng.integers(1, 13)))
        values[rng.random(rows) < 0.2] = -5
        lines = ["valence,arousal", *(f"{a:.12g},{b:.12g}" for a, b in values.tolist())]
    for _ in range(int(rng.integers(0, 3))):
        line = int(rng.integers(0, len(lines)))
        match int(rng.integers(0, 4)):
            case 0:
                fields = lines[line].split(",")
                fields[int(rng.integers(0, len(fields)))] = WORDS[int(rng.integers(0, len(WORDS)))]
                lines[line] = ",".join(fields)
            case 1:
                lines[line] = WORDS[int(rng.integers(0, len(WORDS)))]
            case 2:
                lines.insert(line, "")
            case _:
                del lines[line]
                lines = lines or [""]
    text = ENDS[int(rng.integers(0, 3))].join(lines) + ENDS[int(rng.integers(0, len(ENDS)))]
    data = text.encode(("utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1")[int(rng.integers(0, 5))], errors="replace")
    return MUTATIONS[int(rng.integers(0, len(MUTATIONS)))](data, rng) if data and rng.random() < 0.3 else data


def classify(path: Path, kind: int) -> str:
    """`read correctly`, `refused`, `misread: reason`, or `raised: exception`."""
    try:
        if kind:
            boxes = read_boxes(path)
            ours = np.column_stack([boxes.frame + 1, boxes.corners])
        else:
            labels = read_labels(path)
            ours = np.column_stack([labels.value, labels.valid])
    except (AnnotationError, BoxError) as error:
        return "refused" if error.remedy and path.name in error.problem else f"misread: no remedy or name in {error}"
    except Exception as error:  # noqa: BLE001  (the test searches for other exceptions)
        return f"raised: {type(error).__name__}: {error}"
    expected = second_reading(path.read_bytes(), kind)
    if expected is None:
        return "misread: a second reader refuses it"
    same = ours.shape == expected.shape and np.array_equal(ours.astype(np.float32), expected.astype(np.float32))
    return "read correctly" if same else f"misread: {ours.tolist()[:3]}, expected {expected.tolist()[:3]}"


def second_reading(data: bytes, kind: int) -> np.ndarray | None:
    """Reads the table by the rules of docs/formats.md; None if the file breaks a rule."""
    try:
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError:
        return None
    lines = re.split("\r\n|\r|\n", text)
    while lines and not lines[-1].strip(" \t"):
        lines.pop()
    header = "frame,x0,y0,x1,y1" if kind else "valence,arousal"
    if not lines or lines[0] != header:
        return None
    width = header.count(",") + 1
    rows = []
    for line in lines[1:]:
        fields = line.split(",")
        if len(fields) != width or not all(FIELD.fullmatch(field) for field in fields):
            return None
        rows.append([float(field.strip(" \t")) for field in fields])
    table = np.array(rows).reshape(-1, width)
    if not np.isfinite(table).all():
        return None
    return _boxes(table) if kind else _labels(table)


def _labels(table: np.ndarray) -> np.ndarray | None:
    if not len(table) or ((np.abs(table) > 1) & (table != -5)).any():
        return None
    valid = (table != -5).all(1)
    return np.column_stack([np.where(valid[:, None], table, 0), valid])


def _boxes(table: np.ndarray) -> np.ndarray | None:
    frame, corners = table[:, 0], table[:, 1:].astype(np.float32)
    if (frame != np.rint(frame)).any() or (np.diff(frame, prepend=0) <= 0).any() or not np.isfinite(corners).all():
        return None
    return table if (corners[:, 2:] > corners[:, :2]).all() else None
