"""The version of the decoding of a file, for fingerprints: results of an older, wrong decoding are not up to date."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

READING = 2
"""Increase it when frames get other numbers, times or pixels, and document in `reading` for which files."""

STREAM = 3
"""The version of bare H.264 and HEVC streams."""

MOVIE = (b"moov", b"trak", b"mdia", b"minf", b"stbl")
"""Boxes of MP4 and MOV whose content is searched."""
MAX_EMPTY_BYTES = 32
"""Largest chunk that may have no frame."""
MAX_INDEX_BYTES = 1 << 26
"""Largest index of an AVI. A larger one is damaged."""


def reading(path: Path) -> int:
    """The version for this file: READING, or 1 if the changes do not affect it. Reads no frame. Raises OSError.

    Version 2: containers without a list of frames are numbered by their structure, not by gaps in time. Chunks of 0
    bytes in AVI and empty frames of MPEG-4 Part 2 are not frames. Mirrored display matrices are applied. Version 3:
    frames of a bare H.264 or HEVC stream have the times of its frame rate.
    """
    with path.open("rb") as file:
        head = file.read(12)
        if head[:4] == b"RIFF" and head[8:] == b"AVI ":
            return READING if _has_short_chunks(file) else 1
        if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide"):
            headers = _headers(file, 0, path.stat().st_size)
            return READING if any(_is_mpeg4(it) if name == b"stsd" else _is_mirrored(it) for name, it in headers) else 1
        start = head.removeprefix(b"\0")
        if start[:3] == b"\0\0\1" and start[3:4] < b"\x80":
            return STREAM
    return READING


def _has_short_chunks(file: BinaryIO) -> bool:
    """Whether the index has video chunks that may have no frame, or the index is missing or incomplete."""
    file.seek(12)
    while len(head := file.read(8)) == 8:
        size = int.from_bytes(head[4:], "little")
        if head[:4] == b"idx1":
            if size > MAX_INDEX_BYTES:
                return True
            index = file.read(size + size % 2)
            return file.read(4) == b"RIFF" or any(
                index[place + 2 : place + 4] in (b"dc", b"db")
                and int.from_bytes(index[place + 12 : place + 16], "little") <= MAX_EMPTY_BYTES
                for place in range(0, len(index) - 15, 16)
            )
        file.seek(size + size % 2, 1)
    return True


def _headers(file: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, bytes]]:
    """Yields name and content of the boxes with the display matrix (tkhd) and the codec (stsd) of each track."""
    while start + 8 <= end:
        file.seek(start)
        head = file.read(16)
        size, name, begin = int.from_bytes(head[:4], "big"), head[4:8], start + 8
        if size == 1:
            size, begin = int.from_bytes(head[8:16], "big"), start + 16
        stop = end if size == 0 else start + size
        if name in MOVIE:
            yield from _headers(file, begin, min(stop, end))
        elif name in (b"tkhd", b"stsd"):
            file.seek(begin)
            yield name, file.read(96)
        if stop <= start:
            return
        start = stop


def _is_mpeg4(description: bytes) -> bool:
    """Whether the codec of a track is MPEG-4 Part 2."""
    return description[12:16] == b"mp4v"


def _is_mirrored(header: bytes) -> bool:
    """Whether the display matrix of a track mirrors the frame (ISO/IEC 14496-12, 8.3.2)."""
    start = 52 if header[:1] == b"\1" else 40
    a, b, _, c, d = (int.from_bytes(header[start + at : start + at + 4], "big", signed=True) for at in range(0, 20, 4))
    return a * d - b * c < 0
