"""Recognises packets without a displayed frame: hidden reference frames, and packets that repeat a frame."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import av
    from av.video.stream import VideoStream

PICTURE = b"\0\0\1\xb6"
"""Start code of a frame in MPEG-4 Part 2 (ISO/IEC 14496-2, 6.2.5)."""
MAX_HEADER_BYTES = 32
"""A larger packet has more than the header of a frame."""


class Unshown:
    """Decides for each packet, in file order, whether its frame is displayed."""

    def __init__(self, stream: "VideoStream") -> None:
        self._codec = stream.codec_context.name
        self._time_bits = _time_bits(bytes(stream.codec_context.extradata or b""))
        self._packed = 0
        """Number of frames in the packet of another frame. An empty packet follows for each of them."""

    def is_hidden(self, packet: "av.Packet") -> bool:
        """Whether the packet is a hidden VP8 frame, which is only a reference (RFC 6386, 9.1: show_frame)."""
        return self._codec == "vp8" and packet.size > 0 and not memoryview(packet)[0] & 0x10

    def is_repeat(self, packet: "av.Packet") -> bool:
        """Whether the packet is an empty MPEG-4 Part 2 frame, which repeats the frame before it and is not decoded."""
        if self._codec != "mpeg4" or not packet.size:
            return False
        data = bytes(packet)
        self._time_bits = _time_bits(data) or self._time_bits
        self._packed += max(0, data.count(PICTURE) - 1)
        start = data.find(PICTURE)
        if (
            start < 0
            or packet.size > MAX_HEADER_BYTES
            or not self._time_bits
            or _is_coded(data[start + 4 :], self._time_bits)
        ):
            return False
        if self._packed:
            self._packed -= 1
            return False
        return True


def _time_bits(data: bytes) -> int:
    """Number of bits of the time of a frame, from the layer header in `data` (ISO/IEC 14496-2, 6.2.3), or 0."""
    start = data.find(b"\0\0\1")
    while start >= 0 and not (len(data) > start + 3 and 0x20 <= data[start + 3] <= 0x2F):
        start = data.find(b"\0\0\1", start + 3)
    if start < 0:
        return 0
    bits = _Bits(data[start + 4 : start + 68])
    bits.skip(9)  # random access, type
    if bits.take(1):
        bits.skip(7)  # version, priority
    if bits.take(4) == 15:
        bits.skip(16)  # shape of pixels
    if bits.take(1):
        bits.skip(3)  # chroma, low delay
        if bits.take(1):
            bits.skip(79)  # buffer
    bits.skip(3)  # shape, marker
    return max(1, (bits.take(16) - 1).bit_length())


def _is_coded(data: bytes, time_bits: int) -> bool:
    """Whether the frame with this header has content."""
    bits = _Bits(data)
    bits.skip(2)  # type
    while bits.take(1):  # seconds
        pass
    bits.skip(2 + time_bits)  # marker, time, marker
    return bits.take(1) == 1


class _Bits:
    """Reads bits, most significant first. Returns zeros after the end."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def take(self, count: int) -> int:
        self._left -= count
        value = self._value >> self._left if self._left >= 0 else self._value << -self._left
        return value & ((1 << count) - 1)

    def skip(self, count: int) -> None:
        self._left -= count
