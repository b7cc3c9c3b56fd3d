"""The report's best and worst subjects: what their faces were, what was annotated, what was predicted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from ..errors import AffectError, ShardError
from ..learning.metrics import pooled
from ..records import Problem, Work
from ..storage.shard import FrameShard
from .report_data import DIMENSIONS, Series
from .report_html import jpeg_url, number
from .splits import Cached

EACH = 3
"""So many of the best, so many of the worst, and so many frames of each."""
SIDE = 300


@dataclass(frozen=True)
class Card:
    """One subject. ccc: mean, valence, arousal. pictures: (seconds, uint8 [h, w, 3]), evenly over the video."""

    series: Series
    title: str
    ccc: tuple[float, float, float]
    pictures: tuple[tuple[float, NDArray[np.uint8]], ...]


def cards(work: Work, predictions: Mapping[str, Series], shards: Sequence[Cached]) -> tuple[list[Card], list[Problem]]:
    """The best subjects by mean CCC, best first, then the worst, worst last; with pictures where frames are kept."""
    scores = {}
    for name, it in predictions.items():
        if it.valid.any():
            figures = pooled(it.value, it.truth, it.valid)
            scores[name] = tuple(float(figures[f"ccc_{which}"]) for which in ("mean", *DIMENSIONS))
    order = sorted(scores, key=lambda name: (-scores[name][0], name))
    each = min(EACH, max(1, len(order) // 2))
    chosen = [(name, "best") for name in order[:each]] + [
        (name, "worst") for name in order[max(each, len(order) - each) :]
    ]
    videos = {shard.subject: shard.video for shard in shards}
    made: list[Card] = []
    problems: list[Problem] = []
    for name, title in chosen:
        pictures: tuple[tuple[float, NDArray[np.uint8]], ...] = ()
        if name in videos and work.frames(videos[name]).is_file():
            try:
                pictures = _pictures(work, videos[name])
            except AffectError as error:
                problems.append(Problem("damaged", name, error.problem, error.remedy))
        made.append(Card(predictions[name], title, scores[name], pictures))
    return made, problems


def cards_html(made: Sequence[Card]) -> str:
    tiles = "".join(map(_card, made))
    intro = (
        "<p>By mean CCC over their own frames. The line in the quiet colour is what was annotated. The CCC of a "
        "subject whose annotation hardly moves is low even where the prediction is near.</p>"
    )
    return f'{intro}<div class="cards">{tiles}</div>'


def _card(card: Card) -> str:
    name = card.series.subject
    shots = "".join(
        f'<img src="{jpeg_url(picture)}" alt="{escape(name)} at {time:.1f} s">' for time, picture in card.pictures
    )
    mean, *own = card.ccc
    parts = []
    for column, (dimension, fit) in enumerate(zip(DIMENSIONS, own, strict=True)):
        parts.append(
            f'<div class="spark {dimension}"><span>{dimension} <b>{number(fit, 2)}</b></span>'
            f"{_spark(card.series, column, f'{dimension} of {name}, predicted and annotated')}</div>"
        )
    return (
        f'<figure class="card"><div class="shots">{shots}</div><figcaption><span><b>{escape(name)}</b> '
        f"{card.title}</span><span>mean CCC <b>{number(mean, 2)}</b></span></figcaption>{''.join(parts)}</figure>"
    )


def _spark(series: Series, column: int, label: str) -> str:
    """Both lines, from −1 to 1, in a picture of 300 by 50 that may be stretched."""
    span = max(float(series.time[-1] - series.time[0]), 1e-6)
    x = (series.time - series.time[0]) / span * 300
    lines = ""
    for name, values in (("truth", series.truth[:, column]), ("line", series.value[:, column])):
        lines += f'<path class="{name}" d="{path(x, 25 - 24 * values)}"/>'
    return (
        f'<svg viewBox="0 0 300 50" preserveAspectRatio="none" role="img" aria-label="{escape(label)}">'
        f'<line class="zero" x2="300" y1="25" y2="25"/>{lines}</svg>'
    )


def path(x: NDArray[np.float64], y: NDArray[np.float64], most: int = 600) -> str:
    """SVG's path through the points, broken where y is NaN; at most so many points, evenly drawn."""
    kept = np.unique(np.linspace(0, len(x) - 1, min(most, len(x))).round().astype(int))
    pieces, pen = [], "M"
    for across, down in zip(x[kept].tolist(), y[kept].tolist(), strict=True):
        if down != down:
            pen = "M"
            continue
        pieces.append(f"{pen}{across:.1f} {down:.1f}")
        pen = "L"
    return "".join(pieces)


def _pictures(work: Work, video: str) -> tuple[tuple[float, NDArray[np.uint8]], ...]:
    import cv2

    file = work.frames(video)
    with FrameShard(file) as frames:
        time = frames.read("pts")
        places = np.unique(((np.arange(EACH) + 0.5) / EACH * len(time)).astype(int)) if len(time) else np.empty(0, int)
        try:
            width, height = int(frames.attributes["width"]), int(frames.attributes["height"])
        except (KeyError, TypeError, ValueError) as error:
            text = f"{file}: does not say how large its video is"
            raise ShardError(text, "Run `affect extract-frames` again.") from error
        jpegs = frames.jpegs(places)
    shape = [max(1, round(edge * SIDE / max(width, height))) for edge in (width, height)]
    found = []
    for place, jpeg in zip(places, jpegs, strict=True):
        square = cv2.imdecode(jpeg, cv2.IMREAD_COLOR_RGB)
        if square is None:
            raise ShardError(f"{file}: holds a picture that is no JPEG", "Run `affect extract-frames` again.")
        found.append(
            (float(time[place]), np.asarray(cv2.resize(square, shape, interpolation=cv2.INTER_AREA), np.uint8))
        )
    return tuple(found)
