"""Reads and writes the files in the folder of a training run. Needs no torch."""

import json
import math
from pathlib import Path
from typing import Any

from ..errors import MissingStageError, WeightsError
from ..learning.model_file import NAME, read_model_info
from ..storage.atomic import write_text
from ..storage.permissions import refuse_unreadable

REMEDY = "Run: affect train --data D --work W"


def metrics_path(folder: Path) -> Path:
    """One JSON line per epoch."""
    return folder / "metrics.jsonl"


def read_run(folder: Path) -> dict[str, Any]:
    """run.json of a run folder. Raises MissingStageError."""
    try:
        return json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        refuse_unreadable(folder / "run.json", MissingStageError)
        raise MissingStageError(f"{folder}: has no trained run", REMEDY) from error


def stored_key(folder: Path) -> str | None:
    """The fingerprint of the model in a run folder; None if it is missing or damaged."""
    try:
        return read_model_info(folder / NAME).fingerprint if (folder / "run.json").is_file() else None
    except (WeightsError, KeyError):
        return None


def read_result(path: Path, key: str) -> dict[str, Any] | None:
    """A JSON file that a stage wrote; None if it is missing, damaged or has another fingerprint."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return found if found["fingerprint"] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def add_epoch(folder: Path, line: dict[str, Any], first: int = 1) -> None:
    """Adds the line of an epoch. A repeated epoch replaces its line, and the `first` epoch replaces all lines."""
    path = metrics_path(folder)
    before = path.read_text(encoding="utf-8").splitlines() if path.is_file() and line["epoch"] > first else []
    kept = [text for text in before if json.loads(text)["epoch"] < line["epoch"]]
    write_text(path, "\n".join([*kept, json.dumps(plain(line))]) + "\n")


def plain(values: dict[str, Any]) -> dict[str, Any]:
    """Replaces NaN and infinity, which JSON does not have, by None."""
    return {name: None if isinstance(it, float) and not math.isfinite(it) else it for name, it in values.items()}
