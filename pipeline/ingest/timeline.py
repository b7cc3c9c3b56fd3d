"""Which frames a video has and when each is shown: read from its packets by PyAV, decoding none but the first."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import VideoError
from ..records import VideoFacts
from .numbering import Packet, by_chunks, by_index, by_rhythm

if TYPE_CHECKING:
    import av
    from av.container import InputContainer
    from av.video.stream import VideoStream

REMEDY = "Restore the file, or re-encode it with ffmpeg."


PIXELS = 1 << 27
"""Of the largest picture that is decoded: 16K video has fewer, and one takes a few hundred MB."""

SCALE = "Scale it down with ffmpeg, or leave it out."


@dataclass(frozen=True)
class Timeline:
    """The frames of a video that are shown, and those of them that are there.

    facts.frames counts all. number: int64 [k], the numbers of the frames that have a packet, increasing. stamp: int64
    [k], their presentation timestamps. time: float64 [k], seconds from the start of the file, strictly increasing.
    rotation: degrees counter-clockwise to turn decoded pictures by. plain: frames can be numbered by counting them.
    stamped: the timestamps are the container's own, not guessed by the demuxer.
    """

    facts: VideoFacts
    number: NDArray[np.int64]
    stamp: NDArray[np.int64]
    time: NDArray[np.float64]
    rotation: int
    plain: bool
    stamped: bool


def open_video(path: Path) -> "tuple[InputContainer, VideoStream]":
    """The container and its best video stream, set to decode in one thread. Raises VideoError."""
    import av
    from av.error import FFmpegError

    if not path.is_file():
        raise VideoError(f"{path}: {'is not a file' if path.exists() else 'does not exist'}", "Check the path.")
    if not path.stat().st_size:
        raise VideoError(f"{path}: is empty", "Restore the file.")
    try:
        container = av.open(str(path.absolute()), metadata_errors="ignore")
    except (FFmpegError, OSError) as error:
        raise VideoError(f"{path}: cannot be read as a video ({error.strerror})", REMEDY) from error
    stream = container.streams.best("video")
    if not isinstance(stream, av.VideoStream):
        container.close()
        raise VideoError(f"{path}: has no video stream", "Give a file with a picture.")
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > PIXELS:
        container.close()
        raise VideoError(f"{path}: its pictures are {width} x {height}, expected at most {PIXELS:,} pixels", SCALE)
    # With more threads, which frames outlive an error depends on their timing.
    stream.thread_type = "NONE"
    return container, stream


def read_timeline(path: Path, beat: Callable[[], None] = lambda: None) -> Timeline:
    """Reads a video's packets, calling `beat` at each. Raises VideoError where there is no frame."""
    import av
    from av.error import FFmpegError

    container, stream = open_video(path)
    with container:
        # Before reading, because some demuxers rewrite their index as they go.
        index = [(entry.pos, entry.timestamp) for entry in stream.index_entries if entry.size]
        kind = container.format.name
        width, height, codec = stream.codec_context.width, stream.codec_context.height, stream.codec_context.name
        packets: list[Packet] = []
        # What was read before the damage is still good.
        with contextlib.suppress(FFmpegError, OSError):
            for packet in container.demux(stream):
                beat()
                if packet.size and not (codec == "vp8" and _is_hidden(packet)):
                    facts = packet.pts, packet.dts, packet.pos, packet.size, packet.is_discard, packet.is_corrupt
                    packets.append(Packet(*facts))
        promised = stream.frames
        base = float(stream.time_base or 1)
        origin = (container.start_time or 0) / av.time_base
    read = len(packets)
    if read > 1 and packets[-1].is_corrupt:
        packets.pop()  # A file cut short ends in half a frame.
    stamps = _stamps(packets)
    if kind == "avi":
        slot, total = by_chunks(path, packets, index, promised)
    elif kind.startswith("mov"):
        slot, total = by_index(packets, index, promised)
    else:
        slot, total = by_rhythm(np.sort(stamps))
    packets, stamps = packets[: len(slot)], stamps[: len(slot)]
    hidden = np.array([packet.is_discard for packet in packets], bool)
    number = np.sort(slot[~hidden])
    number -= np.searchsorted(np.sort(slot[hidden]), number)
    stamp = np.sort(stamps[~hidden])
    if kind.startswith("mov") and len(packets) < len(index):
        # A frame that is missing is shown no earlier than it was to be decoded; after that, numbers are not certain.
        certain = stamp < index[len(packets)][1]
        number, stamp = number[certain], stamp[certain]
    if read and not len(packets):
        raise VideoError(f"{path}: frames are missing, and nothing in the file tells which", REMEDY)
    if not len(stamp) or not width:
        raise VideoError(f"{path}: has no frame of video that can be shown", REMEDY)
    stamped = kind != "avi" and all(packet.pts is not None for packet in packets)
    time = np.asarray(stamp * base, np.float64)
    if kind == "avi" and np.array_equal(stamp, np.arange(len(stamp))):
        time = np.asarray(number * base, np.float64)  # counted, as if none were missing
    # The start of the file is told in microseconds, which is coarser than some time bases.
    time = _rising(time - (time[0] if not stamped or abs(time[0] - origin) < 2e-6 else origin))
    step = float(np.median(np.diff(time))) if len(time) > 1 else 0.0
    frames = total - int(hidden.sum())
    rotation = _rotation(path)
    # decord loses the start of MPEG streams, which have no index.
    odd = bool(rotation) or kind.startswith("mpeg") or bool((np.diff(stamp) <= 0).any())
    facts = VideoFacts(
        width=height if rotation % 180 else width,
        height=width if rotation % 180 else height,
        frames=frames,
        seconds=float(time[-1] - time[0]) + step * float(frames - number[-1] + number[0]),
        codec=codec,
    )
    return Timeline(facts, number, stamp, time, rotation, read == frames == len(stamp) and not odd, stamped)


def _is_hidden(packet: "av.Packet") -> bool:
    """Whether a VP8 packet is of a frame that only others refer to (RFC 6386, 9.1: show_frame)."""
    return not memoryview(packet)[0] & 0x10


def _stamps(packets: list[Packet]) -> NDArray[np.int64]:
    """Presentation timestamps; where the container has none, those of decoding, or else a count."""
    for stamps in ([packet.pts for packet in packets], [packet.dts for packet in packets]):
        if None not in stamps:
            return np.array(stamps, np.int64)
    return np.arange(len(packets))


def _rising(time: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same times, those that do not exceed the one before moved up by the least step."""
    for place in np.flatnonzero(np.diff(time) <= 0) + 1:
        time[place] = np.nextafter(time[place - 1], np.inf)
    return time


def _rotation(path: Path) -> int:
    """Degrees counter-clockwise, a multiple of 90, from the display matrix that comes with the first frame."""
    from av.error import FFmpegError

    container, stream = open_video(path)
    with container, contextlib.suppress(FFmpegError, OSError):
        for frame in container.decode(stream):
            return round(frame.rotation / 90) * 90 % 360
    return 0
