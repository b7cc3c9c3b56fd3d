"""Writes short videos of numbered frames, as cameras, capture programs and editors write them."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from affect.pipeline.ingest.synthetic.video import SyntheticVideo, draw_video
from numpy.typing import NDArray

FRAMES = 60
BITS = 7
"""Bars of a numbered frame: the binary digits of its number, the lowest at the left."""
DRAWN_SUFFIXES = (".mp4", ".mov", ".3gp", ".mkv", ".avi", ".ts", ".flv")
"""Containers that `draw_video` can write: H.264, and MPEG-4 in AVI."""
EMPTY_BEFORE = (1, 10, 25, 26)
"""Frames of an AVI before which a chunk of 0 bytes is inserted."""
Chunk = tuple[bytes, bytes]
"""Name and content of a chunk of an AVI."""


def numbered_picture(number: int) -> NDArray[np.uint8]:
    """A picture that shows a number below 128 as bars, uint8 [64, 112, 3]."""
    picture = np.full((64, 112, 3), 60, np.uint8)
    for bit in range(BITS):
        picture[24:, bit * 16 : (bit + 1) * 16] = 220 if number >> bit & 1 else 20
    return picture


def shown_number(picture: NDArray[Any]) -> int:
    """The number that a picture of any size shows."""
    h, w = picture.shape[:2]
    bars = picture[h // 2 : h * 9 // 10, [int((bit + 0.5) * w / BITS) for bit in range(BITS)]].mean((0, 2)) > 128
    return sum(int(bar) << bit for bit, bar in enumerate(bars))


def record(
    path: Path,
    codec: str = "libx264",
    times: Sequence[int] | None = None,
    muxer: dict[str, str] | None = None,
    **options: str,
) -> Path:
    """Writes 60 numbered frames, at 25 per second or at these times in milliseconds. muxer: options of the container.
    options: of the codec."""
    quiet = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    short_clusters = {"cluster_time_limit": "400"} if path.suffix == ".mkv" else {}
    container = "vob" if path.suffix == ".mpg" else None
    with av.open(str(path), "w", format=container, options=short_clusters | (muxer or {})) as out:
        stream = out.add_stream(codec, rate=25, options=quiet | options)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height = 112, 64
        stream.pix_fmt = {"mjpeg": "yuvj420p", "gif": "rgb8"}.get(codec, "yuv420p")
        stream.codec_context.gop_size = 12
        base = Fraction(1, 1000 if times else 25)
        if times:
            stream.codec_context.time_base = base
        for number in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(numbered_picture(number), format="rgb24")
            frame.pts, frame.time_base = (times[number] if times else number), base
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def copy_packets(source: Path, path: Path, first: int = 0, shift: Fraction = Fraction(0)) -> Path:
    """Copies the packets from number `first` on. shift: seconds to add to their times."""
    with av.open(str(source)) as old, av.open(str(path), "w", options={"avoid_negative_ts": "0"}) as out:
        track = old.streams.video[0]
        stream = out.add_stream_from_template(track)
        for place, packet in enumerate(old.demux(track)):
            if place >= first and packet.dts is not None and packet.pts is not None and packet.time_base is not None:
                ticks = round(shift / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts + ticks, packet.dts + ticks, stream
                out.mux(packet)
    return path


def chunks_of(data: bytes) -> list[Chunk]:
    """The chunks of an AVI."""
    place, end = data.index(b"movi") + 4, data.index(b"idx1")
    found: list[Chunk] = []
    while place < end:
        size = int.from_bytes(data[place + 4 : place + 8], "little")
        found.append((data[place : place + 4], data[place + 8 : place + 8 + size]))
        place += 8 + size + size % 2
    return found


def with_chunks(data: bytes, chunks: Sequence[Chunk], *, index: bool = True) -> bytes:
    """The AVI `data` with other chunks. index: whether to write an index."""
    head, body, entries = bytearray(data[: data.index(b"movi") - 8]), b"movi", b""
    for name, content in chunks:
        size = len(content).to_bytes(4, "little")
        entries += name + (16 if content else 0).to_bytes(4, "little") + len(body).to_bytes(4, "little") + size
        body += name + size + content + bytes(len(content) % 2)
    count = sum(name[:2] == b"00" for name, _ in chunks).to_bytes(4, "little")
    strh, avih = head.index(b"strh") + 40, head.index(b"avih") + 24
    head[strh : strh + 4] = head[avih : avih + 4] = count
    data = bytes(head) + b"LIST" + len(body).to_bytes(4, "little") + body
    if index:
        data += b"idx1" + len(entries).to_bytes(4, "little") + entries
    return data[:4] + (len(data) - 8).to_bytes(4, "little") + data[8:]


def add_empty_chunks(source: Path, path: Path, before: Sequence[int], *, index: bool = True) -> Path:
    """Copies an AVI and inserts chunks of 0 bytes before these frames, also into the header and the index. index:
    whether to write an index."""
    data, frames = source.read_bytes(), 0
    chunks: list[Chunk] = []
    for name, content in chunks_of(data):
        if name[:2] == b"00":
            chunks += [(name, b"")] * before.count(frames)
            frames += 1
        chunks.append((name, content))
    chunks += [(b"00dc", b"")] * before.count(frames)
    path.write_bytes(with_chunks(data, chunks, index=index))
    return path


def overwrite_packet(path: Path, number: int) -> None:
    """Overwrites a packet of a video, so that its frame cannot be decoded."""
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][number]
    data = bytearray(path.read_bytes())
    assert packet.pos is not None
    data[packet.pos : packet.pos + packet.size] = b"\xff" * packet.size
    path.write_bytes(data)


def set_orientation(source: Path, path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Copies an MP4 with another display matrix."""
    data = bytearray(source.read_bytes())
    start = data.index(b"tkhd") + 44
    for at, value in zip((0, 4, 12, 16), matrix, strict=True):
        data[start + at : start + at + 4] = (value << 16).to_bytes(4, "big", signed=True)
    path.write_bytes(data)
    return path


