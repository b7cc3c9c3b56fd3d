"""Opens the sound of a video and resamples it to a rate that AAC supports, with rising timestamps."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import av
from av.error import FFmpegError

from ..ingest.video.packets import packets_of

if TYPE_CHECKING:
    from av.container import InputContainer

AAC_RATES = (7350, 8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
"""Sample rates of AAC (ISO/IEC 14496-3, table 1.18)."""
FALLBACK_RATE = 48000
"""For sound with a higher rate than AAC supports."""
JITTER = 0.02
"""Seconds between two frames that do not count as a gap."""

MAX_LOST_PACKETS = 10
"""Packets that may be undecodable without a message: about 0.2 s. Recordings often begin in the middle of a packet."""


@dataclass
class SoundLoss:
    """Why the sound of a copy is missing or incomplete; an empty reason if it is not."""

    reason: str = ""

    def add(self, error: Exception | str) -> None:
        """Keeps the first reason."""
        self.reason = self.reason or " ".join(str(getattr(error, "strerror", None) or error).split())


def open_sound(path: Path, loss: SoundLoss) -> "tuple[InputContainer, av.AudioStream] | None":
    """The file and its best audio stream. None if it has no sound, or, with a reason in `loss`, none that is usable."""
    try:
        source = av.open(str(path.absolute()), metadata_errors="ignore")
    except (FFmpegError, OSError) as error:
        loss.add(error)
        return None
    found = source.streams.best("audio") or next(iter(source.streams.audio), None)
    if isinstance(found, av.AudioStream):
        # PyAV gives no context for a codec that FFmpeg does not know.
        if found.codec_context and found.codec_context.sample_rate:  # pyright: ignore[reportUnnecessaryComparison]
            return source, found
        loss.add("its sound has no sample rate" if found.codec_context else "its audio codec is unknown")
    source.close()
    return None


def aac_rate(rate: int) -> int:
    """The sample rate for AAC: the same, or the next higher one that AAC supports."""
    return rate if rate in AAC_RATES else min((it for it in AAC_RATES if it > rate), default=FALLBACK_RATE)


def resampled(
    source: "InputContainer", stream: av.AudioStream, loss: SoundLoss, *, rate: int, layout: str, start: float = 0.0
) -> Iterator[av.AudioFrame]:
    """The sound as frames of float32 at `rate`, timestamps in 1 / rate seconds after `start` seconds of the file.

    A frame whose timestamp is before the end of the previous frame follows directly after it. Packets that cannot be
    decoded are skipped and noted in `loss`.
    """
    resampler, kind, due = None, None, None
    for frame in _decoded(source, stream, loss):
        if not frame.sample_rate or not frame.samples:
            continue
        own = frame.format.name, frame.layout.name, frame.sample_rate
        at = None if frame.time is None else round((frame.time - start) * frame.sample_rate)
        if due is None or kind is None:
            due = at or 0
        elif own[2] != kind[2]:
            due = round(due * own[2] / kind[2])
        if at is not None and at - due > JITTER * frame.sample_rate:
            due = at
        if resampler is None or own != kind:  # a broadcast may change from stereo to mono at any packet
            yield from resampler.resample(None) if resampler else ()
            resampler, kind = av.AudioResampler(format="fltp", layout=layout, rate=rate), own
        frame.pts, frame.time_base = due, Fraction(1, frame.sample_rate)
        due += frame.samples
        yield from resampler.resample(frame)
    yield from resampler.resample(None) if resampler else ()


def _decoded(source: "InputContainer", stream: av.AudioStream, loss: SoundLoss) -> Iterator[av.AudioFrame]:
    lost, found = 0, False
    try:
        for packet in packets_of(source, stream):
            try:
                for frame in packet.decode():
                    if isinstance(frame, av.AudioFrame):
                        found = True
                        yield frame
            except FFmpegError as error:
                lost += 1
                if lost > MAX_LOST_PACKETS:
                    loss.add(error)
    except (FFmpegError, OSError) as error:  # keep what was read before the damage
        loss.add(error)
    if lost and not found:
        loss.add("none of it can be decoded")
