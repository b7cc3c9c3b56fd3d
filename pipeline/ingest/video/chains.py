"""Finds breaks in the structure of a container, by following the sizes of its elements.

If every element is followed by another one, the file has lost no frames, even if there are gaps in its timestamps.
"""

import mmap
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

TS_SIZES = ((188, 0), (192, 4), (204, 0))
"""Size of a transport packet and offset of its sync byte: plain, with a timecode before it (M2TS), with parity."""
TS_ROWS = 1 << 16
"""Number of transport packets that are processed at once."""
MIN_SYNCED = 4
"""Number of consecutive valid packets required to resume after a break."""


class Chunks(NamedTuple):
    """The chunks of one AVI stream up to the first break.

    start: int64 [n], position of the data. size: int64 [n], 0 for a repeated frame. indexed: the index follows, so no
    chunk is missing. broken: the bytes after the last chunk are not a chunk.
    """

    start: NDArray[np.int64]
    size: NDArray[np.int64]
    indexed: bool
    broken: bool


def breaks(path: Path, kind: str, stream: int) -> NDArray[np.int64]:
    """Positions of breaks in the structure of the file, int64 [n], increasing. Empty for other containers.

    kind: FFmpeg's name of the container. stream: id of the video stream (the PID in a transport stream).
    """
    walks: dict[str, Callable[[mmap.mmap], list[int]]] = {
        "matroska": _matroska,
        "flv": _flv,
        "live_flv": _flv,
        "mpeg": _program_stream,
        "mpegts": lambda data: _transport_stream(data, stream),
    }
    walk = walks.get(kind.split(",")[0])
    if walk is None:
        return np.zeros(0, np.int64)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return np.array(walk(data), np.int64)


