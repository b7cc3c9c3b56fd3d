"""The packets and frames of one stream of a container, to its end."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    import av
    from av.container import InputContainer
    from av.stream import Stream
    from av.video.stream import VideoStream


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
