"""Compares affect's frame numbers, times and pictures with FFmpeg's list of frames, video by video.

    python benchmarks/frame_numbers.py [FOLDER...] [--demo DEMO] [--each]

Videos: drawn ones, cuts and joins of them, those in the folders (default: ../shared/data), and those of a demo set.
FFmpeg's list has the frames that PyAV gives when it decodes a video from the beginning. If `ffprobe` is installed, the
length of its list is compared too. Frame r of affect must be frame r of the list: the same picture, at the same time
after the first frame. Prints a Markdown table; --each also prints a line per video. Unexplained differences are listed,
and the exit code is then 1.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from affect.pipeline.errors import VideoError
from affect.pipeline.ingest.synthetic.video import SyntheticVideo, draw_video
from affect.pipeline.ingest.video.decode import Decoding, decoded
from av.error import FFmpegError
from av.sidedata.sidedata import Type
from av.stream import Disposition
from numpy.typing import NDArray

HERE = Path(__file__).resolve().parents[1]
DATA = HERE.parent / "shared" / "data"
SUFFIXES = frozenset(
    (
        ".mp4", ".mov", ".m4v", ".3gp", ".mkv", ".webm", ".avi", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".flv",
        ".wmv", ".gif", ".ogv", ".m4a", ".mp3",
    )
)  # fmt: skip
SIDE = 32
MAX_DIFFERENCE = 4.0
"""Maximum mean difference of two equal pictures, out of 255, because scalers round differently."""
MAX_TIME_DIFFERENCE = 1.5e-3
"""Seconds. The coarsest clock of a container has ticks of one millisecond."""
DRAWN_SUFFIXES = (".mp4", ".mov", ".3gp", ".mkv", ".avi", ".ts", ".flv")
"""Containers that `draw_video` can write: H.264, and MPEG-4 in AVI."""


@dataclass(frozen=True)
class FrameList:
    """The frames of a video from one reader.

    time: float64 [n], NaN if unknown. picture: uint8 [n, 32, 32, 3]. number: positions in the list, or, in a video with
    packets that cannot be decoded, positions of their packets. timed: whether the container has presentation
    times. errors: number of packets that cannot be decoded. is_cover: whether it is the cover of an audio file.
    """

    time: NDArray[np.float64]
    picture: NDArray[np.uint8]
    number: list[int]
    timed: bool = True
    errors: int = 0
    is_cover: bool = False


@dataclass
class Row:
    """The results for a group of videos: a row of the table.

    frames: counts of PyAV, ffprobe and affect. numbers, pictures: how many differ. time_difference: maximum, seconds.
    """

    files: int = 0
    frames: list[int] = field(default_factory=lambda: [0, 0, 0])
    numbers: int = 0
    pictures: int = 0
    time_difference: float = 0.0
    notes: list[str] = field(default_factory=list)


def list_by_pyav(path: Path) -> FrameList:
    """FFmpeg's list: every frame of the decoder, in the order of its output."""
    time: list[float] = []
    pictures: list[NDArray[np.uint8]] = []
    packet_times: list[int | None] = []
    frame_times: list[int | None] = []
    errors = 0
    with av.open(str(path), metadata_errors="ignore") as container:
        stream = container.streams.video[0]
        for packet in container.demux(stream):
            if packet.size:
                packet_times.append(packet.pts)
            try:
                frames = packet.decode()
            except FFmpegError:
                errors += 1
                continue
            for frame in frames:
                assert isinstance(frame, av.VideoFrame)
                if frame.is_corrupt:  # set by FFmpeg
                    errors += 1
                    continue
                time.append(float("nan") if frame.time is None else frame.time)
                frame_times.append(frame.pts)
                small = frame.reformat(SIDE, SIDE, "rgb24", interpolation="BILINEAR").to_ndarray()
                side = frame.side_data.get(Type.DISPLAYMATRIX)  # pyright: ignore[reportCallIssue, reportArgumentType]
                picture = np.asarray(small, np.uint8)
                pictures.append(picture if side is None else transform(picture, np.frombuffer(bytes(side), np.int32)))
        cover = bool(stream.disposition & Disposition.attached_pic)
        # If packets have no presentation time, the decoder invents one.
        timed = None not in packet_times and container.format.name != "avi"
    number = list(range(len(time)))
    if errors and timed:
        number = np.searchsorted(np.sort(np.array(packet_times, np.int64)), np.array(frame_times, np.int64)).tolist()
    return FrameList(np.array(time), np.array(pictures), number, timed, errors, cover)


