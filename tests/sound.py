"""Adds sound to a video."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def with_sound(video: Path, path: Path, codec: str, rate: int, seconds: float = 0.48) -> Path:
    """Copies a video and adds a tone."""
    with av.open(str(video)) as source, av.open(str(path), "w") as out:
        picture = source.streams.video[0]
        new, sound = out.add_stream_from_template(picture), out.add_stream(codec, rate=rate)
        assert isinstance(sound, av.AudioStream)
        sound.codec_context.layout = "mono"
        for packet in source.demux(picture):
            if packet.dts is not None:
                packet.stream = new
                out.mux(packet)
        for start in range(0, round(rate * seconds), 1024):
            wave = (np.sin(np.arange(start, start + 1024)[None] * 0.1) * 9000).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(wave, "s16", "mono")
            frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
            out.mux(sound.encode(frame))
        out.mux(sound.encode(None))
    return path
