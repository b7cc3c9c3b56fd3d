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
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
from affect.benchmarks.recordings import drawn_videos, recordings
from affect.pipeline.errors import VideoError
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
