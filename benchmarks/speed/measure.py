"""Helpers of the parts: a row of the table, elapsed time, memory of a process, and a data folder with drawn videos."""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from affect.configs.schema import Config, load
from affect.pipeline.ingest.synthetic.video import SyntheticVideo, draw_video
from affect.pipeline.progress import Reporter

QUIET = Reporter(quiet=True)
CORES = os.cpu_count() or 1
DRAWN_FRAMES = 200
"""Frames that are drawn for a video. A longer video repeats them."""


@dataclass(frozen=True)
class Row:
    """A row of the table. detail: the absolute figures behind a ratio. target: for example `>= 0.8`. rate: the name
    under which `estimate.py` finds the figure."""

    what: str
    figure: float
    unit: str = ""
    detail: str = ""
    target: str = ""
    rate: str = ""


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


@dataclass(frozen=True)
class Cost:
    """What a process needed, with the processes that it started. cpu: seconds of all cores. peak: bytes of the largest
    process."""

    seconds: float
    cpu: float
    peak: int


def run(*words: str | Path, env: dict[str, str] | None = None) -> Cost:
    """Runs a command in a new process. Its output is hidden. Raises CalledProcessError."""
    code = (
        "import resource, subprocess, sys\n"
        "done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL)\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(used.ru_maxrss, used.ru_utime + used.ru_stime)\n"
        "sys.exit(done.returncode)\n"
    )
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)], check=True, stdout=subprocess.PIPE, text=True,
        env={**os.environ, **(env or {})},
    )  # fmt: skip
    elapsed = time.perf_counter() - start
    peak, cpu = done.stdout.split()
    return Cost(elapsed, float(cpu), int(peak) * 1024)


def affect(*words: str | Path, env: dict[str, str] | None = None) -> tuple[float, int]:
    """Runs the command `affect`, as `run`. Returns (seconds, peak bytes of its largest process)."""
    cost = run(sys.executable, "-m", "affect", *words, env=env)
    return cost.seconds, cost.peak


def full_size(*more: str) -> Config:
    return load("affwild2", ["backbone.weights=scratch", "runtime.device=cpu", "runtime.workers=0", *more])


def draw_data(root: Path, videos: int, frames: int, *, width: int, height: int) -> Path:
    """A data folder of drawn, annotated videos: the last one in the validation split, the others in the training split.

    An existing folder is used again.
    """
    root = root.with_name(f"{root.name}-{videos}x{frames}-{width}x{height}")
    if root.is_dir():
        return root
    unfinished = root.with_name(f"{root.name}.making")
    for number in range(videos):
        path = unfinished / "videos" / f"v{number}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        drawn = path.with_name("drawn.mp4")
        acted = draw_video(SyntheticVideo(drawn, number, min(frames, DRAWN_FRAMES), 25.0, 1, width, height))[0]
        lengthen(drawn, path, frames)
        drawn.unlink()
        split = "Validation_Set" if number == videos - 1 and videos > 1 else "Train_Set"
        folder = unfinished / "annotations" / "VA_Set" / split
        folder.mkdir(parents=True, exist_ok=True)
        labels = np.resize(np.asarray(acted.label), (frames, 2))
        rows = "\n".join(f"{v:.4f},{a:.4f}" for v, a in labels)
        (folder / f"v{number}.txt").write_text(f"valence,arousal\n{rows}\n", encoding="utf-8")
    unfinished.rename(root)
    return root


def lengthen(source: Path, out: Path, frames: int) -> None:
    """Repeats the packets of a video, without encoding, until it has so many frames.

    frames: a multiple of the length of the source, or less than its length.
    """
    with av.open(str(source)) as original, av.open(str(out), "w") as output:
        stream = original.streams.video[0]
        track = output.add_stream_from_template(stream)
        packets = [packet for packet in original.demux(stream) if packet.size]
        times = [(packet.pts or 0, packet.dts or 0) for packet in packets]
        shown = sorted(pts for pts, _ in times)
        duration = 2 * shown[-1] - shown[-2] - shown[0]
        for round_ in range(max(1, frames // len(packets))):
            for packet, (pts, dts) in zip(packets, times, strict=True):
                packet.pts, packet.dts, packet.stream = pts + round_ * duration, dts + round_ * duration, track
                output.mux(packet)


def own_peak() -> int:
    """Peak memory of this process, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def median(values: Sequence[float]) -> float:
    return float(np.median(values))
