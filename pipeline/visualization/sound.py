"""Resamples the sound of a video to a rate that AAC supports, with rising timestamps."""

import contextlib
from collections.abc import Iterator
from fractions import Fraction
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


def aac_rate(rate: int) -> int:
    """The sample rate for AAC: the same, or the next higher one that AAC supports."""
    return rate if rate in AAC_RATES else min((it for it in AAC_RATES if it > rate), default=FALLBACK_RATE)


def resampled(
    source: "InputContainer", stream: av.AudioStream, *, rate: int, layout: str, start: float = 0.0
) -> Iterator[av.AudioFrame]:
    """The sound as frames of float32 at `rate`, timestamps in 1 / rate seconds after `start` seconds of the file.

    A frame whose timestamp is before the end of the previous frame follows directly after it. Packets that cannot be
    decoded are skipped.
    """
    resampler, kind, due = None, None, None
    for frame in _decoded(source, stream):
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


def _decoded(source: "InputContainer", stream: av.AudioStream) -> Iterator[av.AudioFrame]:
    with contextlib.suppress(FFmpegError, OSError):  # keep what was read before the damage
        for packet in packets_of(source, stream):
            with contextlib.suppress(FFmpegError):
                for frame in packet.decode():
                    if isinstance(frame, av.AudioFrame):
                        yield frame