def continues_elsewhere(path: Path, stream: int) -> bool:
    """Whether a transport stream ends in another video stream, which begins behind the last packet of this one: so do
    recordings of two programs that were joined.

    stream: the PID of the video.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        stride, sync = next(((size, at) for size, at in TS_SIZES if _is_synced(data, at, size)), (188, 0))
        place = len(data) // stride * stride
        others: set[int] = set()
        while place:
            first = max(0, place - TS_ROWS * stride)
            rows = (place - first) // stride
            packets = np.frombuffer(data[first : first + rows * stride], np.uint8).reshape(rows, stride)[:, sync:]
            pid = (packets[:, 1] & 0x1F).astype(np.int64) << 8 | packets[:, 2]
            starts = np.flatnonzero(_starts_picture(packets))
            own = np.flatnonzero((pid == stream) & (packets[:, 0] == 0x47))
            last = int(own[-1]) if len(own) else -1
            others.update(pid[starts[starts > last]].tolist())
            if last >= 0:
                # Streams that began before are other programs, which go on for longer.
                return bool(others - set(pid[starts[starts < last]].tolist()) - {stream})
            place = first
    return False


def _starts_picture(packets: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """bool [n]: which packets begin a PES packet of video (ISO/IEC 13818-1, 2.4.3)."""
    control = packets[:, 3] & 0x30
    skip = np.where(control == 0x30, 5 + packets[:, 4].astype(np.int64), 4)
    starts = (packets[:, 0] == 0x47) & (packets[:, 1] & 0x40 > 0) & (control & 0x10 > 0) & (skip <= 180)
    at = np.minimum(skip, 180)[:, None] + np.arange(4)
    code = np.take_along_axis(packets, at, 1)
    return starts & (code[:, :3] == (0, 0, 1)).all(1) & ((code[:, 3] & 0xF0) == 0xE0)


def avi_chunks(path: Path, own: bytes) -> Chunks:
    """The chunks of a stream. own: first two bytes of their identifiers, such as `00` in `00dc`."""
    start: list[int] = []
    size: list[int] = []
    indexed = broken = False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        offset, end = 0, len(data)
        while offset + 8 <= end:
            name, length = data[offset : offset + 4], int.from_bytes(data[offset + 4 : offset + 8], "little")
            if offset & 1 == 0 and not _is_chunk(name) and _is_chunk(data[offset - 1 : offset + 3]):
                offset -= 1  # some programs do not pad chunks with an odd size
                continue
            if name == b"RIFF" or (name == b"LIST" and data[offset + 8 : offset + 12] in (b"movi", b"rec ")):
                offset += 12
                continue
            if not _is_chunk(name):
                broken = True
                break
            indexed |= name == b"idx1"
            if name[:2] == own and name[2:] not in (b"pc", b"ix"):
                start.append(offset + 8)
                size.append(length)
            offset += 8 + length + (length & 1)
    return Chunks(np.array(start, np.int64), np.array(size, np.int64), indexed, broken)


_LETTERS = frozenset(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_ ")


def _is_chunk(name: bytes) -> bool:
    """Whether these four bytes can name a chunk."""
    return len(name) == 4 and all(byte in _LETTERS for byte in name)


_SEGMENT, _CLUSTER = 0x18538067, 0x1F43B675
_KNOWN = frozenset(
    (
        0x1A45DFA3, _SEGMENT, _CLUSTER, 0xEC, 0xBF, 0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1C53BB6B, 0x1941A469,
        0x1043A770, 0x1254C367, 0xE7, 0x5854, 0xA7, 0xAB, 0xA3, 0xA0, 0xAF,
    )
)  # fmt: skip
"""Matroska elements at the top level, in a segment and in a cluster (RFC 9559)."""


def _matroska(data: mmap.mmap) -> list[int]:
    found: list[int] = []
    offset, end = 0, len(data)
    while offset < end:
        head = data[offset : offset + 12]
        wide = 9 - head[0].bit_length()
        name = int.from_bytes(head[:wide], "big")
        rest = head[wide:]
        size = 9 - rest[0].bit_length() if rest else 9
        if wide > 4 or name not in _KNOWN or size > 8:
            found.append(offset)
            offset = data.find(_CLUSTER.to_bytes(4, "big"), offset + 1)
            if offset < 0:
                break
            continue
        length = int.from_bytes(rest[:size], "big") - (1 << 7 * size)
        offset += wide + size + (0 if name in (_SEGMENT, _CLUSTER) else length)
    return found


def _flv(data: mmap.mmap) -> list[int]:
    """Follows the tags. After each tag, its size is repeated."""
    found: list[int] = []
    offset, end = 0, len(data)
    while offset + 11 <= end:
        if data[offset : offset + 3] == b"FLV":
            offset += int.from_bytes(data[offset + 5 : offset + 9], "big") + 4
            continue
        next_tag = _end_of_tag(data, offset)
        if next_tag:
            offset = next_tag
            continue
        found.append(offset)
        offset += 1
        while offset + 11 <= end and not _end_of_tag(data, offset):
            offset += 1
    return found


def _end_of_tag(data: mmap.mmap, offset: int) -> int:
    """The end of the tag at `offset`, or 0 if there is no tag. A truncated tag ends at the end of the file."""
    size = 11 + int.from_bytes(data[offset + 1 : offset + 4], "big")
    if data[offset] & 0x1F not in (8, 9, 18) or data[offset + 8 : offset + 11] != bytes(3):
        return 0
    if offset + size + 4 > len(data):
        return len(data)
    repeated = int.from_bytes(data[offset + size : offset + size + 4], "big")
    return offset + size + 4 if repeated in (size, size - 11, 0) else 0


def _program_stream(data: mmap.mmap) -> list[int]:
    found: list[int] = []
    offset, end = 0, len(data)
    while offset + 6 <= end:
        code = data[offset + 3]
        if data[offset : offset + 3] != b"\0\0\1" or code < 0xB9:
            padding = data[offset : offset + 64].strip(b"\0")
            found += [offset] if padding else []
            offset = data.find(b"\0\0\1\xba", offset + 1)
            if offset < 0:
                break
        elif code == 0xB9:
            offset += 4
        elif code == 0xBA:
            offset += 14 + (data[offset + 13] & 7) if data[offset + 4] & 0xC0 == 0x40 and offset + 14 <= end else 12
        else:
            offset += 6 + int.from_bytes(data[offset + 4 : offset + 6], "big")
    return found


def _transport_stream(data: mmap.mmap, stream: int) -> list[int]:
    """Positions where the sequence of packets is broken or the continuity counter of the stream jumps.

    A jump at a random access point is not a break: recordings are cut and joined there.
    """
    stride, sync = next(((size, at) for size, at in TS_SIZES if _is_synced(data, at, size)), (188, 0))
    found: list[int] = []
    offset, end, last = 0, len(data), -1
    while offset + stride <= end:
        rows = min(TS_ROWS, (end - offset) // stride)
        packets = np.frombuffer(data[offset : offset + rows * stride], np.uint8).reshape(rows, stride)[:, sync:]
        bad = np.flatnonzero(packets[:, 0] != 0x47)
        valid = int(bad[0]) if len(bad) else rows
        jumps, last = _jumps(packets[:valid], stream, last)
        found += (offset + jumps * stride).tolist()
        offset += valid * stride
        if valid < rows:
            found.append(offset)
            offset = _resync(data, offset, stride, sync)
    return found


def _is_synced(data: mmap.mmap, offset: int, stride: int) -> bool:
    return all(data[at] == 0x47 for at in range(offset, min(offset + MIN_SYNCED * stride, len(data)), stride))


def _resync(data: mmap.mmap, offset: int, stride: int, sync: int) -> int:
    """The next position after `offset` where valid packets start, or the end of the file."""
    at = offset + sync
    while (at := data.find(b"\x47", at + 1)) >= 0:
        if _is_synced(data, at, stride):
            return at - sync
    return len(data)


def _jumps(packets: NDArray[np.uint8], stream: int, last: int) -> tuple[NDArray[np.int64], int]:
    """Rows before which packets of the stream are missing, and its last counter. last: the counter before, or -1."""
    own = np.flatnonzero(((packets[:, 1] & 0x1F).astype(np.int64) << 8 | packets[:, 2]) == stream)
    own = own[packets[own, 3] & 0x10 > 0]
    if not len(own):
        return np.zeros(0, np.int64), last
    counter = (packets[own, 3] & 0x0F).astype(np.int64)
    step = np.diff(counter, prepend=last if last >= 0 else counter[0] - 1) % 16
    extended = (packets[own, 3] & 0x20 > 0) & (packets[own, 4] > 0)
    expected = extended & (packets[own, 5] & 0xC0 > 0)  # discontinuity or random access point
    return own[(step > 1) & ~expected], int(counter[-1])
