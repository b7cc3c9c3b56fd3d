"""Reads the data of the report from the work folder: runs, predictions, weights. Needs no torch and no matplotlib."""

import csv
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError, MissingStageError, WeightsError
from ...inference.tables import INTERVAL_COLUMNS
from ...records import DIMENSIONS, MODEL_FILE, Work
from ...runs.folder import metrics_path
from ...storage.checkpoint import read_metadata

SPLIT = "validation"
REMEDY = "Run: affect train --data D --work W"


@dataclass(frozen=True)
class Run:
    """A training run. history: a dict per epoch. facts: run.json, {} if the run is not finished. evaluations: by split.

    stale: splits whose evaluation is older than the model.
    """

    name: str
    folder: Path
    history: tuple[dict[str, Any], ...]
    facts: dict[str, Any]
    evaluations: dict[str, dict[str, Any]]
    stale: tuple[str, ...]

    @property
    def metrics(self) -> dict[str, Any]:
        """Metrics on validation: from the evaluation, else from the best epoch."""
        if SPLIT in self.evaluations:
            return self.evaluations[SPLIT]
        found = self.facts.get("metrics") or max(self.history, key=_score, default={})
        return {key.removeprefix(f"{SPLIT}_"): it for key, it in found.items() if key.startswith(f"{SPLIT}_")}

    @property
    def best_epoch(self) -> int | None:
        best = self.facts.get("best_epoch")
        return best if best else max(self.history, key=_score, default={}).get("epoch")

    @property
    def per_subject(self) -> dict[str, dict[str, Any]]:
        return self.evaluations.get(SPLIT, {}).get("per_subject", {})

    @property
    def settings(self) -> str:
        """The text of config.yaml, or an empty string."""
        return _text(self.folder / "config.yaml")


@dataclass(frozen=True)
class Series:
    """One subject's predictions in time order. time: float64 [n] seconds. value, truth: float64 [n, 2], valence and
    arousal; truth is NaN where the frame is not annotated. interval: float64 [n, 2, 2], low and high end of valence,
    then of arousal; None without intervals."""

    subject: str
    time: NDArray[np.float64]
    value: NDArray[np.float64]
    truth: NDArray[np.float64]
    interval: NDArray[np.float64] | None = None

    @property
    def valid(self) -> NDArray[np.bool_]:
        return np.asarray(np.isfinite(self.truth).all(axis=1), np.bool_)


def find_runs(work: Work) -> list[Path]:
    """The folders of runs by name, also of unfinished ones. Raises MissingStageError if there are none."""
    names = ("metrics.jsonl", "run.json", MODEL_FILE)
    folders = sorted({path.parent for name in names for path in work.root.glob(f"train/*/{name}")})
    if not folders:
        raise MissingStageError(f"{work.root / 'train'}: there are no runs", REMEDY)
    return folders


def read_runs(folders: list[Path]) -> list[Run]:
    """The runs, best first by mean CCC on validation. Raises InputError if a file cannot be read."""
    runs = [_read_run(folder) for folder in folders]
    return sorted(runs, key=lambda run: (-_number(run.metrics.get("ccc_mean"), -2.0), run.name))


def read_predictions(path: Path) -> dict[str, Series]:
    """predictions-<split>.csv by subject; {} where it is missing. Raises InputError."""
    if not path.is_file():
        return {}
    rows: dict[str, list[tuple[float, ...]]] = {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                true = [row[f"{name}_true"] for name in DIMENSIONS] if row["valid"] == "1" else ("nan", "nan")
                own = (row["time"], *(row[name] for name in DIMENSIONS))
                ends = [row[name] for name in INTERVAL_COLUMNS] if INTERVAL_COLUMNS[0] in row else []
                rows.setdefault(row["subject"], []).append(tuple(map(float, (*own, *true, *ends))))
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: this is not a table of predictions ({type(error).__name__}: {error})",
            "Run `affect evaluate` again.",
        ) from error
    found = {}
    for subject, numbers in rows.items():
        table = np.array(numbers, np.float64)
        interval = table[:, 5:].reshape(-1, 2, 2) if table.shape[1] > 5 else None
        found[subject] = Series(subject, table[:, 0], table[:, 1:3], table[:, 3:5], interval)
    return found


def weights_report(work: Work, name: str) -> dict[str, Any] | None:
    """The report in the metadata of these weights; None if they cannot be read."""
    try:
        report = read_metadata(work.weights(name)).get("report")
    except WeightsError:
        return None
    return report if isinstance(report, dict) else {}


def numbers_of(report: dict[str, Any]) -> dict[str, float | int]:
    """The entries that are finite numbers."""
    return {key: it for key, it in report.items() if type(it) in (int, float) and math.isfinite(it)}


def _read_run(folder: Path) -> Run:
    history = []
    try:
        for line in _text(metrics_path(folder)).splitlines():
            epoch = json.loads(line)
            history.append({**epoch, "epoch": int(epoch["epoch"])})
        facts = _json(folder / "run.json")
        evaluations = {
            path.stem.removeprefix("evaluation-"): _json(path) for path in sorted(folder.glob("evaluation-*.json"))
        }
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder}: the metrics cannot be read ({type(error).__name__}: {error})",
            "Run `affect train` again, or remove the folder.",
        ) from error
    return Run(folder.name, folder, tuple(history), facts, evaluations, _stale(folder, evaluations))


def _stale(folder: Path, evaluations: dict[str, Any]) -> tuple[str, ...]:
    model = folder / MODEL_FILE
    if not model.is_file():
        return ()
    written = model.stat().st_mtime
    return tuple(split for split in evaluations if (folder / f"evaluation-{split}.json").stat().st_mtime < written)


def _json(path: Path) -> dict[str, Any]:
    found = json.loads(_text(path) or "{}")
    if not isinstance(found, dict):
        raise TypeError(f"{path.name} is not a JSON object")
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def _score(line: dict[str, Any]) -> float:
    return _number(line.get(f"{SPLIT}_ccc_mean"), -2.0)


def _number(value: Any, otherwise: float) -> float:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else otherwise
