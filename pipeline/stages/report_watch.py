"""The report's player: the videos that `affect all` predicts at the end, in step with their traces."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ...configs.schema import Config
from ..errors import InputError
from ..progress import Talk
from ..records import Problem, Work
from .player import FACTS, NO_SCRIPT, Clip, as_json, clip_script, read_clip, with_film
from .report_data import Series

MOST_VIDEOS = 4


def predicted(work: Work) -> list[str]:
    """The names of the videos predicted in the work folder that a report shows."""
    names = sorted(path.name.removesuffix(FACTS) for path in (work.root / "predict").glob(f"*{FACTS}"))
    return names[:MOST_VIDEOS]


def read_by(work: Work) -> list[Path]:
    """The files that the player is made from, as far as they are there."""
    folder = work.root / "predict"
    return [folder / f"{name}{ending}" for name in predicted(work) for ending in (FACTS, ".csv")]


def clips_of(
    config: Config, work: Work, truth: Mapping[str, Series], talk: Talk
) -> tuple[list[dict[str, Any]], list[Problem]]:
    """What the player is told of each video, the bytes of a page shared out among them; and what cannot be read.

    truth: by subject; one of a video's name is drawn beside its prediction.
    """
    told: list[dict[str, Any]] = []
    problems: list[Problem] = []
    names = predicted(work)
    left = config.report.video_mib * 2**20
    with talk.track("report: videos", len(names), "videos") as tracker:
        for place, name in enumerate(names):
            try:
                clip = read_clip(work.root / "predict", name, config.predict.face_threshold)
                clip = with_film(_beside(clip, truth.get(name)), int(left / (len(names) - place)))
                left -= len(clip.film.data) if clip.film else 0
                told.append(as_json(clip))
            except InputError as error:
                problems.append(Problem("damaged", name, error.problem, error.remedy))
            tracker.advance()
    return told, problems


def player_html(clips: Iterable[Mapping[str, Any]]) -> str:
    return f'<div class="players">{"".join(map(clip_script, clips))}{NO_SCRIPT}</div>'


def _beside(clip: Clip, series: Series | None) -> Clip:
    """The clip with what was annotated, frame by frame where the times agree."""
    if series is None or not len(series.time):
        return clip
    place = np.searchsorted(series.time, clip.time - 1e-3).clip(0, len(series.time) - 1)
    same = np.abs(series.time[place] - clip.time) < 1e-3
    return replace(clip, truth=np.where(same[:, None], series.truth[place], np.nan)) if same.any() else clip
