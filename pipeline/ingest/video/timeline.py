"""Reads number and time of each frame from the packets of a video with PyAV. Decodes only the first frame."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...errors import VideoError
from ...records import VideoFacts
from ..walk import NO_FILE, fault_of
from .chains import continues_elsewhere
from .frame_index import Packet, breaks_before, broken_steps, by_chunks, by_index, by_time, first_shown, rising
from .orientation import UPRIGHT, Orientation, orientation_of
from .packets import check_disk, frames_of, packets_of, until_damage
from .unshown import Unshown

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

REMEDY = "Restore the file, or re-encode it with ffmpeg."


MAX_PIXELS = 1 << 27
"""Largest frame that is decoded. 16K video is smaller; a frame of this size needs a few hundred MB."""

DEFAULT_RATE = 25
"""Frames per second of a stream that has no timestamps and no frame rate, as FFmpeg assumes."""

SCALE = "Scale it down with ffmpeg, or remove it."


ASPECT_RANGE = (0.1, 10.0)
"""Valid range of the pixel aspect ratio. Other values are errors in the file and are treated as 1."""


@dataclass(frozen=True)
class Timeline:
    """The displayed frames of a video that have a packet in the file.

    facts.frames also counts lost frames. number: int64 [k], increasing. stamp: int64 [k], presentation timestamps.
    time: float64 [k], seconds from the start of the file, strictly increasing. orientation: makes decoded frames
    upright. plain: frames can be numbered by counting. stamped: the timestamps are from the container, not guessed by
    the demuxer, and in display order. packets: number of packets, from the start of the file, that these frames come
    from. restamped: int64 [m], corrected timestamps of all packets in file order, or None if the timestamps of the file
    are used.
    """

    facts: VideoFacts
    number: NDArray[np.int64]
    stamp: NDArray[np.int64]
    time: NDArray[np.float64]
    orientation: Orientation
    plain: bool
    stamped: bool
    packets: int
    restamped: NDArray[np.int64] | None = None


def open_video(path: Path) -> "tuple[InputContainer, VideoStream]":
    """Opens a video. Returns the container and its best video stream, set to one thread. Raises VideoError."""
    import av
    from av.error import FFmpegError

    need_file(path)
    if not path.stat().st_size:
        raise VideoError(f"{path}: is empty", "Restore the file.")
    try:
        container = av.open(str(path.absolute()), metadata_errors="ignore")
    except (FFmpegError, OSError) as error:
        check_disk(path, error)
        raise VideoError(f"{path}: cannot be read as a video ({error.strerror})", REMEDY) from error
    stream = best_video(container)
    if stream is None:
        if not len(container.streams):
            container.close()
            raise VideoError(f"{path}: has no readable stream", REMEDY)
        cover = any(isinstance(stream, av.VideoStream) for stream in container.streams)
        container.close()
        what = "has no video, only sound with a cover image" if cover else "has no video"
        raise VideoError(f"{path}: {what}", "Give a file with a video stream.")
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > MAX_PIXELS:
        container.close()
        raise VideoError(f"{path}: frames are {width} x {height}, expected at most {MAX_PIXELS:,} pixels", SCALE)
    # With several threads, it depends on timing which frames are lost after an error.
    stream.thread_type = "NONE"
    return container, stream


def best_video(container: "InputContainer") -> "VideoStream | None":
    """The video stream that players show, or None. A cover image is not a video."""
    import av
    from av.stream import Disposition

    found = [
        stream
        for stream in container.streams
        if isinstance(stream, av.VideoStream) and not stream.disposition & Disposition.attached_pic
    ]
    best = container.streams.best("video")
    return best if isinstance(best, av.VideoStream) and best in found else next(iter(found), None)


def need_file(path: Path) -> None:
    """Raises VideoError if `path` is not a file, but for example a URL, a pipe or a folder."""
    fault = fault_of(path)
    if fault is not None:
        message = "does not exist" if fault.message == NO_FILE else fault.message
        raise VideoError(f"{fault.name}: {message}", fault.remedy or "Check the path.")


def read_timeline(path: Path, tick: Callable[[], None] = lambda: None) -> Timeline:
    """Reads the packets of a video. Calls `tick` for each packet. Raises VideoError if there is no frame, or if the
    disk cannot read the file."""
    try:
        return _read_timeline(path, tick)
    except OSError as error:  # of the code that reads the structure of the file
        check_disk(path, error, tick)
        raise


def _read_timeline(path: Path, tick: Callable[[], None]) -> Timeline:
    import av

    container, stream = open_video(path)
    with container:
        # Before demuxing, because some demuxers change their index while reading.
        index = [(entry.pos, entry.timestamp) for entry in stream.index_entries if entry.size]
        kind, identifier = container.format.name, stream.id
        width, height, codec = stream.codec_context.width, stream.codec_context.height, stream.codec_context.name
        first, orientation = _first_frame(path, tick)
        aspect = pixel_aspect_of(stream, orientation)
        unshown = Unshown(stream)
        packets: list[Packet] = []
        with until_damage(path, tick):
            for packet in packets_of(container, stream):
                tick()
                if packet.size and not unshown.is_hidden(packet):
                    discard = packet.is_discard or unshown.is_repeat(packet)
                    facts = packet.pts, packet.dts, packet.pos, packet.size, discard, packet.is_corrupt
                    packets.append(Packet(*facts, packet.is_keyframe))
        promised = stream.frames
        base = float(stream.time_base or 1)
        ticks = 1.0 if kind == "avi" else 1 / (base * float(stream.guessed_rate or DEFAULT_RATE))
        reordered = bool(stream.codec_context.has_b_frames)
        origin = (container.start_time or 0) / av.time_base
    if kind == "mpegts" and packets and continues_elsewhere(path, identifier):
        problem = f"{path}: the video continues in another stream, as in concatenated recordings"
        raise VideoError(problem, "Give the parts as separate files, or join them with the concat filter of ffmpeg.")
    read = len(packets)
    if read > 1 and packets[-1].is_corrupt:
        packets.pop()  # a truncated file ends with an incomplete frame
    stamps = _stamps(packets, ticks)
    stamped = kind != "avi" and all(packet.pts is not None for packet in packets)
    # Some programs write the decoding time of every frame as its presentation time, although frames are reordered.
    misordered = stamped and reordered and all(packet.pts == packet.dts for packet in packets)
    restamped = None
    if kind == "avi" and packets:
        slot, total = by_chunks(path, packets, index, promised)
    elif kind.startswith("mov"):
        slot, total = by_index(packets, index, promised)
    else:
        if stamped and not np.array_equal(joined := rising(packets, stamps), stamps):
            stamps = restamped = joined
        slot, total = by_time(np.sort(stamps), broken_steps(path, kind, identifier, packets, stamps))
    used = len(packets)
    if kind == "avi" or kind.startswith("mov"):
        packets, stamps = packets[: len(slot)], stamps[: len(slot)]
        used = len(packets)
    else:
        kept = np.sort(np.argsort(stamps, kind="stable")[: len(slot)])
        packets, stamps = [packets[i] for i in kept], stamps[kept]
    hidden = np.array([packet.is_discard for packet in packets], bool)
    if stamped and not misordered and first is not None:
        begin = first_shown(packets, stamps, first)
        if (stamps < begin).any() and not breaks_before(path, kind, identifier, packets):
            hidden |= stamps < begin
    number = np.sort(slot[~hidden])
    number -= np.searchsorted(np.sort(slot[hidden]), number)
    stamp = np.sort(stamps[~hidden])
    if kind.startswith("mov") and len(packets) < len(index):
        # Frames after the decoding time of the first missing frame have no reliable number.
        certain = stamp < index[len(packets)][1]
        number, stamp = number[certain], stamp[certain]
    if read and not len(packets):
        raise VideoError(f"{path}: frames are missing, and the file does not show which", REMEDY)
    if not len(stamp) or not width:
        raise VideoError(f"{path}: has no decodable frame", REMEDY)
    if kind == "avi":
        time = _chunk_times([packet for packet in packets if not packet.is_discard], number) * base
    else:
        time = np.asarray(stamp * base, np.float64)
        # container.start_time is in microseconds, which is less exact than some time bases.
        time = time - (time[0] if not stamped or abs(time[0] - origin) < 2e-6 else origin)
    time = _strictly_increasing(time)
    step = float(np.median(np.diff(time))) if len(time) > 1 else 0.0
    frames = total - int(hidden.sum())
    # decord loses the first frames of MPEG streams, which have no index.
    odd = orientation != UPRIGHT or kind.startswith("mpeg") or bool((np.diff(stamp) <= 0).any())
    odd = odd or restamped is not None
    facts = VideoFacts(
        width=height if orientation.transposed else width,
        height=width if orientation.transposed else height,
        frames=frames,
        seconds=float(time[-1] - time[0]) + step * float(frames - number[-1] + number[0]),
        codec=codec,
        pixel_aspect=aspect,
    )
    plain = read == frames == len(stamp) and not odd
    return Timeline(facts, number, stamp, time, orientation, plain, stamped and not misordered, used, restamped)


def _stamps(packets: list[Packet], ticks: float) -> NDArray[np.int64]:
    """Presentation timestamps. If a packet has none, the decoding timestamps with gaps filled; if no packet has any, a
    count in steps of `ticks`."""
    for stamps in ([packet.pts for packet in packets], [packet.dts for packet in packets]):
        if None not in stamps:
            return np.array(stamps, np.int64)
    known = [(place, packet.dts) for place, packet in enumerate(packets) if packet.dts is not None]
    if 2 * len(known) < len(packets):
        return np.round(np.arange(len(packets)) * ticks).astype(np.int64)
    places, stamps = zip(*known, strict=True)
    return np.round(np.interp(np.arange(len(packets)), places, stamps)).astype(np.int64)


def _chunk_times(packets: list[Packet], number: NDArray[np.int64]) -> NDArray[np.float64]:
    """Presentation times of the frames of an AVI, in frames from the start. An AVI has only the number of the chunk."""
    chunks = [packet.dts for packet in packets]
    if None in chunks or chunks == list(range(len(chunks))):
        return number.astype(np.float64)  # only a count, which ignores missing frames
    return np.sort(np.array(chunks, np.float64))


def _strictly_increasing(time: NDArray[np.float64]) -> NDArray[np.float64]:
    """Replaces each time that is not greater than the one before by the next larger float."""
    for i in np.flatnonzero(np.diff(time) <= 0) + 1:
        time[i] = np.nextafter(time[i - 1], np.inf)
    return time


def _first_frame(path: Path, tick: Callable[[], None]) -> tuple[int | None, Orientation]:
    """Timestamp and orientation of the first frame that can be decoded."""
    container, stream = open_video(path)
    with container, until_damage(path, tick):
        for frame in frames_of(container, stream):
            return frame.pts, orientation_of(frame)
    return None, UPRIGHT


def pixel_aspect_of(stream: "VideoStream", orientation: Orientation) -> float:
    """Width / height of a displayed pixel of the upright frame."""
    aspect = float(stream.sample_aspect_ratio or 1)
    if not ASPECT_RANGE[0] <= aspect <= ASPECT_RANGE[1]:
        return 1.0
    return 1 / aspect if orientation.transposed else aspect
