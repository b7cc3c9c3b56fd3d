"""The report's page: HTML that needs no other file and no network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from ... import __version__
from ..records import Problem
from .report_curves import charts, charts_html
from .report_data import DIMENSIONS, SPLIT, Run, numbers_of
from .report_html import absent, assets, data_url, facts_list, jpeg_url, number, scroll, whole_page
from .report_looks import Look
from .report_subjects import Card, cards_html
from .report_tables import confusion, pooled_table, settings, subject_table
from .report_watch import player_html

STYLES = ("page.css", "report.css", "player.css")
SCRIPTS = ("basics.js", "player.js", "players.js", "charts.js", "tables.js")


@dataclass(frozen=True)
class Page:
    """What the page shows. runs: best first. clips: what the player is told, video by video. cards: best and worst
    subjects. pictures: by section, the light one and perhaps a dark one. iou: mean of each subject. stn: figures by
    name. weights: the reports in weights files. missing: by section, and why."""

    name: str
    runs: tuple[Run, ...]
    clips: tuple[Mapping[str, Any], ...]
    cards: tuple[Card, ...]
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
        "watch": ("Watch", _watch(page)),
        "curves": ("Learning", _curves(page)),
        "truth": ("Prediction and truth", _truth(page)),
        "subjects": ("Best and worst", cards_html(page.cards) if page.cards else absent(page.missing["truth"])),
        "plane": ("The plane", _plane(page)),
        "stn": ("What the STN sees", _stn(page)),
        "backbone": ("The backbone", _backbone(page)),
        "numbers": ("Numbers", _numbers(page)),
        "settings": ("Settings", settings(page.runs[0])),
    }
    links = "".join(f'<li><a href="#{key}">{escape(title)}</a></li>' for key, (title, _) in sections.items())
    bodies = "".join(
        f'<section id="{key}"><h2>{escape(title)}</h2>{body}</section>\n' for key, (title, body) in sections.items()
    )
    body = (
        f"{_head(page)}<nav aria-label='Sections'><ul>{links}</ul></nav>\n<main>{bodies}</main>\n"
        f"<footer>affect {escape(__version__)} · made by <code>affect report --work {escape(page.work)}</code></footer>\n"
    )
    return whole_page(page.name, body, style=assets(*STYLES), script=assets(*SCRIPTS))


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


def _watch(page: Page) -> str:
    if not page.clips:
        return absent(page.missing["watch"])
    known = any(clip["truth"] for clip in page.clips)
    beside = " The line in the quiet colour, and the ring on the plane, are what was annotated." if known else ""
    return f"<p>Videos of the validation split as run {escape(page.runs[0].name)} saw them.{beside}</p>{player_html(page.clips)}"


def _curves(page: Page) -> str:
    if "curves" in page.missing:
        return absent(page.missing["curves"])
    several = "; the other runs are pale" if len([run for run in page.runs if run.history]) > 1 else ""
    looked = any("validation_iou" in line for run in page.runs for line in run.history)
    seen = ", and how well the STN of an end-to-end run meets the true boxes" if looked else ""
    caption = (
        f"Mean squared error and CCC{seen}, epoch by epoch{several}. The dot marks the epoch that was kept. The dotted "
        "levels are where the script that this project replaces ended on its own data, Aff-Wild: another set, so a landmark "
        "and not a race."
    )
    return f"<figure>{charts_html(charts(page.runs))}<figcaption>{escape(caption)}</figcaption></figure>"


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
        parts.append(confusion(found))
    elif "backbone" in page.missing:
        parts.append(absent(page.missing["backbone"]))
    if adapted := page.weights.get("adapted"):
        parts.append("<h3>Adapted to valence and arousal on single frames</h3>" + facts_list(numbers_of(adapted)))
    return "".join(parts)


def _numbers(page: Page) -> str:
    parts = ["<h3>Pooled over all frames</h3>", pooled_table(page.runs)]
    best = page.runs[0]
    if best.per_subject:
        parts += [f"<h3>Subject by subject</h3><p>{SPLIT.capitalize()}, run {escape(best.name)}. "
                  "A click on a column sorts by it.</p>", subject_table(best, page.iou)]  # fmt: skip
    else:
        parts.append(absent(page.missing.get("truth", f"Run {best.name} has no figures of single subjects.")))
    if page.problems:
        parts.append("<h3>Left out</h3>" + _remarks([str(problem) for problem in page.problems]))
    return "".join(parts)


def _picture(page: Page, key: str, alt: str, caption: str) -> str:
    if key not in page.pictures:
        return absent(page.missing.get(key, "There is nothing to show."))
    paths = page.pictures[key]
    dark = "".join(
        f'<source srcset="{data_url(path)}" media="screen and (prefers-color-scheme: dark)">' for path in paths[1:]
    )
    picture = f'<picture>{dark}<img src="{data_url(paths[0])}" alt="{escape(alt)}"></picture>'
    return f"<figure>{scroll(picture, alt)}<figcaption>{escape(caption)}</figcaption></figure>"
