"""The report's tables: figures of all runs, of each subject, what the backbone takes for what, and settings."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
import yaml

from ...configs.schema import Config
from .report_data import DIMENSIONS, SPLIT, Run
from .report_html import MEASURES, absent, facts_list, number, raw, scroll

IN_TRAINING = "in training"
"""In the place of a split: validation, but as measured at the best epoch and not by an evaluation."""


def confusion(found: Mapping[str, Any]) -> str:
    classes = found.get("classes")
    matrix = np.asarray(found.get("confusion", []), np.float64)
    if not classes or matrix.shape != (len(classes), len(classes)):
        return ""
    share = 100 * matrix / matrix.sum(1, keepdims=True).clip(1)
    head = "".join(f'<th scope="col">{escape(str(name))}</th>' for name in classes)
    rows = ""
    for name, own, count in zip(classes, share, matrix.sum(1), strict=True):
        cells = "".join(
            f'<td style="--share:{it:.0f}"{" class=deep" if it > 55 else ""}>{f"{it:.0f}" if it >= 0.5 else ""}</td>'
            for it in own
        )
        rows += f'<tr><th scope="row">{escape(str(name))} <small>{count:,.0f}</small></th>{cells}</tr>'
    caption = "<caption>What a face of each row was recognised as, in percent of the row</caption>"
    return scroll(
        f'<table class="confusion">{caption}<thead><tr><td></td>{head}</tr></thead><tbody>{rows}</tbody></table>',
        "Confusion matrix",
    )


def pooled_table(runs: Sequence[Run]) -> str:
    head = '<th scope="col">run</th><th scope="col" class="text">split</th>' + "".join(
        f'<th scope="col"><span class="{name}">{title}<br>{name}</span></th>'
        for key, title in MEASURES.items()
        for name in DIMENSIONS
        if any(f"{key}_{name}" in run.metrics for run in runs)
    )
    columns = [
        f"{key}_{name}"
        for key in MEASURES
        for name in DIMENSIONS
        if any(f"{key}_{name}" in run.metrics for run in runs)
    ]
    rows = ""
    for rank, run in enumerate(runs):
        for split, metrics in (run.evaluations or {IN_TRAINING: run.metrics}).items():
            cells = "".join(f"<td>{number(metrics.get(column), 3)}</td>" for column in columns)
            mark = ' class="best"' if rank == 0 and split in (SPLIT, IN_TRAINING) else ""
            rows += (
                f'<tr{mark}><th scope="row">{escape(run.name)}</th><td class="text">{escape(split)}</td>{cells}</tr>'
            )
    return scroll(f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>", "Figures of all runs")


def subject_table(run: Run, iou: Mapping[str, float]) -> str:
    columns = {"frames": ("frames", 0), "ccc_mean": ("mean CCC", 3), "ccc_valence": ("CCC valence", 3),
               "ccc_arousal": ("CCC arousal", 3), "rmse_valence": ("RMSE valence", 3),
               "rmse_arousal": ("RMSE arousal", 3)}  # fmt: skip
    table = {name: {**figures, "iou": iou.get(name)} for name, figures in run.per_subject.items()}
    if iou:
        columns["iou"] = ("IoU of the box", 3)
    head = "".join(
        f'<th scope="col"{" aria-sort=descending" if key == "ccc_mean" else ""}><button>{title}</button></th>'
        for key, title in {"": "subject", **{key: title for key, (title, _) in columns.items()}}.items()
    )
    rows = ""
    for name in sorted(table, key=lambda name: (-(table[name].get("ccc_mean") or 0), name)):
        cells = "".join(
            f'<td data-value="{raw(table[name].get(key))}">{number(table[name].get(key), places)}</td>'
            for key, (_, places) in columns.items()
        )
        rows += f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>'
    return scroll(f'<table class="sortable"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>', "Subjects")


def settings(best: Run) -> str:
    """Where a run was trained, and all its settings."""
    parts = []
    environment = best.facts.get("environment")
    if isinstance(environment, dict):
        parts.append(f"<h3>Where it was trained</h3>{facts_list(environment)}")
    try:
        found = yaml.safe_load(best.settings) or {}
    except yaml.YAMLError:
        found = {}
    defaults = Config().model_dump(mode="json")
    sections = {name: own for name, own in found.items() if isinstance(own, dict)} if isinstance(found, dict) else {}
    if sections:
        parts.append(f"<h3>Settings of run {escape(best.name)}</h3><p>Bold: other than the default.</p>")
    shown = []
    for name, own in sections.items():
        changed = {key for key, it in own.items() if it != defaults.get(name, {}).get(key, it)}
        shown.append(f'<div class="section"><h4>{escape(str(name))}</h4>{facts_list(own, changed, plain=True)}</div>')
    if shown:
        parts.append(f'<details><summary>All settings</summary><div class="sections">{"".join(shown)}</div></details>')
    return "".join(parts) or absent(f"Run {best.name} has no config.yaml and no run.json yet.")
