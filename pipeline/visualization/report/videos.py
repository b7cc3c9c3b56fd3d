"""The report's player: videos that were predicted into the work folder."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ....configs.schema import Config
from ...faults import one_input
from ...inference.outputs import recorded
from ...inference.picture_table import PICTURES
from ...progress import Reporter
from ...records import Problem, Work
from ..clip import FACTS, Clip, as_json, read_clip, with_web_video
from .data import Series

MAX_VIDEOS = 4


def predicted(work: Work) -> list[str]:
    """Names of the videos in the report: predicted into predict/ of the work folder. Pictures are left out."""
    folder = work.root / "predict"
    names = sorted(path.name.removesuffix(FACTS) for path in folder.glob(f"*{FACTS}"))
    known = {name: recorded(folder, name) for name in names}
    return [name for name, it in known.items() if it is None or PICTURES not in it.facts][:MAX_VIDEOS]


def read_by(work: Work) -> list[Path]:
    """The files that `clips_of` reads."""
    folder = work.root / "predict"
    return [folder / f"{name}{ending}" for name in predicted(work) for ending in (FACTS, ".csv")]


def clips_of(
    config: Config, work: Work, truth: Mapping[str, Series], reporter: Reporter
) -> tuple[list[dict[str, Any]], list[Problem]]:
    """The player's JSON of each video, and the problems. The videos share the bytes of the page.

    truth: by subject. If a subject has the name of a video, the player shows its annotations.
    """
    clips: list[dict[str, Any]] = []
    problems: list[Problem] = []
    names = predicted(work)
    bytes_left = config.report.video_mib * 2**20
    with reporter.progress("report: videos", len(names), "videos") as tracker:
        for place, name in enumerate(names):
            with one_input(name, problems):
                clip = read_clip(work.root / "predict", name, config.predict.face_threshold)
                share = int(bytes_left / (len(names) - place))
                clip = with_web_video(_with_truth(clip, truth.get(name)), share, reporter)
                bytes_left -= len(clip.web_video.data) if clip.web_video else 0
                clips.append(as_json(clip))
            tracker.advance()
    return clips, problems


def _with_truth(clip: Clip, series: Series | None) -> Clip:
    """Adds the annotations to the frames of equal time."""
    if series is None or not len(series.time):
        return clip
    place = np.searchsorted(series.time, clip.time - 1e-3).clip(0, len(series.time) - 1)
    same = np.abs(series.time[place] - clip.time) < 1e-3
    return replace(clip, truth=np.where(same[:, None], series.truth[place], np.nan)) if same.any() else clip
