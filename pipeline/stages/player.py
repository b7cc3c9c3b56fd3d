"""What the player shows: a video's prediction, read back from what `predict` left, with the video itself made playable.

The page gets it as JSON; web/player.js draws it. Needs no torch and no matplotlib.
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

from ..errors import InputError, VideoError
from .plots import PLANE_WORDS
from .web_video import Film, make_film

FACTS = ".facts.json"
MOST_ROWS = 20_000
"""A page shows at most so many frames of a video, evenly drawn; the CSV has all."""
NO_SCRIPT = '<noscript><p class="missing">The player needs JavaScript.</p></noscript>'
REMEDY = "Run `affect predict` on it again."


@dataclass(frozen=True)
class Clip:
    """One predicted video. time: float64 [n] seconds. value: float64 [n, 2] valence and arousal, NaN where there is
    none. face: float64 [n], probability. box: float64 [n, 4], x0 y0 x1 y1 in pixels of the video as shown. frame:
    int64 [n]. truth: [n, 2] what was annotated, NaN where nothing was; None where it is not known.
    film: the video to play, None where it cannot be shown. remark: what a reader has to know of it."""

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
    film: Film | None = None
    remark: str = ""


def read_clip(folder: Path, name: str, threshold: float) -> Clip:
    """What `predict` left of a video in `folder`, without the video. Raises InputError where it is not all there."""
    table = folder / f"{name}.csv"
    try:
        told = json.loads((folder / f"{name}{FACTS}").read_text(encoding="utf-8"))
        source, facts = Path(told["source"]), dict(told["facts"])
        with table.open(newline="", encoding="utf-8") as file:
            every = list(csv.DictReader(file))
        # Of several people the first one is shown.
        rows = [row for row in every if row.get("person", "0") == "0"]
        names = ("frame", "time", "face", "valence", "arousal", "x0", "y0", "x1", "y1")
        cells = np.array([[float(row[name] or "nan") for name in names] for row in rows], np.float64)
        cells = cells.reshape(len(rows), len(names))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{table}: cannot be read ({type(error).__name__}: {error})", REMEDY) from error
    if not len(cells):
        raise InputError(f"{table}: has no row", REMEDY)
    frame = cells[:, 0].astype(np.int64)
    remark = "Of several people the one on the left is shown; the table has all." if len(rows) < len(every) else ""
    face, value, box = cells[:, 2], cells[:, 3:5], cells[:, 5:9]
    return Clip(name, source, frame, cells[:, 1], value, face, box, threshold, facts, remark=remark)


def moments(clip: Clip) -> dict[str, int]:
    """The rows worth a look, by what they are: of greatest arousal, and of greatest and least valence."""
    there = np.flatnonzero(np.isfinite(clip.value).all(1) & (clip.face >= clip.threshold))
    if not len(there):
        return {}
    valence, arousal = clip.value[there].T
    return {
        "liveliest": int(there[arousal.argmax()]),
        "most pleasant": int(there[valence.argmax()]),
        "least pleasant": int(there[valence.argmin()]),
    }


def with_film(clip: Clip, most: int) -> Clip:
    """The clip with its video in at most so many bytes; without it, and saying so, where it cannot be shown."""
    wanted = {int(clip.frame[row]) for row in moments(clip).values()}
    try:
        film = make_film(clip.source, most, wanted)
    except VideoError as error:
        return replace(clip, remark=f"{clip.remark} The video cannot be shown: {error.problem}.".strip())
    if not film.whole:
        text = f"The picture ends at {film.end:.0f} s, so that this page stays small; the traces go on to the end."
        return replace(clip, film=film, remark=f"{clip.remark} {text}".strip())
    return replace(clip, film=film)


def as_json(clip: Clip) -> dict[str, Any]:
    """All that the player is told of a clip; the video is in it, as base64."""
    kept = np.arange(0, len(clip.time), -(-len(clip.time) // MOST_ROWS))
    film = clip.film
    pictures = film.pictures if film else {}
    return {
        "name": clip.name,
        "video": base64.b64encode(film.data).decode() if film else "",
        "start": round(film.start, 6) if film else 0,
        "end": round(film.end, 6) if film else 0,
        "width": film.width if film else 0,
        "height": film.height if film else 0,
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
        "rows": rows_of(clip.frame[kept], clip.time[kept], clip.value[kept], clip.face[kept], clip.box[kept]),
        "truth": None if clip.truth is None else [_short(column, 3) for column in clip.truth[kept].T],
    }


def rows_of(
    frame: NDArray[np.int64],
    time: NDArray[np.float64],
    value: NDArray[np.floating[Any]],
    face: NDArray[np.floating[Any]],
    box: NDArray[np.floating[Any]],
) -> dict[str, list[Any]]:
    """Frames as the player reads them, column by column; None where there is no number."""
    return {
        "frame": frame.tolist(),
        "time": _short(time, 4),
        "valence": _short(value[:, 0], 3),
        "arousal": _short(value[:, 1], 3),
        "face": _short(face, 3),
        "box": [[round(edge) for edge in corners] if np.isfinite(corners).all() else None for corners in box.tolist()],
    }


def words() -> list[list[Any]]:
    """The words around the circumplex: x, y, word."""
    return [[x, y, word] for (x, y), word in PLANE_WORDS.items()]


def clip_script(clip: Mapping[str, Any]) -> str:
    """The element that carries a clip's JSON; nothing in it can end the element early."""
    text = json.dumps(clip, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return f'<script type="application/json" class="clip">{text}</script>'


def _picture(data: bytes | None) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}" if data else ""


def _short(values: NDArray[np.floating[Any]], places: int) -> list[float | None]:
    return [round(it, places) if it == it else None for it in values.astype(np.float64).tolist()]
