"""The packets and frames of one stream of a container, up to its end or to damage in the file."""

import contextlib
import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, cast

from ...errors import VideoError

if TYPE_CHECKING:
    import av
    from av.container import InputContainer
    from av.stream import Stream
    from av.video.stream import VideoStream

DISK_ERRORS = (errno.EIO, errno.EREMOTEIO, errno.ESTALE, errno.ETIMEDOUT, errno.EBADMSG, errno.EUCLEAN)
"""Errors of a disk, a network file system, or the checksums of a file system."""
BLOCK_BYTES = 1 << 22


@contextlib.contextmanager
def until_damage(path: Path, tick: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Ends the block at damage in the file, so that what was read before is used. Raises VideoError if the disk cannot
    read the file: the rest of the file may be intact."""
    from av.error import FFmpegError

    try:
        yield
    except (FFmpegError, OSError) as error:
        check_disk(path, error, tick)


def check_disk(path: Path, error: Exception, tick: Callable[[], None] = lambda: None) -> None:
    """Raises VideoError if the disk cannot read a file. error: the error of FFmpeg or of the system.

    Some demuxers report damage as EIO. So if the error is one of DISK_ERRORS, this reads the whole file. `tick` is
    called for each block.
    """
    if getattr(error, "errno", None) not in DISK_ERRORS:
        return
    place = 0
    try:
        with path.open("rb", buffering=0) as file:
            while block := file.read(BLOCK_BYTES):
                place += len(block)
                tick()
    except OSError as failure:
        raise VideoError(
            f"{path}: the disk cannot read it after byte {place:,} ({failure.strerror})",
            "Restore the file from a copy, and check the disk.",
        ) from failure


def packets_of(container: "InputContainer", stream: "Stream") -> "Iterator[av.Packet]":
    """The packets of `stream`, then an empty one that flushes its decoder. Raises FFmpegError, OSError."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, IndexError):
            # PyAV raises IndexError behind the last packet of files with a stream that begins in their middle.
            return
        yield packet


def frames_of(container: "InputContainer", stream: "VideoStream") -> "Iterator[av.VideoFrame]":
    """The decoded frames of `stream`. Raises FFmpegError, OSError."""
    for packet in packets_of(container, stream):
        yield from cast("list[av.VideoFrame]", packet.decode())
