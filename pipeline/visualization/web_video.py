"""A copy of a video that every browser plays: H.264 in MP4, small, with the frame times of the predictions."""

import io
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import VideoError
from ..ingest.video.pyav_decoder import frames_by_pyav
from ..ingest.video.timeline import Timeline, open_video, read_timeline

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import OutputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

    from .sound import SoundLoss

TICK = Fraction(1, 90_000)
PAYLOAD_SHARE = 0.93
"""Share of the bytes for picture and sound. The container needs the rest."""


class _Grade(NamedTuple):
    """A quality. min_bits: of the picture, per second. side: the longest, in pixels. rate: frames per second.

    sound: bits per second.
    """

    min_bits: int
    side: int
    rate: int
    sound: int


GRADES = (
    _Grade(500_000, 640, 60, 64_000), _Grade(220_000, 480, 30, 64_000), _Grade(110_000, 400, 15, 48_000),
    _Grade(55_000, 320, 10, 32_000),
)  # fmt: skip
"""The best one that fits is used. If none fits, the last one is used and the copy ends early."""


@dataclass(frozen=True)
class WebVideo:
    """data: the MP4, whose time 0 is `start` seconds into the video; it shows the video until `end` seconds.

    width, height: of the source as displayed, in square pixels. stretch: width and height of a stored pixel in square
    pixels. pictures: JPEGs by frame number. whole: the copy has the full length. silent: why the sound is missing or
    incomplete, else empty.
    """

    data: bytes
    start: float
    end: float
    width: int
    height: int
    pictures: dict[int, bytes]
    whole: bool
    stretch: tuple[float, float] = (1.0, 1.0)
    silent: str = ""


def make_web_video(path: Path, max_bytes: int, frames: Collection[int] = ()) -> WebVideo:
    """Encodes the video again in at most `max_bytes`. frames: numbers of frames to return as JPEGs too.

    Raises VideoError if no frame can be decoded.
    """
    timeline = read_timeline(path)
    grade, bits, seconds = _choose(timeline.facts.seconds, max_bytes)
    start = float(timeline.time[0])
    shape = timeline.facts.shape
    scale = min(1.0, grade.side / max(shape))
    size = tuple(max(2, round(edge * scale / 2) * 2) for edge in shape)
    import av
    from av.error import FFmpegError

    from .sound import SoundLoss

    buffer, pictures, loss = io.BytesIO(), {}, SoundLoss()
    with av.open(buffer, "w", format="mp4") as out:
        video = _video_stream(out, size, grade, bits)
        sound = _sound_stream(out, path, grade, loss)
        written, last, end = 0, -1.0, start
        for number, time, picture in _pictures(path, timeline, size):
            if number in frames:
                pictures[number] = _jpeg(picture)
            if time - start > seconds or written * 8 > bits * seconds * 1.02 + bits:
                if len(pictures) == len(frames):
                    break
                continue
            if last >= 0 and time - last < 0.9 / grade.rate:
                continue
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            frame.pts, frame.time_base = round((time - start) / TICK), TICK
            written += _mux(out, video.encode(frame))
            last = end = time
        if last < 0:
            raise VideoError(f"{path}: no frame can be decoded", "Restore the file.")
        _mux(out, video.encode())
        if sound is not None:
            origin = float(timeline.stamp[0] * _time_base(path))
            try:
                _copy_sound(out, sound, path, origin, end - start, loss)
            except (FFmpegError, ValueError) as error:
                loss.add(error)
    whole = end >= float(timeline.time[-1]) - 2 / grade.rate
    return WebVideo(buffer.getvalue(), start, end, *shape, pictures, whole, timeline.facts.stretch, loss.reason)


def _choose(seconds: float, max_bytes: int) -> tuple[_Grade, int, float]:
    """The grade, bits per second of its picture, and the seconds that fit."""
    total = max_bytes * 8 * PAYLOAD_SHARE
    for grade in GRADES:
        bits = total / max(seconds + 2, 1) - grade.sound  # the buffer of x264 may add a second
        if bits >= grade.min_bits:
            return grade, int(min(bits, 2_500_000)), seconds
    grade = GRADES[-1]
    return grade, grade.min_bits, max(1.0, total / (grade.min_bits + grade.sound) - 2)


def _video_stream(out: "OutputContainer", size: tuple[int, ...], grade: _Grade, bits: int) -> "VideoStream":
    stream = out.add_stream("libx264", rate=grade.rate)
    stream.width, stream.height = size
    stream.pix_fmt = "yuv420p"
    stream.codec_context.time_base = TICK
    stream.thread_count = 2
    stream.options = {
        "preset": "veryfast", "crf": "25", "maxrate": str(bits), "bufsize": str(bits), "g": "48", "profile": "high",
    }  # fmt: skip
    return stream


def _sound_stream(out: "OutputContainer", path: Path, grade: _Grade, loss: "SoundLoss") -> "AudioStream | None":
    import av

    from .sound import open_sound

    opened = open_sound(path, loss)
    if opened is None:
        return None
    opened[0].close()
    stream = out.add_stream("aac", rate=44_100)
    assert isinstance(stream, av.AudioStream)
    stream.bit_rate = grade.sound
    stream.codec_context.layout = "stereo" if grade.sound >= 64_000 else "mono"
    return stream


def _pictures(path: Path, timeline: Timeline, size: tuple[int, ...]) -> Iterator[tuple[int, float, NDArray[np.uint8]]]:
    """Frame number, seconds and picture uint8 [h, w, 3] of each frame that can be decoded."""
    import cv2

    frames = frames_by_pyav(path, timeline, None, 0, timeline.facts.frames, lambda: None)
    for number, picture in frames:
        place = int(np.searchsorted(timeline.number, number))
        small = cv2.resize(np.ascontiguousarray(picture), size, interpolation=cv2.INTER_AREA)
        yield number, float(timeline.time[place]), np.asarray(small, np.uint8)


def _time_base(path: Path) -> Fraction:
    container, stream = open_video(path)
    with container:
        return stream.time_base or Fraction(1)


def _copy_sound(
    out: "OutputContainer", stream: "AudioStream", path: Path, origin: float, seconds: float, loss: "SoundLoss"
) -> None:
    """Adds the sound after `origin`, in seconds of the file's clock. Raises FFmpegError, ValueError if it cannot be
    encoded."""
    from .sound import open_sound, resampled

    opened = open_sound(path, loss)
    if opened is None:
        return
    container, found = opened
    context = stream.codec_context
    with container:
        frames = resampled(container, found, loss, rate=context.sample_rate, layout=context.layout.name, start=origin)
        for frame in frames:
            if (frame.time or 0.0) > seconds:
                break
            if (frame.time or 0.0) >= 0:
                out.mux(stream.encode(frame))
        out.mux(stream.encode())


def _mux(out: "OutputContainer", packets: "list[Packet]") -> int:
    """Writes the packets; returns their bytes."""
    written = sum(packet.size for packet in packets)
    out.mux(packets)
    return written


def _jpeg(picture: NDArray[np.uint8]) -> bytes:
    import cv2

    scale = min(1.0, 320 / max(picture.shape[:2]))
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    done, data = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])
    if not done:
        raise ValueError(f"a picture of shape {picture.shape} cannot be encoded as JPEG")
    return data.tobytes()
