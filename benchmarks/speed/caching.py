"""cache-features at full size, compared with the network alone and with a naive loop over OpenCV and torchvision."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from affect.models.backbone import folded, scratch
from affect.pipeline.features.encode import THREADS
from affect.pipeline.learning.runtime import CPU_BATCH, keep_freed_memory
from affect.pipeline.records import Work
from affect.pipeline.stages.audit import audit
from affect.pipeline.stages.cache_features import cache_features, spread
from affect.pipeline.stages.extract_frames import extract_frames
from torchvision.models import resnet50

from .measure import QUIET, Row, draw_data, full_size, median, seconds

TURNS = 4
TOTAL_THREADS = THREADS * spread(full_size(), 1)[1]
"""Threads that cache-features uses for one video. The other sides of the comparison get as many."""
MAX_FRAMES = 200
"""Maximum length of a video. In short turns, the load of the machine changes less between the two sides."""
NAIVE_FRAMES = 32
"""Frames for the naive implementation."""


def cache(folder: Path, frames: int) -> Iterator[Row]:
    """cache-features from a 720p video and from its frame shard, in turns with the network alone, on the same cores."""
    config, frames = full_size("runtime.precision=fp32"), min(frames, MAX_FRAMES)
    data = draw_data(folder / "data", 1, frames, width=1280, height=720)
    tiny = draw_data(folder / "tiny", 1, 8, width=1280, height=720)
    works = {data: Work(folder / "work"), tiny: Work(folder / "small")}
    for source, work in works.items():
        audit(config, source, work, QUIET)
    network_here = network_timer(folded(scratch("torchvision", 0)).features, config.stn.crop)
    keep_freed_memory(torch.device("cpu"))

    def time_stage(source: Path) -> float:
        shard = works[source].features("v0")
        shard.unlink(missing_ok=True)
        elapsed = seconds(lambda: cache_features(config, source, works[source], QUIET))
        assert shard.is_file(), source
        return elapsed

    def frame_seconds() -> float:
        """Seconds per frame, without the time of a video of 8 frames, which is the start."""
        return (time_stage(data) - time_stage(tiny)) / (frames - 8)

    shard, hidden_shard = works[data].frames("v0"), folder / "kept.h5"
    time_stage(tiny)  # loads the networks
    extract_frames(config, data, works[data], QUIET)
    turns: list[dict[str, float]] = []
    with _NetworkProcess(config.stn.crop) as network_elsewhere:
        for _ in range(TURNS):
            turn = {"kept, shard": network_here(), "bare, shard": network_elsewhere()}
            turn["shard"] = frame_seconds()
            shard.replace(hidden_shard)
            turn |= {"kept, video": network_here(), "bare, video": network_elsewhere()}
            turn["video"] = frame_seconds()
            turn["naive"] = _time_naive(data / "videos" / "v0.mp4", folder / "naive", config.stn.crop)
            hidden_shard.replace(shard)
            turns.append(turn)
    shard.unlink()

    def rate(name: str) -> float:
        return 1 / median([turn[name] for turn in turns])

    def ratio(limit: str, name: str) -> float:
        """The median of the ratios within each turn, because the load of the machine changes between turns."""
        return median([turn[limit] / turn[name] for turn in turns])

    detail = f"{rate('video'):.1f} and {rate('bare, video'):.1f} frames/s, fp32, {TOTAL_THREADS} cores, without start"
    yield Row("cache-features from 720p video / network alone", ratio("bare, video", "video"), "", detail, ">= 0.9")
    detail = f"{rate('shard'):.1f} and {rate('bare, shard'):.1f} frames/s, {TURNS} turns of {frames} frames"
    yield Row("  from frame shards / network alone", ratio("bare, shard", "shard"), "", detail, ">= 0.93")
    detail = f"{rate('kept, video'):.1f} frames/s"
    name = "network alone that keeps freed memory"
    yield Row(f"  from 720p video / {name}", ratio("kept, video", "video"), "", detail)
    yield Row(f"  from frame shards / {name}", ratio("kept, shard", "shard"))
    yield Row("  start of cache-features from video", time_stage(tiny), "s", "a video of 8 frames, networks loaded")
    worker = rate("shard") * THREADS / TOTAL_THREADS
    yield Row("  one worker", worker, "frames/s", f"fp32, {THREADS} cores", rate="cache")
    detail = f"naive {rate('naive'):.1f} frames/s"
    yield Row("cache-features from video / naive implementation", ratio("naive", "video"), "times", detail, ">= 2")


class _NetworkProcess:
    """Measures the network alone in another process, which does not keep freed memory. Idle between calls."""

    def __init__(self, size: int) -> None:
        code = f"from affect.benchmarks.speed.caching import serve; serve({size})"
        self._process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def __call__(self) -> float:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        return float(self._process.stdout.readline())

    def __enter__(self) -> "_NetworkProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()


def serve(size: int) -> None:
    """Prints the network's seconds per frame for each line of standard input."""
    measure = network_timer(folded(scratch("torchvision", 0)).features, size)
    for _ in sys.stdin:
        print(measure(), flush=True)


def network_timer(features: Callable[[torch.Tensor], torch.Tensor], size: int) -> Callable[[], float]:
    """A function that measures the network's seconds per frame on random pictures."""
    crop = torch.rand(CPU_BATCH, 3, size, size) * 255

    def measure() -> float:
        torch.set_num_threads(TOTAL_THREADS)
        with torch.inference_mode():
            features(crop)
            return median([seconds(lambda: features(crop)) / CPU_BATCH for _ in range(4)])

    return measure


def compiled(folder: Path, frames: int) -> Iterator[Row]:
    """torch.compile of the folded network in fp32: the gain per frame and the time to compile."""
    size = full_size().stn.crop
    plain = folded(scratch("torchvision", 0))
    compiled_features = torch.compile(folded(scratch("torchvision", 0)).features, dynamic=False)
    crop = torch.rand(CPU_BATCH, 3, size, size) * 255
    torch.set_num_threads(TOTAL_THREADS)
    with torch.inference_mode():
        cost = seconds(lambda: compiled_features(crop))
    keep_freed_memory(torch.device("cpu"))
    time_plain, time_compiled = network_timer(plain.features, size), network_timer(compiled_features, size)
    times = [(time_plain(), time_compiled()) for _ in range(3)]
    gain = median([before / after for before, after in times])
    yield Row("compiled network / folded network", gain, "times", f"fp32, {TOTAL_THREADS} cores, batch {CPU_BATCH}")
    saved = median([before - after for before, after in times])
    detail = f"break-even after {cost / saved:,.0f} frames of a worker" if saved > 0 else "no gain"
    yield Row("  compilation", cost, "s", detail)


def _time_naive(video: Path, out: Path, size: int) -> float:
    """Seconds per frame of a loop over OpenCV and torchvision's ResNet-50 in fp32 that writes one file per frame."""
    out.mkdir(exist_ok=True)
    network = resnet50(weights=None)
    network.fc = torch.nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    network.eval()
    torch.set_num_threads(TOTAL_THREADS)
    reader = cv2.VideoCapture(str(video))
    start = time.perf_counter()
    for number in range(NAIVE_FRAMES):
        picture = cv2.resize(cv2.cvtColor(reader.read()[1], cv2.COLOR_BGR2RGB), (size, size))
        with torch.no_grad():
            feature = network(torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255)
        np.save(out / f"{number:05d}.npy", feature.numpy())
    return (time.perf_counter() - start) / NAIVE_FRAMES
