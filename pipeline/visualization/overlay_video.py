"""A copy of a video with the values drawn over it. Sound and timestamps stay."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..inference.trace import Moment, TraceData
from ..ingest.video.decode import Decoding, decoded
from ..progress import Reporter
from .mp4 import Mp4
from .overlay import TRACE_SECONDS, Overlay

BATCH = 8
"""Frames of full size in memory at once."""


def write_overlay_video(
    path: Path, traces: Sequence[TraceData], reporter: Reporter, title: str, *, deadline: float = 60.0
) -> None:
    """Writes the MP4. traces: one per person, all of one video. Raises VideoError, WorkError."""
    source = traces[0].source

    def write_frames(decoding: Decoding) -> None:
        facts = decoding.facts
        overlay = Overlay(facts.width, facts.height, len(traces), facts.shape)
        rate = facts.frames / facts.seconds if facts.seconds else 30.0
        rows = {int(number): row for row, number in enumerate(traces[0].frame)}
        with (
            reporter.progress(title, facts.frames, "frames") as tracker,
            Mp4(path, *overlay.size, rate, sound=source) as mp4,
        ):
            for batch in decoding:
                for number, time, picture in zip(batch.index.tolist(), batch.time, batch.pixels, strict=True):
                    if number in rows:
                        moments = [moment_of(trace, rows[number]) for trace in traces]
                        mp4.add(overlay.draw(picture, moments), float(time))
                tracker.advance(len(batch))
        if mp4.silent:
            reporter.warning(f"{traces[0].name}: the overlay video has no sound or only a part of it ({mp4.silent})")

    decoded(source, None, write_frames, batch=BATCH, deadline=deadline)


def moment_of(trace: TraceData, row: int) -> Moment:
    """A row of a trace."""
    x0, y0, x1, y1 = trace.box[row].tolist()
    return Moment(
        int(trace.frame[row]), float(trace.time[row]), float(trace.face[row]), bool(trace.seen[row]),
        float(trace.valence[row]), float(trace.arousal[row]), (x0, y0, x1, y1), 0,
        *([] if trace.interval is None else trace.interval[row].ravel().tolist()),
    )  # fmt: skip


def render_frame(traces: Sequence[TraceData], seconds: float) -> NDArray[np.uint8]:
    """The frame at that time with its overlay, uint8 [h, w, 3] RGB, as in the video. Raises VideoError."""
    time = traces[0].time
    at = int(np.searchsorted(time, seconds).clip(0, len(time) - 1))

    def draw(decoding: Decoding) -> NDArray[np.uint8]:
        facts = decoding.facts
        overlay = Overlay(facts.width, facts.height, len(traces), facts.shape)
        picture = next(iter(decoding)).pixels[0]
        for row in range(int(np.searchsorted(time, time[at] - TRACE_SECONDS)), at):
            overlay.remember([moment_of(trace, row) for trace in traces])
        return overlay.draw(picture, [moment_of(trace, at) for trace in traces])

    number = int(traces[0].frame[at])
    return decoded(traces[0].source, None, draw, batch=1, start=number, stop=number + 1)
