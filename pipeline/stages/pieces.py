"""A video that is much longer than the rest, in pieces that several workers decode, and the pieces made one shard.

A piece begins where PyAV finds a frame by its timestamp, so only videos whose frames all have one are split. Pixels
are the same whoever decodes, so a shard's frames do not depend on whether it was split.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..errors import VideoError
from ..ingest.timeline import read_timeline
from ..storage.shard import FRAMES, Shard, ShardWriter

LEAST = 1500
"""Frames of a piece at least: each one costs a start of a decoder and a reading of the video's packets."""
EACH = 2
"""Pieces for each share that a worker should have, so that the last to end is not far behind."""
ROWS = 1024
"""Frames joined at once."""


class Piece(NamedTuple):
    """The frames from start to stop of a video."""

    start: int
    stop: int


def split(video: Path, size: int, total: int, workers: int) -> tuple[Piece, ...]:
    """The pieces for a video of so many bytes, of `total` in all; none where it is not worth it or cannot be done."""
    if workers < 2 or size * workers <= total:
        return ()
    try:
        timeline = read_timeline(video)
    except VideoError:
        return ()
    frames = timeline.facts.frames
    count = min(-(-EACH * size * workers // total), frames // LEAST)
    if count < 2 or not (timeline.plain and timeline.stamped):
        return ()
    edges = [frames * k // count for k in range(count + 1)]
    return tuple(map(Piece, edges, edges[1:]))


def piece_path(shard: Path, piece: Piece) -> Path:
    """Where a piece waits for the others, in a folder of its own beside the shards."""
    return shard.parent / ".pieces" / f"{shard.stem}.{piece.start}-{piece.stop}.h5"


def clear(folder: Path, wanted: Sequence[Path] = ()) -> None:
    """Removes the pieces beside these shards but for the wanted ones."""
    pieces = folder / ".pieces"
    if not pieces.is_dir():
        return
    for path in pieces.iterdir():
        if path not in wanted:
            path.unlink(missing_ok=True)
    if not any(pieces.iterdir()):
        pieces.rmdir()


def join(writer: ShardWriter, paths: Sequence[Path]) -> int:
    """Writes the rows of these shards into one, in turn; returns how many. Raises ShardError, WorkError."""
    writer.append(offset=[0])
    frames = end = 0
    for path in paths:
        with Shard(path, FRAMES) as piece:
            for start in range(0, len(piece), ROWS):
                stop = min(start + ROWS, len(piece))
                offset = piece.read("offset", start, stop + 1)
                writer.append(
                    jpeg=piece.read("jpeg", int(offset[0]), int(offset[-1])), offset=end + offset[1:] - offset[0],
                    index=piece.read("index", start, stop), pts=piece.read("pts", start, stop),
                )  # fmt: skip
                end += int(offset[-1] - offset[0])
                frames += stop - start
            writer.attributes = dict(piece.attributes)
    return frames
