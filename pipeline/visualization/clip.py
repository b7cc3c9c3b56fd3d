"""The data of the player: the prediction of a video, read from the files of `predict`, and a copy of the video.

The page gets it as JSON, and web/player.js shows it. Needs no torch and no matplotlib.
"""

import base64
import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..faults import one_input
from ..inference.tables import INTERVAL_COLUMNS
from ..inference.unlike import unlike_text
from ..names import shown
from ..progress import Reporter
from ..records import Problem
from .style import PLANE_WORDS
from .web_video import WebVideo, make_web_video

FACTS = ".facts.json"
MAX_ROWS = 20_000
"""Frames in a page. Of longer videos, the page has frames at even intervals; the CSV has all."""
REMEDY = "Run `affect predict` on this video again."


@dataclass(frozen=True)
class Clip:
    """One predicted video.

    frame: int64 [n]. time: float64 [n], seconds. value: float64 [n, 2], valence and arousal, NaN if missing.
    face: float64 [n], probability. box: float64 [n, 4], x0 y0 x1 y1 in stored pixels of the upright video.
    truth: float64 [n, 2], annotations, NaN if missing; None if the video has none. remark: a note below the
    player. web_video: the copy to play, or None. interval: float64 [n, 4], the ends of the intervals of valence and
    arousal, NaN if missing; None if the prediction has none. level: of the intervals.
    """

    name: str
    source: Path
    frame: NDArray[np.int64]
    time: NDArray[np.float64]
    value: NDArray[np.float64]
    face: NDArray[np.float64]
    box: NDArray[np.float64]
    threshold: float
    facts: Mapping[str, Any]
    truth: NDArray[np.float64] | None = None
    web_video: WebVideo | None = None
    remark: str = ""
    interval: NDArray[np.float64] | None = None
    level: float | None = None


def read_clip(folder: Path, name: str, threshold: float) -> Clip:
    """Reads the prediction of a video in `folder`, without the video. Raises InputError if it is not complete."""
    table = folder / f"{name}.csv"
    try:
        stored = json.loads((folder / f"{name}{FACTS}").read_text(encoding="utf-8"))
        source, facts = Path(stored["source"]), dict(stored["facts"])
        with table.open(newline="", encoding="utf-8") as file:
            every = list(csv.DictReader(file))
        # The player shows one person.
        rows = [row for row in every if row.get("person", "0") == "0"]
        names: tuple[str, ...] = ("frame", "time", "face", "valence", "arousal", "x0", "y0", "x1", "y1")
        if rows and INTERVAL_COLUMNS[0] in rows[0]:
            names += INTERVAL_COLUMNS
        cells = np.array([[float(row[name] or "nan") for name in names] for row in rows], np.float64)
        cells = cells.reshape(len(rows), len(names))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{table}: cannot be read ({type(error).__name__}: {error})", REMEDY) from error
    if not len(cells):
        raise InputError(f"{table}: there are no rows", REMEDY)
    frame = cells[:, 0].astype(np.int64)
    remark = "This page shows the person on the left. The CSV file has all people." if len(rows) < len(every) else ""
    if text := unlike_text(facts):
        remark = f"{remark} Caution: {text}.".strip()
    face, value, box = cells[:, 2], cells[:, 3:5], cells[:, 5:9]
    clip = Clip(name, source, frame, cells[:, 1], value, face, box, threshold, facts, remark=remark)
    return replace(clip, interval=cells[:, 9:], level=facts.get("level")) if cells.shape[1] > 9 else clip


def moments(clip: Clip) -> dict[str, int]:
    """Rows of the highest arousal and of the highest and lowest valence, by name. Empty without a face."""
    usable = np.flatnonzero(np.isfinite(clip.value).all(1) & (clip.face >= clip.threshold))
    if not len(usable):
        return {}
    valence, arousal = clip.value[usable].T
    return {
        "highest arousal": int(usable[arousal.argmax()]),
        "highest valence": int(usable[valence.argmax()]),
        "lowest valence": int(usable[valence.argmin()]),
    }


def with_web_video(clip: Clip, max_bytes: int, reporter: Reporter) -> Clip:
    """Adds a copy of the video of at most `max_bytes`, or a remark why there is none.

    If the copy lacks sound, a remark and a warning give the reason.
    """
    numbers = {int(clip.frame[row]) for row in moments(clip).values()}
    web_video, problems = None, list[Problem]()
    with one_input(clip.name, problems):
        web_video = make_web_video(clip.source, max_bytes, numbers)
    if web_video is None:
        return replace(clip, remark=f"{clip.remark} The video cannot be shown: {problems[0].message}.".strip())
    remarks = [clip.remark]
    if not web_video.whole:
        remarks.append(f"The video stops at {web_video.end:.0f} s to keep this page small. The curves show all frames.")
    if web_video.silent:
        remarks.append(f"The video has no sound or only a part of it ({shown(web_video.silent)}).")
        reporter.warning(f"{clip.name}: the video of the page has no sound or only a part of it ({web_video.silent})")
    return replace(clip, web_video=web_video, remark=" ".join(filter(None, remarks)))


def as_json(clip: Clip) -> dict[str, Any]:
    """The JSON of the player, with the video as base64."""
    kept = np.arange(0, len(clip.time), -(-len(clip.time) // MAX_ROWS))
    web_video = clip.web_video
    pictures = web_video.pictures if web_video else {}
    box = clip.box * (web_video.stretch * 2 if web_video else 1.0)
    return {
        "name": shown(clip.name),
        "video": base64.b64encode(web_video.data).decode() if web_video else "",
        "start": round(web_video.start, 6) if web_video else 0,
        "end": round(web_video.end, 6) if web_video else 0,
        "width": web_video.width if web_video else 0,
        "height": web_video.height if web_video else 0,
        "threshold": clip.threshold,
        "words": words(),
        "remark": clip.remark,
        "moments": [
            {
                "name": name,
                "time": round(float(clip.time[row]), 4),
                "picture": _picture(pictures.get(int(clip.frame[row]))),
            }
            for name, row in moments(clip).items()
        ],
        "rows": rows_of(clip.frame[kept], clip.time[kept], clip.value[kept], clip.face[kept], box[kept]),
        "truth": None if clip.truth is None else [_short(column, 3) for column in clip.truth[kept].T],
        "interval": None if clip.interval is None else [_short(column, 3) for column in clip.interval[kept].T],
    }


def rows_of(
    frame: NDArray[np.int64],
    time: NDArray[np.float64],
    value: NDArray[np.floating[Any]],
    face: NDArray[np.floating[Any]],
    box: NDArray[np.floating[Any]],
) -> dict[str, list[Any]]:
    """The columns of the player, rounded; None for a missing number."""
    return {
        "frame": frame.tolist(),
        "time": _short(time, 4),
        "valence": _short(value[:, 0], 3),
        "arousal": _short(value[:, 1], 3),
        "face": _short(face, 3),
        "box": [[round(edge) for edge in corners] if np.isfinite(corners).all() else None for corners in box.tolist()],
    }


def words() -> list[list[Any]]:
    """The words on the plane: x, y, word."""
    return [[x, y, word] for (x, y), word in PLANE_WORDS.items()]


def _picture(data: bytes | None) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}" if data else ""


def _short(values: NDArray[np.floating[Any]], places: int) -> list[float | None]:
    return [round(it, places) if it == it else None for it in values.astype(np.float64).tolist()]
