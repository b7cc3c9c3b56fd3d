"""affect live: valence and arousal in real time, from a camera, a stream or a file."""

import json
import math
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from rich.live import Live
from rich.text import Text

from ...configs.schema import Config
from ..errors import InputError
from ..inference.intervals import interval_settings
from ..inference.load import check_model
from ..inference.predictor import Predictor
from ..inference.streaming import open_source, stream_live
from ..inference.tables import INTERVAL_COLUMNS
from ..inference.trace import Moment
from ..inference.unlike import StreamJudge
from ..ingest.video.live import LatestFrame
from ..progress import Reporter
from ..records import shape
from ..visualization.mp4 import Mp4
from ..visualization.overlay import Overlay
from ..visualization.style import DARK

METER = 21
"""Width of a meter on the terminal, in characters."""
OVERLAY_RATE = 30.0
JSON_NAMES = ("time", "face", "valence", "arousal")


def live(
    config: Config,
    source: int | str | Path,
    model: Path,
    reporter: Reporter,
    *,
    as_json: bool = False,
    overlay: Path | None = None,
    seconds: float = math.inf,
    emit: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Predicts the newest frame, repeatedly, until the source ends, after `seconds`, or on Ctrl-C.

    source: number of a camera, URL of a stream, or a file. as_json: gives one line of JSON per frame to `emit`;
    otherwise prints two meters on a terminal, or one line per second elsewhere. overlay: an MP4 file of the processed
    frames, without sound. Returns frames, late (skipped frames) and seconds. Raises MissingStageError, WeightsError,
    DeviceError, VideoError, InputError, WorkError.
    """
    if not seconds >= 0:  # also refuses NaN
        raise InputError(
            f"{seconds} seconds",
            "Give a number of at least 0. Without --seconds, the command runs to the end of the source.",
        )
    check_model(model, reporter, emotions=False, people=1)
    interval_settings([model], config, reporter)
    predictor = Predictor(model, config)
    if predictor.net.head.bidirectional:
        reporter.info(
            f"{model} has a bidirectional head. In live mode each frame is the last one of a window of "
            f"{predictor.clip} frames, so values differ from those of `predict`. "
            "For live use, train a head with head.bidirectional=false"
        )
    frames = late = 0
    unlike = StreamJudge(predictor.reference)
    began, last = time.monotonic(), 0.0
    video: Mp4 | None = None
    drawn: Overlay | None = None
    with ExitStack() as stack:
        newest = stack.enter_context(open_source(predictor, source))
        stack.enter_context(_stopped_by_ctrl_c(newest))
        show = stack.enter_context(_Show(reporter, as_json, emit, intervals=predictor.intervals is not None))
        for moment, arrival in stream_live(predictor, newest):
            frames, late, last = frames + 1, late + moment.late, moment.time
            if text := unlike.push(moment.distance, seen=moment.seen):
                reporter.warning(text)
            if overlay is not None:
                if video is None or drawn is None:
                    height, width = arrival.picture.shape[:2]
                    drawn = Overlay(width, height, shape=shape(width, height, arrival.pixel_aspect))
                    video = stack.enter_context(Mp4(overlay, *drawn.size, OVERLAY_RATE))
                video.add(drawn.draw(arrival.picture, [moment]), moment.time)
            if not show.moment(moment, late) or moment.time >= seconds:
                break
    facts = {"frames": frames, "late": late, "seconds": round(last, 3)}
    spent = max(time.monotonic() - began, 1e-9)
    reporter.info(f"live: {frames} frames in {last:.1f} s, {frames / spent:.1f} frames/s, {late} frames skipped")
    return facts


class _Show:
    """Prints JSON lines, two meters on a terminal, or one line per second."""

    def __init__(
        self, reporter: Reporter, as_json: bool, emit: Callable[[str], None], *, intervals: bool = False
    ) -> None:
        self._names = JSON_NAMES + (INTERVAL_COLUMNS if intervals else ())
        self._reporter, self._as_json, self._emit = reporter, as_json, emit
        on_screen = not as_json and not reporter.quiet and reporter.console.is_terminal
        self._screen = Live(console=reporter.console, refresh_per_second=15, transient=True) if on_screen else None
        self._said = -1.0
        self._times: deque[float] = deque(maxlen=20)

    def __enter__(self) -> "_Show":
        if self._screen:
            self._screen.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._screen:
            self._screen.stop()

    def moment(self, moment: Moment, late: int) -> bool:
        """Prints the moment. Returns whether anybody still reads the output."""
        if self._as_json:
            return self._json(moment)
        self._times.append(time.monotonic())
        rate = (len(self._times) - 1) / max(self._times[-1] - self._times[0], 1e-9)
        if self._screen:
            self._screen.update(_meters(moment, rate, late))
        elif moment.time - self._said >= 1.0 or self._said < 0:
            self._said = moment.time
            self._reporter.info(_meters(moment, rate, late).plain)
        return True

    def _json(self, moment: Moment) -> bool:
        values = {name: _number(getattr(moment, name), 6) for name in self._names}
        record = {"frame": moment.frame, **values, "box": [round(edge, 1) for edge in moment.box], "late": moment.late}
        try:
            self._emit(json.dumps(record))
        except BrokenPipeError:
            return False
        return True


def _meters(moment: Moment, rate: float, late: int) -> Text:
    text = Text(f"{moment.time:7.1f} s  ")
    for name, value in (("valence", moment.valence), ("arousal", moment.arousal)):
        text.append(f"{name} ", style=DARK.of(name))
        text.append_text(_meter(value, DARK.of(name)))
        text.append(f" {'    –' if math.isnan(value) else f'{value:+.2f}'.replace('-', '−')}  ")
    text.append("face  " if moment.seen else "no face  ", style="" if moment.seen else "dim")
    text.append(f"{rate:.0f}/s, {late} late", style="dim")
    return text


def _meter(value: float, colour: str) -> Text:
    """A bar from the middle: left for less than 0, right for more."""
    middle = METER // 2
    end = middle if math.isnan(value) else round((value + 1) / 2 * (METER - 1))
    text = Text()
    for place in range(METER):
        inside = min(middle, end) <= place <= max(middle, end) and not math.isnan(value)
        text.append("█" if inside else "│" if place == middle else "─", style=colour if inside else "dim")
    return text


def _number(value: float, places: int) -> float | None:
    return round(value, places) if math.isfinite(value) else None


@contextmanager
def _stopped_by_ctrl_c(newest: LatestFrame) -> Iterator[None]:
    """The first Ctrl-C ends the iteration after the current frame. A second one interrupts at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        newest.close()
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
