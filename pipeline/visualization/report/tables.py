"""The report's tables as data: metrics of all runs, metrics by subject, settings of the best run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from ....configs.schema import Config
from ...records import DIMENSIONS
from ..html import MEASURES
from .data import SPLIT, Run

IN_TRAINING = "in training"
"""Shown as the split of a run without an evaluation: validation, measured at the best epoch."""


@dataclass(frozen=True)
class Column:
    """key: in the metrics. dimension: sets the colour of the title."""

    key: str
    title: str
    dimension: str = ""
    places: int = 3


@dataclass(frozen=True)
class RunRow:
    """Metrics of a run on a split. best: on validation, of all runs."""

    run: str
    split: str
    metrics: Mapping[str, Any]
    best: bool


@dataclass(frozen=True)
class PooledTable:
    columns: tuple[Column, ...]
    rows: tuple[RunRow, ...]


@dataclass(frozen=True)
class SubjectTable:
    """rows: subject and its metrics, best first."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, Mapping[str, Any]], ...]


@dataclass(frozen=True)
class Section:
    """A section of the settings. changed: keys whose value is not the default."""

    name: str
    options: Mapping[str, Any]
    changed: frozenset[str]


@dataclass(frozen=True)
class SettingsTable:
    """environment: where the run was trained."""

    environment: Mapping[str, Any]
    sections: tuple[Section, ...]


def pooled_table(runs: Sequence[Run]) -> PooledTable:
    """Metrics over all frames. runs: best first."""
    columns = tuple(
        Column(f"{measure}_{dimension}", title, dimension)
        for measure, title in MEASURES.items()
        for dimension in DIMENSIONS
        if any(f"{measure}_{dimension}" in run.metrics for run in runs)
    )
    rows = tuple(
        RunRow(run.name, split, metrics, rank == 0 and split in (SPLIT, IN_TRAINING))
        for rank, run in enumerate(runs)
        for split, metrics in (run.evaluations or {IN_TRAINING: run.metrics}).items()
    )
    return PooledTable(columns, rows)


def subject_table(run: Run, iou: Mapping[str, float]) -> SubjectTable:
    """Metrics by subject. iou: mean IoU of the STN's boxes with the true ones, by subject."""
    columns = [Column("frames", "frames", places=0), Column("ccc_mean", "mean CCC")]
    columns += [
        Column(f"{measure}_{dimension}", f"{MEASURES[measure]} {dimension}")
        for measure in ("ccc", "rmse")
        for dimension in DIMENSIONS
    ]
    for measure, title in (("width", "interval width"), ("coverage", "coverage")):
        columns += [
            Column(f"{measure}_{dimension}", f"{title} {dimension}")
            for dimension in DIMENSIONS
            if any(f"{measure}_{dimension}" in metrics for metrics in run.per_subject.values())
        ]
    if iou:
        columns.append(Column("iou", "IoU of the box"))
    rows = [(name, {**metrics, "iou": iou.get(name)}) for name, metrics in run.per_subject.items()]
    rows.sort(key=lambda row: (-(row[1].get("ccc_mean") or 0), row[0]))
    return SubjectTable(tuple(columns), tuple(rows))


def settings_table(run: Run) -> SettingsTable:
    """The settings in config.yaml and the environment in run.json, as far as they can be read."""
    environment = run.facts.get("environment")
    try:
        stored = yaml.safe_load(run.settings)
    except yaml.YAMLError:
        stored = None
    defaults = Config().model_dump(mode="json")
    sections = []
    for name, options in stored.items() if isinstance(stored, dict) else ():
        if isinstance(options, dict):
            known = defaults.get(name, {})
            changed = frozenset(key for key, value in options.items() if value != known.get(key, value))
            sections.append(Section(str(name), options, changed))
    return SettingsTable(environment if isinstance(environment, dict) else {}, tuple(sections))
