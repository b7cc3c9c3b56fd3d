"""The report's page: one HTML file that needs no other file and no network. templates/report/ has its sections."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...records import Problem
from ..html import PLAYER_SCRIPTS, assets, render, template_texts
from .curves import readouts
from .data import SPLIT, Run, numbers_of
from .stn_samples import StnSample
from .subjects import Card
from .tables import pooled_table, settings_table, subject_table

STYLES = ("page.css", "report.css", "player.css")
SCRIPTS = (*PLAYER_SCRIPTS, "players.js", "curves.js", "tables.js")
SECTIONS = {
    "watch": "Watch",
    "curves": "Learning",
    "truth": "Prediction and truth",
    "subjects": "Best and worst",
    "plane": "The plane",
    "stn": "Boxes and crops of the STN",
    "backbone": "The backbone",
    "numbers": "Numbers",
    "settings": "Settings",
}
"""Titles by section. Each section has a template of this name in templates/report/."""


@dataclass(frozen=True)
class Page:
    """What the page shows. runs: best first. clips: data of the player by video. cards: best and worst subjects.

    pictures: by section, the light file and perhaps the dark one. samples: frames with boxes and crops. iou: mean by
    subject. stn: its figures by name. weights: the reports in weights files. missing: by section, why it is empty.
    """

    name: str
    runs: tuple[Run, ...]
    clips: tuple[Mapping[str, Any], ...]
    cards: tuple[Card, ...]
    pictures: Mapping[str, tuple[Path, ...]]
    samples: tuple[StnSample, ...]
    iou: Mapping[str, float]
    stn: Mapping[str, Any]
    weights: Mapping[str, dict[str, Any]]
    missing: Mapping[str, str]
    remarks: tuple[str, ...]
    problems: tuple[Problem, ...]
    work: str


def write_page(page: Page) -> str:
    """The HTML."""
    best = page.runs[0]
    return render(
        "report/page.html", title=page.name, page=page, run=best, split=SPLIT, sections=SECTIONS,
        style=assets(*STYLES), script=assets(*SCRIPTS), readouts=readouts(page.runs),
        pooled=pooled_table(page.runs), subjects=subject_table(best, page.iou), settings=settings_table(best),
        adapted=numbers_of(page.weights.get("adapted", {})),
    )  # fmt: skip


def page_source() -> str:
    """CSS, JavaScript and templates of the page, for its fingerprint."""
    return assets(*STYLES, *SCRIPTS) + template_texts()
