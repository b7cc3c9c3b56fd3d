"""predict with the base model, beside other packages for facial expressions on the same video in the same run."""

import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
from affect.configs.schema import Config
from av.video.frame import PictureType

from ..peers.environment import FER, ROOT, RUNNER, NotInstallableError, environment
from .measure import Cost, Row, draw_data, median, run

REAL = ROOT.parent / "shared" / "data" / "tears-to-laughter.mp4"
TURNS = 2
FACE = Config().predict.face_threshold
SHORT = 8
"""Frames of the video that measures the start."""
PEERS = {
    f"{FER}, its default detector": ("fer", 0),
    f"{FER}, MTCNN": ("fer-mtcnn", 40),
    "facial-emotion-recognition==0.3.4, MTCNN": ("facial-emotion-recognition", 40),
}
"""Name of the row: package of run_peer.py, and number of frames; 0: all. MTCNN is slow."""


@dataclass(frozen=True)
class Turn:
    """long, short: the whole video, and one of SHORT frames. missing: frames of the whole video without a face."""

    frames: int
    long: Cost
    short: Cost
    missing: int

    @property
    def seconds(self) -> float:
        """Of a frame, without the start."""
        return (self.long.seconds - self.short.seconds) / (self.frames - SHORT)

    @property
    def cpu(self) -> float:
        """Seconds of all cores for a frame, without the start."""
        return (self.long.cpu - self.short.cpu) / (self.frames - SHORT)


def peers(folder: Path, frames: int) -> Iterator[Row]:
    """Speed, memory, start and frames without a result of affect and of packages whose weights come with them."""
    try:
        python = environment()
    except NotInstallableError as error:
        print(f"peers: not measured, {FER} cannot be installed: {error}", file=sys.stderr)
        return
    video = REAL
    if not video.is_file():
        video = draw_data(folder / "data", 1, frames, width=640, height=360) / "videos" / "v0.mp4"
    short = _beginning(video, folder / f"short{video.suffix}", SHORT)
    ours: list[Turn] = []
    others: dict[str, list[Turn]] = {name: [] for name in PEERS}
    for number in range(TURNS):
        ours.append(_affect(video, short, folder / f"out{number}"))
        for name, theirs in list(others.items()):
            try:
                theirs.append(_peer(python, *PEERS[name], (video, short), folder / "out.json"))
            except subprocess.CalledProcessError:
                print(f"peers: {name} does not run here, so it is not measured", file=sys.stderr)
                del others[name]
    yield from _rows("affect predict, base model", ours, video.name)
    for name, theirs in others.items():
        yield from _rows(name, theirs, video.name)
        times = median([turn.seconds for turn in theirs]) / median([turn.seconds for turn in ours])
        cpu = median([turn.cpu for turn in theirs]) / median([turn.cpu for turn in ours])
        yield Row("  affect / this package, by frames/s", times, "times", f"by CPU time {cpu:.3g}")


def _rows(name: str, turns: list[Turn], video: str) -> Iterator[Row]:
    """The figures of one program."""
    cpu, frames = median([turn.cpu for turn in turns]), turns[0].frames
    rate = 1 / median([turn.seconds for turn in turns])
    yield Row(name, rate, "frames/s", f"{1e3 * cpu:.1f} ms of CPU time per frame; {frames} frames of {video}")
    peak, start = max(turn.long.peak for turn in turns), [turn.short for turn in turns]
    yield Row("  peak memory", peak / 2**20, "MiB", "of its largest process")
    cpu_start = min(cost.cpu for cost in start)
    yield Row("  start", min(cost.seconds for cost in start), "s", f"{cpu_start:.1f} s of CPU time; {SHORT} frames")
    yield Row("  frames without a face", turns[0].missing, "", f"of {frames}")


def _affect(video: Path, short: Path, out: Path) -> Turn:
    costs = [
        run(sys.executable, "-m", "affect", "predict", path, "--quiet", "--no-plot", "--out", out / path.stem)
        for path in (short, video)
    ]
    with (out / video.stem / f"{video.stem}.csv").open(encoding="utf-8", newline="") as file:
        faces = [float(row["face"]) for row in csv.DictReader(file)]
    return Turn(len(faces), costs[1], costs[0], sum(face < FACE for face in faces))


def _peer(python: Path, package: str, limit: int, videos: tuple[Path, Path], out: Path) -> Turn:
    short, long = (run(python, RUNNER, "video", package, video, out, str(limit)) for video in videos[::-1])
    counted = json.loads(out.read_text(encoding="utf-8"))
    return Turn(counted["frames"], long, short, counted["frames"] - counted["found"])


def _beginning(video: Path, out: Path, frames: int) -> Path:
    """The first frames of a video, encoded again."""
    with av.open(str(video)) as source, av.open(str(out), "w") as target:
        read = source.streams.video[0]
        stream = target.add_stream("h264", rate=read.average_rate)
        stream.width, stream.height, stream.pix_fmt = read.width, read.height, "yuv420p"
        for number, frame in enumerate(source.decode(read)):
            if number == frames:
                break
            frame.pict_type = PictureType.NONE
            target.mux(stream.encode(frame))
        target.mux(stream.encode())
    return out
