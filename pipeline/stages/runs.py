"""The folder of a training run: what lies in it, read and written. Needs no torch."""

import json
import math
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import MissingStageError, WeightsError, WorkError
from ..learning.model_file import NAME, read_model_metadata
from ..storage.leftovers import temporary_beside

REMEDY = "Run: affect train --data D --work W"


def metrics_path(folder: Path) -> Path:
    """One JSON line per epoch."""
    return folder / "metrics.jsonl"


def read_run(folder: Path) -> dict[str, Any]:
    """run.json of a run folder. Raises MissingStageError."""
    try:
        return json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MissingStageError(f"{folder}: holds no trained run", REMEDY) from error


def stored_key(folder: Path) -> str | None:
    """The fingerprint of the model in a run folder; None where there is none, or a damaged one."""
    try:
        return read_model_metadata(folder / NAME)["fingerprint"] if (folder / "run.json").is_file() else None
    except (WeightsError, KeyError):
        return None


def add_epoch(folder: Path, line: dict[str, Any], first: int = 1) -> None:
    """Adds an epoch's line. One that is run again after a stop replaces its line, the `first` one all there were."""
    path = metrics_path(folder)
    before = path.read_text(encoding="utf-8").splitlines() if path.is_file() and line["epoch"] > first else []
    kept = [text for text in before if json.loads(text)["epoch"] < line["epoch"]]
    write_text(path, "\n".join([*kept, json.dumps(plain(line))]) + "\n")


def plain(values: dict[str, Any]) -> dict[str, Any]:
    """For JSON, which knows no NaN and no infinity: they become null."""
    return {name: None if isinstance(it, float) and not math.isfinite(it) else it for name, it in values.items()}


def write_text(path: Path, text: str) -> None:
    """Whole or not at all. Raises WorkError."""
    temporary = temporary_beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise WorkError(
            f"{path}: cannot be written ({error.strerror})", "Free space, or choose another --work."
        ) from error
