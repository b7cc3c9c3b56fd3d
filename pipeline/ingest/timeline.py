"""Which frames a video has and when each is shown: read from its packets by PyAV, decoding none but the first."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import VideoError
from ..records import VideoFacts

if TYPE_CHECKING:
    from av import Packet
    from av.container import InputContainer
    from av.video.stream import VideoStream

REMEDY = "Restore the file, or re-encode it with ffmpeg."


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


class _Packet(NamedTuple):
    """What is kept of a packet: not its data, which would be the whole file."""

    pts: int | None
    dts: int | None
    pos: int | None
    is_discard: bool
    is_corrupt: bool


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
        packets: list[_Packet] = []
        # What was read before the damage is still good.
        with contextlib.suppress(FFmpegError, OSError):
            for packet in container.demux(stream):
                beat()
                if packet.size and not (codec == "vp8" and _is_hidden(packet)):
                    packets.append(_Packet(packet.pts, packet.dts, packet.pos, packet.is_discard, packet.is_corrupt))
        promised = stream.frames
        base = float(stream.time_base or 1)
        origin = (container.start_time or 0) / av.time_base
    read = len(packets)
    if read > 1 and packets[-1].is_corrupt:
        packets.pop()  # A file cut short ends in half a frame.
    slot, total = (
        _slots(packets, index, promised) if kind.startswith(("mov", "avi")) else (np.arange(len(packets)), read)
    )
    stamps = _stamps(packets)
    hidden = np.array([packet.is_discard for packet in packets], bool)
    number = np.sort(slot[~hidden])
    number -= np.searchsorted(np.sort(slot[hidden]), number)
    stamp = np.sort(stamps[~hidden])
    if kind.startswith("mov") and len(packets) < len(index):
        # A frame that is missing is shown no earlier than it was to be decoded; after that, numbers are not certain.
        certain = stamp < index[len(packets)][1]
        number, stamp = number[certain], stamp[certain]
    if not len(stamp) or not width:
        raise VideoError(f"{path}: has no frame of video that can be shown", REMEDY)
    stamped = kind != "avi" and all(packet.pts is not None for packet in packets)
    time = np.asarray(stamp * base, np.float64)
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


def _is_hidden(packet: "Packet") -> bool:
    """Whether a VP8 packet is of a frame that only others refer to (RFC 6386, 9.1: show_frame)."""
    return not memoryview(packet)[0] & 0x10


def _slots(packets: list[_Packet], index: list[tuple[int, int]], promised: int) -> tuple[NDArray[np.int64], int]:
    """Each packet's place among all frames that the file's index or header says it had; and how many those are."""
    places = {position: place for place, (position, _) in enumerate(index)}
    if len(index) > len(packets):
        # An AVI's index points at the head of a chunk, 8 bytes before its data.
        found = [places.get(packet.pos or -1, places.get((packet.pos or 0) - 8)) for packet in packets]
        if None not in found and len(set(found)) == len(found):
            return np.array(found, np.int64), len(index)
    return np.arange(len(packets)), max(promised, len(packets))


def _stamps(packets: list[_Packet]) -> NDArray[np.int64]:
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
