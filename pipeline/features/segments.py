"""Splits a long video into segments that several workers decode, and joins the segments into one shard.

PyAV finds the start of a segment by its timestamp, so only videos in which every frame has a timestamp are split. All
decoders give the same pixels, so the shard does not depend on the split.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..errors import VideoError
from ..ingest.video.timeline import read_timeline
from ..names import name_bytes, shorten_name
from ..storage.shard import FRAMES, Shard
from ..storage.shard_writer import ShardWriter

MIN_FRAMES = 1500
"""Minimum length of a segment, because each one starts a decoder and reads the packets of the whole video."""
SEGMENTS_PER_WORKER = 2
"""More than one, so that all workers finish at about the same time."""
JOIN_ROWS = 1024
"""Frames copied at once when segments are joined."""


class Segment(NamedTuple):
    """The frames from `start` up to, but not including, `stop`."""

    start: int
    stop: int


def split(video: Path, size: int, total: int, workers: int) -> tuple[Segment, ...]:
    """The segments of a video; empty if the video should not or cannot be split.

    size: bytes of the video. total: bytes of all videos.
    """
    if workers < 2 or size * workers <= total:
        return ()
    try:
        timeline = read_timeline(video)
    except VideoError:
        return ()
    frames = timeline.facts.frames
    count = min(-(-SEGMENTS_PER_WORKER * size * workers // total), frames // MIN_FRAMES)
    if count < 2 or not (timeline.plain and timeline.stamped):
        return ()
    edges = [frames * k // count for k in range(count + 1)]
    return tuple(map(Segment, edges, edges[1:]))


def segment_path(shard: Path, segment: Segment) -> Path:
    """The file of a decoded segment, in a subfolder of the folder of the shards."""
    ending = f".{segment.start}-{segment.stop}.h5"
    return shard.parent / ".pieces" / f"{shorten_name(shard.stem, len(ending), name_bytes(shard.parent))}{ending}"


def remove_segments(folder: Path, keep: Sequence[Path] = ()) -> None:
    """Removes the segment files below the folder of the shards, except `keep`."""
    segments = folder / ".pieces"
    if not segments.is_dir():
        return
    for path in segments.iterdir():
        if path not in keep:
            path.unlink(missing_ok=True)
    if not any(segments.iterdir()):
        segments.rmdir()


def join(writer: ShardWriter, paths: Sequence[Path]) -> int:
    """Writes the rows of these shards into one, in order. Returns the frame count. Raises ShardError, WorkError."""
    writer.append(offset=[0])
    frames = end = 0
    for path in paths:
        with Shard(path, FRAMES) as segment:
            for start in range(0, len(segment), JOIN_ROWS):
                stop = min(start + JOIN_ROWS, len(segment))
                offset = segment.read("offset", start, stop + 1)
                writer.append(
                    jpeg=segment.read("jpeg", int(offset[0]), int(offset[-1])), offset=end + offset[1:] - offset[0],
                    index=segment.read("index", start, stop), pts=segment.read("pts", start, stop),
                )  # fmt: skip
                end += int(offset[-1] - offset[0])
                frames += stop - start
            writer.attributes = dict(segment.attributes)
    return frames
