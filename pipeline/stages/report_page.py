"""The report's page: HTML that needs no other file, no network, and no script but to sort a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ... import __version__
from ...configs.schema import Config
from ..records import Problem
from .report_data import DIMENSIONS, SPLIT, Run, numbers_of
from .report_html import MEASURES, absent, data_url, facts_list, jpeg_url, number, raw, scroll
from .report_looks import Look
from .report_style import SCRIPT, STYLE

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


IN_TRAINING = "in training"
"""In the place of a split: validation, but as measured at the best epoch and not by an evaluation."""


@dataclass(frozen=True)
class Page:
    """What the page shows. runs: best first. pictures: by section, the light one and perhaps a dark one. iou: mean of
    each subject. stn: figures by name. weights: the reports in weights files. missing: by section, and why."""

    name: str
    runs: tuple[Run, ...]
    pictures: Mapping[str, tuple[Path, ...]]
    looks: tuple[Look, ...]
    iou: Mapping[str, float]
    stn: Mapping[str, Any]
    weights: Mapping[str, dict[str, Any]]
    missing: Mapping[str, str]
    remarks: tuple[str, ...]
    problems: tuple[Problem, ...]
    work: str


def write_page(page: Page) -> str:
    """The HTML."""
    sections = {
        "curves": ("Learning", _curves(page)),
        "truth": ("Prediction and truth", _truth(page)),
        "plane": ("The plane", _plane(page)),
        "stn": ("What the STN sees", _stn(page)),
        "backbone": ("The backbone", _backbone(page)),
        "numbers": ("Numbers", _numbers(page)),
        "settings": ("Settings", _settings(page)),
    }
    links = "".join(f'<li><a href="#{key}">{escape(title)}</a></li>' for key, (title, _) in sections.items())
    bodies = "".join(
        f'<section id="{key}"><h2>{escape(title)}</h2>{body}</section>\n' for key, (title, body) in sections.items()
    )
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{escape(page.name)} · affect</title><link rel="icon" href="data:,">\n<style>{STYLE}</style></head>\n'
        f"<body>{_head(page)}<nav aria-label='Sections'><ul>{links}</ul></nav>\n<main>{bodies}</main>\n"
        f"<footer>affect {escape(__version__)} · made by <code>affect report --work {escape(page.work)}</code></footer>\n"
        f"<script>{SCRIPT}</script></body></html>\n"
    )


def _head(page: Page) -> str:
    run = page.runs[0]
    metrics = run.metrics
    heroes = "".join(
        f'<div class="hero"><b class="{name}">{number(metrics.get(f"ccc_{name}"), 2)}</b><span>{label}</span></div>'
        for name, label in (("mean", "mean CCC"), ("valence", "CCC of valence"), ("arousal", "CCC of arousal"))
    )
    per_subject = len(run.per_subject)
    frames = f"{metrics['frames']:,.0f} frames" if metrics.get("frames") else "the validation frames"
    people = f" of {per_subject} subjects" if per_subject else ""
    how = "" if SPLIT in run.evaluations else ", as measured in training"
    text = f"What was learned from video, judged on {frames}{people} it never learned from{how}."
    kicker = f"run {run.name}" + (f", the best of {len(page.runs)}" if len(page.runs) > 1 else "")
    return (
        f'<header><p class="kicker">{escape(page.name)} · {escape(kicker)}</p><h1><span class="valence">Valence</span> and <span class="arousal">arousal</span>, frame by frame.</h1>'
        f'<p class="lead">{escape(text)}</p><div class="heroes">{heroes}</div>{_remarks(page.remarks)}</header>'
    )


def _remarks(texts: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(text)}</li>" for text in texts)
    return f'<ul class="remarks">{items}</ul>' if items else ""


def _curves(page: Page) -> str:
    best = page.runs[0]
    several = "; the other runs are pale" if len([run for run in page.runs if run.history]) > 1 else ""
    looked = any("validation_iou" in line for run in page.runs for line in run.history)
    seen = ", and how well the STN of an end-to-end run meets the true boxes" if looked else ""
    caption = (
        f"Mean squared error and CCC{seen}, epoch by epoch{several}. The dot marks the epoch that was kept. The dotted "
        "levels are where the script that this project replaces ended on its own data, Aff-Wild: another set, so a landmark "
        "and not a race."
    )
    last = [f"{name} {number(best.metrics.get(f'mse_{name}'), 3)}" for name in DIMENSIONS]
    alt = f"Three line charts over epochs: loss of arousal, loss of valence, CCC. Validation MSE: {', '.join(last)}."
    return _picture(page, "curves", alt, caption)


def _truth(page: Page) -> str:
    caption = (
        "Best, median and worst subject of the validation split by mean CCC, and all of its frames at once: "
        "a perfect prediction lies on the dashed diagonal."
    )
    ccc = ", ".join(f"{name} {number(page.runs[0].metrics.get(f'ccc_{name}'), 2)}" for name in DIMENSIONS)
    alt = f"Predicted over annotated values in time for three subjects, and a scatter of all frames. CCC: {ccc}."
    return _picture(page, "truth", alt, caption)


def _plane(page: Page) -> str:
    caption = (
        "Each frame is a point: pleasant to the right, awake to the top. The stronger the colour the denser, on a logarithmic scale. Arrows "
        "lead from what was annotated to what is predicted there on average; short arrows are good, arrows to the middle "
        "mean that the model plays safe."
    )
    alt = "The valence-arousal plane three times: density of annotations, of predictions, and arrows between them."
    return _picture(page, "plane", alt, caption)


def _stn(page: Page) -> str:
    if "stn" in page.missing:
        return absent(page.missing["stn"]) + facts_list(page.stn)
    tiles = "".join(map(_tile, page.looks))
    true = '; <span class="key dashed"></span>the true box' if any(it.true is not None for it in page.looks) else ""
    intro = (
        "<p>Frames of validation subjects, evenly drawn and not chosen. Above, where the spatial transformer looks; below, "
        f'all that the backbone gets to see.<br><span class="key"></span>its box{true}.</p>'
    )
    return intro + f'<div class="looks">{tiles}</div>' + (f"<h3>Figures</h3>{facts_list(page.stn)}" if page.stn else "")


def _tile(look: Look) -> str:
    height, width = look.picture.shape[:2]
    corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in look.box)
    shapes = f'<polygon class="halo" points="{corners}"/><polygon class="box" points="{corners}"/>'
    if look.true is not None:
        x0, y0, x1, y1 = look.true
        shapes += f'<rect class="true" x="{x0:.1f}" y="{y0:.1f}" width="{x1 - x0:.1f}" height="{y1 - y0:.1f}"/>'
    said = f"IoU {look.iou:.2f}" if look.iou is not None else f"face {look.presence:.0%}"
    if look.presence < 0.5:
        said = "no face"
    what = f"Subject {look.subject} at {look.time:.1f} s"
    return (
        f'<figure class="look"><div class="shot"><svg viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(what)}: frame with the box">'
        f'<image href="{jpeg_url(look.picture)}" width="{width}" height="{height}"/>{shapes}</svg></div>'
        f'<img class="crop" src="{jpeg_url(look.crop)}" alt="{escape(what)}: the crop">'
        f"<figcaption><b>{escape(look.subject)}</b><span>{look.time:.1f} s</span><span>{escape(said)}</span></figcaption>"
        "</figure>"
    )


def _backbone(page: Page) -> str:
    parts = []
    if "backbone" in page.weights:
        found = page.weights["backbone"]
        faces = f" on {found['faces']:,} faces of FER+ PrivateTest" if isinstance(found.get("faces"), int) else ""
        if "accuracy" in found:
            parts.append(f"<p>Pretrained on eight expressions: accuracy {found['accuracy']:.1%}{escape(faces)}.</p>")
        parts.append(_confusion(found))
    elif "backbone" in page.missing:
        parts.append(absent(page.missing["backbone"]))
    if adapted := page.weights.get("adapted"):
        parts.append("<h3>Adapted to valence and arousal on single frames</h3>" + facts_list(numbers_of(adapted)))
    return "".join(parts)


def _confusion(found: Mapping[str, Any]) -> str:
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


def _numbers(page: Page) -> str:
    parts = ["<h3>Pooled over all frames</h3>", _pooled(page)]
    best = page.runs[0]
    if best.per_subject:
        parts += [f"<h3>Subject by subject</h3><p>{SPLIT.capitalize()}, run {escape(best.name)}. "
                  "A click on a column sorts by it.</p>", _per_subject(best, page.iou)]  # fmt: skip
    else:
        parts.append(absent(page.missing.get("truth", f"Run {best.name} has no figures of single subjects.")))
    if page.problems:
        parts.append("<h3>Left out</h3>" + _remarks([str(problem) for problem in page.problems]))
    return "".join(parts)


def _pooled(page: Page) -> str:
    head = '<th scope="col">run</th><th scope="col" class="text">split</th>' + "".join(
        f'<th scope="col"><span class="{name}">{title}<br>{name}</span></th>'
        for key, title in MEASURES.items()
        for name in DIMENSIONS
        if any(f"{key}_{name}" in run.metrics for run in page.runs)
    )
    columns = [
        f"{key}_{name}"
        for key in MEASURES
        for name in DIMENSIONS
        if any(f"{key}_{name}" in run.metrics for run in page.runs)
    ]
    rows = ""
    for rank, run in enumerate(page.runs):
        for split, metrics in (run.evaluations or {IN_TRAINING: run.metrics}).items():
            cells = "".join(f"<td>{number(metrics.get(column), 3)}</td>" for column in columns)
            mark = ' class="best"' if rank == 0 and split in (SPLIT, IN_TRAINING) else ""
            rows += (
                f'<tr{mark}><th scope="row">{escape(run.name)}</th><td class="text">{escape(split)}</td>{cells}</tr>'
            )
    return scroll(f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>", "Figures of all runs")


def _per_subject(run: Run, iou: Mapping[str, float]) -> str:
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


def _settings(page: Page) -> str:
    best = page.runs[0]
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


def _picture(page: Page, key: str, alt: str, caption: str) -> str:
    if key not in page.pictures:
        return absent(page.missing.get(key, "There is nothing to show."))
    paths = page.pictures[key]
    dark = "".join(
        f'<source srcset="{data_url(path)}" media="screen and (prefers-color-scheme: dark)">' for path in paths[1:]
    )
    picture = f'<picture>{dark}<img src="{data_url(paths[0])}" alt="{escape(alt)}"></picture>'
    return f"<figure>{scroll(picture, alt)}<figcaption>{escape(caption)}</figcaption></figure>"