def drawn_videos(folder: Path) -> Iterator[tuple[str, Path]]:
    """Draws videos in every container that `draw_video` can write, with even and uneven times."""
    for suffix in DRAWN_SUFFIXES:
        for name, variable in (("even", False), ("uneven", True)):
            if not (suffix == ".avi" and variable):  # AVI has no uneven times
                path = folder / f"{name}{suffix}"
                draw_video(SyntheticVideo(path, 5, 48, 25.0, 1, 160, 96, variable=variable))
                yield "drawn by the demo", path


def recordings(folder: Path) -> Iterator[tuple[str, Path]]:
    """Videos as phones, screen recorders, capture programs and editors write them."""
    phone = np.cumsum([0, *np.random.default_rng(0).choice((25, 33, 34, 67, 100), 59)]).tolist()
    screen = np.cumsum([0, *(33 if number % 10 else 2500 for number in range(59))]).tolist()
    holes = [40 * number + 200 * (number >= 20) + 80 * (number >= 40) for number in range(60)]
    codecs = {".webm": "libvpx-vp9", ".gif": "gif", ".wmv": "wmv2"}
    for suffix in (".mp4", ".mkv", ".webm", ".flv", ".ts", ".gif", ".wmv"):
        for name, times in (("phone", phone), ("screen", screen), ("holes", holes)):
            yield (
                "uneven times, frames left out",
                record(folder / f"{name}{suffix}", codecs.get(suffix, "libx264"), times),
            )
    fragments = record(
        folder / "fragments.mp4", "libx264", phone, {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    )
    yield "uneven times, frames left out", fragments
    for codec in ("mpeg4", "mjpeg", "libx264"):
        whole = record(folder / f"{codec}.avi", codec)
        yield (
            "AVI with chunks of 0 bytes, with and without index",
            add_empty_chunks(whole, folder / f"{codec}-empty.avi", EMPTY_BEFORE),
        )
        yield (
            "AVI with chunks of 0 bytes, with and without index",
            add_empty_chunks(whole, folder / f"{codec}-bare.avi", EMPTY_BEFORE, index=False),
        )
    even = {suffix: record(folder / f"whole{suffix}", "libx264") for suffix in (".mp4", ".mkv", ".ts", ".flv")}
    even[".mpg"] = record(folder / "whole.mpg", "mpeg2video")
    for suffix in (".ts", ".mkv", ".mpg", ".flv"):
        joined = folder / f"joined{suffix}"
        joined.write_bytes(2 * even[suffix].read_bytes())
        yield "joined by `cat`", joined
    for suffix, codec in ((".h264", "libx264"), (".hevc", "libx265"), (".m2v", "mpeg2video")):
        yield "bare streams without a container", record(folder / f"bare{suffix}", codec)
    later = copy_packets(even[".ts"], folder / "later.ts", shift=Fraction(20))
    paused = folder / "paused.ts"
    paused.write_bytes(even[".ts"].read_bytes() + later.read_bytes())
    yield "joined by `cat`", paused
    yield (
        "clock of a transport stream that overflows",
        copy_packets(even[".ts"], folder / "wrap.ts", shift=Fraction(2**33, 90_000) - 4),
    )
    for codec in ("libx264", "libx265"):
        whole = record(folder / f"{codec}.mp4", codec)
        for first in (5, 17):
            trimmed = copy_packets(whole, folder / f"{codec}-{first}.mp4", shift=-Fraction(first, 25))
            yield "beginning hidden by an edit list", trimmed
    for suffix in (".ts", ".mkv", ".mp4"):
        whole = record(folder / f"open{suffix}", "libx264", bf="2", **{"x264-params": "open-gop=1"})  # pyright: ignore[reportArgumentType]
        for first in (5, 12):
            yield (
                "cut between keyframes, or at one with frames before it",
                copy_packets(whole, folder / f"open-{first}{suffix}", first),
            )
    for place, matrix in enumerate([(a, 0, 0, d) for a in (1, -1) for d in (1, -1)]):
        a, _, _, d = matrix
        for turn in ((a, 0, 0, d), (0, a, d, 0)):
            yield (
                "the eight orientations",
                set_orientation(even[".mp4"], folder / f"turn{place}{bool(turn[0])}.mp4", turn),
            )
