"""What the parts share: a row of the table, time, memory of a process, and a data folder with videos of one kind."""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from affect.pipeline.ingest.synthetic.film import Film, draw_film


@dataclass(frozen=True)
class Row:
    """A line of the table. told: the absolute figures behind a ratio."""

    what: str
    figure: float
    unit: str = ""
    told: str = ""


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


def draw_data(root: Path, videos: int, frames: int, *, width: int, height: int) -> Path:
    """A data folder of drawn, annotated videos in the training split and one in the validation split."""
    for number in range(videos):
        path = root / "videos" / f"v{number}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        acted = draw_film(Film(path, number, frames, 25.0, 1, width, height))[0]
        split = "Validation_Set" if number == videos - 1 and videos > 1 else "Train_Set"
        folder = root / "annotations" / "VA_Set" / split
        folder.mkdir(parents=True, exist_ok=True)
        rows = "\n".join(f"{v:.4f},{a:.4f}" for v, a in np.asarray(acted.label))
        (folder / f"v{number}.txt").write_text(f"valence,arousal\n{rows}\n", encoding="utf-8")
    return root


def own_peak() -> int:
    """Bytes this process took at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def median(values: Sequence[float]) -> float:
    return float(np.median(values))
