"""A video with its traces drawn over it, sound and timestamps kept."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..ingest.video import Decoding, decoded
from ..progress import Talk
from ..storage.mp4 import Mp4
from .overlay import TRAIL, Overlay
from .trace import Moment, Trace

BATCH = 8
"""Pictures at full size in memory at once."""


def film_overlay(path: Path, traces: Sequence[Trace], talk: Talk, title: str, *, deadline: float = 60.0) -> None:
    """Writes the MP4. traces: of the people of one video, whose file is there. Raises VideoError, WorkError."""
    source = traces[0].source

    def film(decoding: Decoding) -> None:
        facts = decoding.facts
        overlay = Overlay(facts.width, facts.height, len(traces))
        rate = facts.frames / facts.seconds if facts.seconds else 30.0
        rows = {int(number): row for row, number in enumerate(traces[0].frame)}
        with talk.track(title, facts.frames, "frames") as tracker, Mp4(path, *overlay.size, rate, sound=source) as mp4:
            for batch in decoding:
                for number, time, picture in zip(batch.index.tolist(), batch.time, batch.pixels, strict=True):
                    if number in rows:
                        moments = [moment_of(trace, rows[number]) for trace in traces]
                        mp4.add(overlay.draw(picture, moments), float(time))
                tracker.advance(len(batch))

    decoded(source, None, film, batch=BATCH, deadline=deadline)


def moment_of(trace: Trace, row: int) -> Moment:
    """A row of a trace."""
    x0, y0, x1, y1 = trace.box[row].tolist()
    return Moment(
        int(trace.frame[row]), float(trace.time[row]), float(trace.face[row]), bool(trace.seen[row]),
        float(trace.valence[row]), float(trace.arousal[row]), (x0, y0, x1, y1),
    )  # fmt: skip


def still(traces: Sequence[Trace], seconds: float) -> NDArray[np.uint8]:
    """The frame at that moment with its overlay, uint8 [h, w, 3] RGB: what the film shows there. Raises VideoError."""
    time = traces[0].time
    at = int(np.searchsorted(time, seconds).clip(0, len(time) - 1))

    def draw(decoding: Decoding) -> NDArray[np.uint8]:
        overlay = Overlay(decoding.facts.width, decoding.facts.height, len(traces))
        picture = next(iter(decoding)).pixels[0]
        for row in range(int(np.searchsorted(time, time[at] - TRAIL)), at):
            overlay.remember([moment_of(trace, row) for trace in traces])
        return overlay.draw(picture, [moment_of(trace, at) for trace in traces])

    number = int(traces[0].frame[at])
    return decoded(traces[0].source, None, draw, batch=1, start=number, stop=number + 1)
