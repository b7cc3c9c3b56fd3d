"""An H.264 video, written frame by frame in constant memory, with the sound of another file beside it."""

import contextlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Self, cast

import av
import numpy as np
from av.error import FFmpegError
from numpy.typing import NDArray

from ..errors import WorkError
from .leftovers import temporary_beside

if TYPE_CHECKING:
    from av import AudioStream, Packet
    from av.container import InputContainer, OutputContainer

TICK = Fraction(1, 90000)
COPIED = ("aac", "mp3", "ac3", "eac3", "alac", "opus")
"""Sound that an MP4 takes as it is; other sound becomes AAC."""


class Mp4:
    """Writes `path` in a `with`; what is not closed there leaves nothing. width, height: even numbers of pixels.

    sound: a file whose first audio stream is taken along; None, or a file without sound: silence. Raises WorkError.
    """

    def __init__(self, path: Path, width: int, height: int, rate: float, sound: Path | None = None) -> None:
        self.path = path
        self._part = temporary_beside(path)
        self._last = -1
        with _told(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._out = av.open(str(self._part), "w", format="mp4", options={"movflags": "faststart"})
            fps = Fraction(min(max(rate, 1.0), 240.0)).limit_denominator(1001)
            self._stream = self._out.add_stream("libx264", rate=fps, options={"preset": "veryfast", "crf": "20"})
            self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
            self._stream.codec_context.time_base = TICK
            self._sound = _sound(sound, self._out) if sound else iter(())
        self._waiting: tuple[float, Packet] | None = None

    def add(self, picture: NDArray[np.uint8], seconds: float) -> None:
        """The next frame, uint8 [h, w, 3] RGB, and when it is shown: later than the one before."""
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), "rgb24")
        self._last = max(round(seconds / TICK), self._last + 1)
        frame.pts, frame.time_base = self._last, TICK
        with _told(self.path):
            self._hear(seconds)
            self._out.mux(self._stream.encode(frame))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                with _told(self.path):
                    self._hear(float("inf"))
                    self._out.mux(self._stream.encode())
                    self._out.close()
                    self._part.replace(self.path)
        finally:
            with contextlib.suppress(FFmpegError, OSError):
                self._out.close()
            self._part.unlink(missing_ok=True)

    def _hear(self, until: float) -> None:
        """Writes the sound up to there, so that both lie beside each other in the file."""
        while True:
            self._waiting = self._waiting or next(self._sound, None)
            if self._waiting is None or self._waiting[0] > until:
                return
            self._out.mux(self._waiting[1])
            self._waiting = None


def _sound(path: Path, out: "OutputContainer") -> "Iterator[tuple[float, Packet]]":
    """Adds a stream for the sound of `path` to `out`; then, packet by packet, when it is heard and the packet."""
    try:
        source = av.open(str(path), metadata_errors="ignore")
    except (FFmpegError, OSError):
        return iter(())
    found = source.streams.best("audio")
    if not isinstance(found, av.AudioStream) or not found.codec_context.sample_rate:
        source.close()
        return iter(())
    start = (source.start_time or 0) / av.time_base
    if found.codec_context.name in COPIED:
        return _copied(source, found, out.add_stream_from_template(found), start)
    new = cast("AudioStream", out.add_stream("aac", rate=found.codec_context.sample_rate))
    new.codec_context.layout = "stereo" if (found.codec_context.channels or 1) > 1 else "mono"
    return _transcoded(source, found, new, start)


def _copied(
    source: "InputContainer", old: av.AudioStream, new: av.AudioStream, start: float
) -> "Iterator[tuple[float, Packet]]":
    base = float(old.time_base or 1)
    with source, contextlib.suppress(FFmpegError):
        for packet in source.demux(old):
            if packet.dts is None or packet.pts is None:
                continue
            packet.pts, packet.dts = packet.pts - round(start / base), packet.dts - round(start / base)
            seconds, packet.stream = packet.pts * base, new
            yield seconds, packet


def _transcoded(
    source: "InputContainer", old: av.AudioStream, new: av.AudioStream, start: float
) -> "Iterator[tuple[float, Packet]]":
    context = new.codec_context
    resampler = av.AudioResampler(format="fltp", layout=context.layout, rate=context.sample_rate)
    tick = Fraction(1, context.sample_rate)
    with source:
        with contextlib.suppress(FFmpegError):
            for frame in source.decode(old):
                if frame.pts is not None and frame.time_base is not None:
                    frame.pts -= round(start / frame.time_base)
                for part in resampler.resample(frame):
                    yield from ((float(packet.pts or 0) * float(tick), packet) for packet in new.encode(part))
        yield from ((float(packet.pts or 0) * float(tick), packet) for packet in new.encode(None))


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except (FFmpegError, OSError) as error:
        raise WorkError(
            f"{path}: cannot be written ({error.strerror or error})", "Free space, or choose another folder."
        ) from error
