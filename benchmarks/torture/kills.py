"""Kills extract-frames, cache-features and train with SIGKILL at a random moment, then runs the same command again.

The result is compared with an undisturbed run.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from affect.pipeline.storage.checkpoint import load_weights

from .model import SETTINGS, random_networks
from .sources import FRAMES, write_video

STAGES = ("extract-frames", "cache-features", "train")
VIDEOS = 4


def run(folder: Path, count: int, seed: int, log: Callable[[str], None]) -> dict[str, Any]:
    """The moment of a kill is a random share of the duration of the undisturbed stage, including its start.

    If the stage has ended before that moment, it is repeated with its new duration.
    """
    rng = np.random.default_rng(seed)
    data, reference = prepare(folder)
    seconds: dict[str, float] = {}
    before: dict[str, Path] = {}
    for stage in STAGES:
        before[stage] = folder / f"before-{stage}"
        shutil.copytree(reference, before[stage])
        start = time.perf_counter()
        affect(stage, data, reference)
        seconds[stage] = time.perf_counter() - start
    figures = {"kills": count, "repeated, too late": 0, "resumed": 0, "equal": 0, "left processes": 0}
    for number in range(count):
        stage = STAGES[number % len(STAGES)]
        work = folder / "work"
        while not kill_midway(stage, data, work, before[stage], float(rng.uniform(0.1, 1.0)), seconds):
            figures["repeated, too late"] += 1
        figures["left processes"] += bool(left_processes(work))
        done = affect(stage, data, work, check=False)
        figures["resumed"] += done.returncode == 0
        same = done.returncode == 0 and outputs(work, stage) == outputs(reference, stage)
        figures["equal"] += same
        if number % 5 == 4:
            log(f"kills so far: {figures | {'kills': number + 1}}")
        if not same:
            log(f"  kill {number} of {stage}: exit code {done.returncode}, equal {same}: {done.stderr[-500:]!r}")
    return figures


def kill_midway(stage: str, data: Path, work: Path, before: Path, share: float, seconds: dict[str, float]) -> bool:
    """Starts the stage and kills it after that share of its duration. Returns False if it has ended before."""
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(before, work)
    start = time.perf_counter()
    process = start_stage(stage, data, work)
    try:
        process.wait(share * seconds[stage])
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return True
    seconds[stage] = time.perf_counter() - start
    return False


def prepare(folder: Path) -> tuple[Path, Path]:
    """Makes a small data set, and a work folder with random networks after `audit`."""
    data, work = folder / "data", folder / "reference"
    labels = {split: data / "VA_Set" / split for split in ("Train_Set", "Validation_Set")}
    for path in (data / "videos", *labels.values()):
        path.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(VIDEOS):
        write_video(data / "videos" / f"v{number}.mp4", "libx264")
        rows = rng.uniform(-1, 1, (FRAMES, 2)).round(3)
        text = "valence,arousal\n" + "".join(f"{valence},{arousal}\n" for valence, arousal in rows.tolist())
        (labels["Validation_Set" if number % 2 else "Train_Set"] / f"v{number}.txt").write_text(text, encoding="utf-8")
    random_networks(work)
    affect("audit", data, work)
    return data, work


def command(stage: str, data: Path, work: Path) -> list[str]:
    settings = [*SETTINGS, "train.epochs=12", "train.batch=2", "runtime.workers=0"]
    return [
        sys.executable, "-m", "affect", stage, "--data", str(data), "--work", str(work), "--quiet",
        *(part for setting in settings for part in ("--set", setting)),
    ]  # fmt: skip


def start_stage(stage: str, data: Path, work: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(command(stage, data, work), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True)


def affect(stage: str, data: Path, work: Path, *, check: bool = True) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command(stage, data, work), capture_output=True, text=True, check=check)


def outputs(work: Path, stage: str) -> dict[str, str]:
    """Digests of what a stage wrote: of every file, leftovers included; for a model of its tensors, because the file
    also records the duration."""
    if stage == "train":
        state, _ = load_weights(work / "train" / "default" / "model.safetensors")
        return {name: hashlib.sha256(value.contiguous().numpy().tobytes()).hexdigest() for name, value in state.items()}
    folder = work / {"extract-frames": "frames", "cache-features": "features"}[stage]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def left_processes(work: Path, seconds: float = 2.0) -> list[int]:
    """Process ids whose command line still has this run's folder after some seconds."""
    deadline = time.monotonic() + seconds
    while found := _processes_naming(str(work.parent)):
        if time.monotonic() > deadline:
            return found
        time.sleep(0.05)
    return []


def _processes_naming(text: str) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes()
        except OSError:
            continue
        if text.encode() in words and int(path.parent.name) != os.getpid() and b"affect" in words:
            found.append(int(path.parent.name))
    return found