def transform(picture: NDArray[np.uint8], matrix: NDArray[np.int32]) -> NDArray[np.uint8]:
    """Applies a display matrix to a square picture: pixel (x, y) moves to (a x + c y, b x + d y)."""
    a, b, c, d = (round(float(matrix[at]) / (1 << 16)) for at in (0, 1, 3, 4))
    y, x = (2 * np.indices((SIDE, SIDE)) - SIDE + 1).reshape(2, -1)
    out = np.zeros_like(picture)
    across, down = ((a * x + c * y + SIDE - 1) // 2), ((b * x + d * y + SIDE - 1) // 2)
    out[down, across] = picture.reshape(-1, 3)
    return out


def list_by_affect(path: Path) -> tuple[FrameList, int]:
    """affect's frames, and how many it lists as lost. Raises VideoError."""

    def use(decoding: Decoding) -> tuple[FrameList, int]:
        number: list[int] = []
        time: list[float] = []
        pictures: list[NDArray[np.uint8]] = []
        for batch in decoding:
            number += batch.index.tolist()
            time += batch.time.tolist()
            pictures += list(batch.pixels)
        return FrameList(np.array(time), np.array(pictures), number), len(decoding.lost)

    return decoded(path, SIDE, use)


def count_by_ffprobe(path: Path) -> int | None:
    """The number of frames that ffprobe lists; None if it is not installed."""
    if not shutil.which("ffprobe"):
        return None
    command = ["ffprobe", "-v", "quiet", "-select_streams", "v:0", "-show_frames", "-show_entries", "frame=pict_type"]
    done = subprocess.run([*command, "-of", "json", str(path)], capture_output=True, text=True, check=False)
    return len(json.loads(done.stdout or "{}").get("frames", []))


def compare(path: Path, row: Row, each: bool) -> bool:
    """Adds a video to its row. Returns whether all differences are explained."""
    theirs = list_by_pyav(path)
    count = count_by_ffprobe(path)
    row.files += 1
    row.frames[0] += len(theirs.time)
    row.frames[1] += count or 0
    try:
        mine, lost = list_by_affect(path)
    except VideoError as error:
        row.notes.append(f"`{path.name}`: refused, {error.problem.rpartition(': ')[2]}")
        return theirs.is_cover
    row.frames[2] += len(mine.number)
    n = min(len(theirs.time), len(mine.time))
    numbers = abs(len(theirs.time) - len(mine.time)) + int((np.array(mine.number[:n]) != theirs.number[:n]).sum())
    if lost and theirs.errors:
        reason = f"FFmpeg cannot decode {lost} frames or marks them as corrupt"
        row.notes.append(f"`{path.name}`: {reason}; affect lists them as lost, and the others keep their numbers")
    else:
        numbers += lost
    distance = np.abs(theirs.picture[:n].astype(np.int16) - mine.picture[:n]).mean((1, 2, 3))
    pictures = int((distance > MAX_DIFFERENCE).sum())
    restarts = np.flatnonzero(np.diff(theirs.time) <= 0)
    difference = np.abs((theirs.time - theirs.time[0])[:n] - (mine.time - mine.time[0])[:n])
    largest = float(np.nanmax(difference)) if n and not np.isnan(difference).all() else 0.0
    explained = not numbers and not pictures
    if largest > MAX_TIME_DIFFERENCE and not theirs.timed:
        row.notes.append(
            f"`{path.name}`: has no presentation times, and FFmpeg's decoder guesses times up to {largest:.2f} s off"
        )
        largest = 0.0
    elif largest > MAX_TIME_DIFFERENCE and len(restarts):
        row.notes.append(f"`{path.name}`: FFmpeg's times start again at frame {restarts[0] + 1}, affect's continue")
        largest = float(difference[: int(restarts[0]) + 1].max())
        explained &= bool((np.diff(mine.time) > 0).all())
    explained &= largest <= MAX_TIME_DIFFERENCE and (count is None or count == len(theirs.time))
    row.numbers, row.pictures = row.numbers + numbers, row.pictures + pictures
    row.time_difference = max(row.time_difference, largest)
    if each or not explained:
        counts = f"{len(theirs.time)} and {len(mine.time)} frames, {numbers} numbers and {pictures} pictures differ"
        print(
            f"{path.name}: {counts}, times differ by {1000 * largest:.2f} ms{'' if explained else ', UNEXPLAINED'}",
            file=sys.stderr,
        )
    return explained


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
        folder / "fragments.mp4", "libx264", phone, movflags="frag_keyframe+empty_moov+default_base_moof"
    )
    yield "uneven times, frames left out", fragments
    for codec in ("mpeg4", "mjpeg", "libx264"):
        whole = record(folder / f"{codec}.avi", codec)
        yield (
            "AVI with chunks of 0 bytes, with and without index",
            add_empty_chunks(whole, folder / f"{codec}-empty.avi", True),
        )
        yield (
            "AVI with chunks of 0 bytes, with and without index",
            add_empty_chunks(whole, folder / f"{codec}-bare.avi", False),
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


def record(path: Path, codec: str, times: Sequence[int] | None = None, **options: str) -> Path:
    """Writes 60 different frames, at 25 per second or at these times in milliseconds."""
    quiet = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    muxer = {"movflags": options.pop("movflags")} if "movflags" in options else {}
    with av.open(str(path), "w", format="vob" if path.suffix == ".mpg" else None, options=muxer) as out:
        stream = out.add_stream(codec, rate=25, options=quiet | options)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height = 112, 64
        stream.pix_fmt = {"mjpeg": "yuvj420p", "gif": "rgb8"}.get(codec, "yuv420p")
        stream.codec_context.gop_size = 12
        base = Fraction(1, 1000 if times else 25)
        if times:
            stream.codec_context.time_base = base
        for number in range(60):
            picture = np.full((64, 112, 3), 60, np.uint8)
            for bit in range(7):
                picture[24:, bit * 16 : (bit + 1) * 16] = 220 if number >> bit & 1 else 20
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
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


def add_empty_chunks(source: Path, path: Path, index: bool) -> Path:
    """Copies an AVI and inserts chunks of 0 bytes before some frames. index: whether to write an index."""
    data = source.read_bytes()
    movie, place, body, entries, frames, count = data.index(b"movi"), data.index(b"movi") + 4, b"movi", b"", 0, 0
    while place < data.index(b"idx1"):
        size = int.from_bytes(data[place + 4 : place + 8], "little")
        name, content = data[place : place + 4], data[place + 8 : place + 8 + size]
        for part in [b""] * (frames in (1, 10, 25, 26)) + [content]:
            length = len(part).to_bytes(4, "little")
            entries += name + bytes((16 * bool(part), 0, 0, 0)) + len(body).to_bytes(4, "little") + length
            body += name + length + part + bytes(len(part) % 2)
            count += 1
        frames += 1
        place += 8 + size + size % 2
    head = bytearray(data[: movie - 8])
    for name, at in ((b"strh", 40), (b"avih", 24)):
        start = head.index(name) + at
        head[start : start + 4] = count.to_bytes(4, "little")
    tail = b"idx1" + len(entries).to_bytes(4, "little") + entries if index else b""
    path.write_bytes(bytes(head) + b"LIST" + len(body).to_bytes(4, "little") + body + tail)
    return path


def set_orientation(source: Path, path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Copies an MP4 with another display matrix."""
    data = bytearray(source.read_bytes())
    start = data.index(b"tkhd") + 44
    for at, value in zip((0, 4, 12, 16), matrix, strict=True):
        data[start + at : start + at + 4] = (value << 16).to_bytes(4, "big", signed=True)
    path.write_bytes(data)
    return path


def find_videos(folder: Path) -> Iterator[tuple[str, Path]]:
    """The videos below a folder, by folder and container."""
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in SUFFIXES and path.is_file():
            name = path.parent.relative_to(folder.parent).as_posix()
            yield f"`{name}`, {path.suffix.lower()[1:]}", path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, default=[DATA], metavar="FOLDER")
    parser.add_argument("--demo", type=Path, help="a demo data set whose videos are also compared")
    parser.add_argument("--each", action="store_true", help="print a line per video")
    options = parser.parse_args()
    av.logging.set_level(av.logging.PANIC)  # pyright: ignore[reportPrivateImportUsage]
    rows: dict[str, Row] = {}
    good = True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = [drawn_videos(folder), recordings(folder), *(find_videos(it) for it in options.folders)]
        sources += [find_videos(options.demo / "videos")] if options.demo else []
        for source in sources:
            for group, path in source:
                good &= compare(path, rows.setdefault(group, Row()), options.each)
    print("| videos | files | frames, PyAV | frames, ffprobe | frames, affect | numbers | pictures | times, ms |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    has_probe = shutil.which("ffprobe") is not None
    for group, row in rows.items():
        pyav, ffprobe, affect = row.frames
        probed = f"{ffprobe:,}" if has_probe else "–"
        milliseconds = f"{1000 * row.time_difference:.2f}"
        figures = f"{row.files} | {pyav:,} | {probed} | {affect:,} | {row.numbers} | {row.pictures} | {milliseconds}"
        print(f"| {group} | {figures} |")
    notes = [note for row in rows.values() for note in row.notes]
    if notes:
        print("\nExplained:\n" + "\n".join(f"- {note}" for note in notes))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
