"""What the parts share: a row of the table, time, memory of a process, and a data folder with videos of one kind."""

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
from affect.pipeline.ingest.synthetic.film import Film, draw_film
from affect.pipeline.progress import Talk

HUSH = Talk(quiet=True)
CORES = os.cpu_count() or 1
DRAWN = 200
"""Frames of a film that are drawn; a longer one shows them again."""


@dataclass(frozen=True)
class Row:
    """A line of the table. told: the absolute figures behind a ratio. wanted: `>= 0.8` or the like. rate: the name by
    which `reckon` finds the figure."""

    what: str
    figure: float
    unit: str = ""
    told: str = ""
    wanted: str = ""
    rate: str = ""


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def affect(*words: str | Path, env: dict[str, str] | None = None) -> tuple[float, int]:
    """Runs the command in a process of its own: (seconds, peak bytes of it or its largest child). Raises
    CalledProcessError."""
    code = (
        "import os, resource, subprocess, sys\n"
        "done = subprocess.run([sys.executable, '-m', 'affect', *sys.argv[1:]], stdout=subprocess.DEVNULL)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
        "sys.exit(done.returncode)\n"
    )
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)], check=True, stdout=subprocess.PIPE, text=True,
        env={**os.environ, **(env or {})},
    )  # fmt: skip
    return time.perf_counter() - began, int(done.stdout.split()[-1]) * 1024


def full_size(*more: str) -> Config:
    return load("affwild2", ["backbone.weights=scratch", "runtime.device=cpu", "runtime.workers=0", *more])


def draw_data(root: Path, videos: int, frames: int, *, width: int, height: int) -> Path:
    """A data folder of drawn, annotated videos in the training split and one in the validation split. Drawn once: where
    the folder is there, it is used."""
    root = root.with_name(f"{root.name}-{videos}x{frames}-{width}x{height}")
    if root.is_dir():
        return root
    making = root.with_name(f"{root.name}.making")
    for number in range(videos):
        path = making / "videos" / f"v{number}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        drawn = path.with_name("drawn.mp4")
        acted = draw_film(Film(drawn, number, min(frames, DRAWN), 25.0, 1, width, height))[0]
        lengthen(drawn, path, frames)
        drawn.unlink()
        split = "Validation_Set" if number == videos - 1 and videos > 1 else "Train_Set"
        folder = making / "annotations" / "VA_Set" / split
        folder.mkdir(parents=True, exist_ok=True)
        labels = np.resize(np.asarray(acted.label), (frames, 2))
        rows = "\n".join(f"{v:.4f},{a:.4f}" for v, a in labels)
        (folder / f"v{number}.txt").write_text(f"valence,arousal\n{rows}\n", encoding="utf-8")
    making.rename(root)
    return root


def lengthen(source: Path, out: Path, frames: int) -> None:
    """Writes a video of that many frames, which are those of the source again and again, without encoding them anew.
    frames: a multiple of the source's, or fewer."""
    with av.open(str(source)) as given, av.open(str(out), "w") as made:
        stream = given.streams.video[0]
        track = made.add_stream_from_template(stream)
        packets = [packet for packet in given.demux(stream) if packet.size]
        times = [(packet.pts or 0, packet.dts or 0) for packet in packets]
        shown = sorted(pts for pts, _ in times)
        whole = 2 * shown[-1] - shown[-2] - shown[0]
        for round_ in range(max(1, frames // len(packets))):
            for packet, (pts, dts) in zip(packets, times, strict=True):
                packet.pts, packet.dts, packet.stream = pts + round_ * whole, dts + round_ * whole, track
                made.mux(packet)


def own_peak() -> int:
    """Bytes this process took at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def median(values: Sequence[float]) -> float:
    return float(np.median(values))
