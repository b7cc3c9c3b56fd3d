"""cache-features at full size against the network alone, and against OpenCV frame by frame and the plain network."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from affect.models.backbone import folded, scratch
from affect.pipeline.learning.runtime import PIECE, keep_freed_memory
from affect.pipeline.records import Work
from affect.pipeline.stages.audit import audit
from affect.pipeline.stages.cache_features import cache_features, spread
from affect.pipeline.stages.encoding import THREADS
from affect.pipeline.stages.extract_frames import extract_frames
from torchvision.models import resnet50

from .measure import HUSH, Row, draw_data, full_size, median, seconds

TURNS = 4
IN_ALL = THREADS * spread(full_size(), 1)[1]
"""Threads that cache-features gives one video, and so those of what it is compared with."""
FRAMES = 200
"""Of a video, at most: the shorter the turns, the more two of them have the same machine."""
NAIVE = 32
"""Frames that the naive way is given."""


def cache(folder: Path, frames: int) -> Iterator[Row]:
    """From a 720p video and from its frame shard, in turns with the network alone. All by as many cores."""
    config, frames = full_size("runtime.precision=fp32"), min(frames, FRAMES)
    data = draw_data(folder / "data", 1, frames, width=1280, height=720)
    tiny = draw_data(folder / "tiny", 1, 8, width=1280, height=720)
    works = {data: Work(folder / "work"), tiny: Work(folder / "small")}
    for source, work in works.items():
        audit(config, source, work, HUSH)
    bare = bare_network(folded(scratch("torchvision", 0)).features, config.stn.crop)
    keep_freed_memory(torch.device("cpu"))

    def ours(source: Path) -> float:
        shard = works[source].features("v0")
        shard.unlink(missing_ok=True)
        took = seconds(lambda: cache_features(config, source, works[source], HUSH))
        assert shard.is_file(), source
        return took

    def a_frame() -> float:
        """Seconds, without those of a video of 8 frames."""
        return (ours(data) - ours(tiny)) / (frames - 8)

    shard, kept = works[data].frames("v0"), folder / "kept.h5"
    ours(tiny)  # networks loaded
    extract_frames(config, data, works[data], HUSH)
    turns: list[dict[str, float]] = []
    with _Elsewhere(config.stn.crop) as elsewhere:
        for _ in range(TURNS):
            turn = {"kept, shard": bare(), "bare, shard": elsewhere()}
            turn["shard"] = a_frame()
            shard.replace(kept)
            turn |= {"kept, video": bare(), "bare, video": elsewhere()}
            turn["video"] = a_frame()
            turn["naive"] = _naive(data / "videos" / "v0.mp4", folder / "naive", config.stn.crop)
            kept.replace(shard)
            turns.append(turn)
    shard.unlink()

    def rate(what: str) -> float:
        return 1 / median([turn[what] for turn in turns])

    def ratio(limit: str, what: str) -> float:
        """The median of those of the turns: what is beside each other in time had the same machine."""
        return median([turn[limit] / turn[what] for turn in turns])

    told = f"{rate('video'):.1f} and {rate('bare, video'):.1f} frames/s, fp32, {IN_ALL} cores, start told apart"
    yield Row("cache-features from 720p video / bare network", ratio("bare, video", "video"), "", told, ">= 0.9")
    told = f"{rate('shard'):.1f} and {rate('bare, shard'):.1f} frames/s, {TURNS} turns of {frames} frames"
    yield Row("  from frame shards / bare network", ratio("bare, shard", "shard"), "", told, ">= 0.93")
    told = f"{rate('kept, video'):.1f} frames/s"
    what = "bare network that keeps freed memory"
    yield Row(f"  from 720p video / {what}", ratio("kept, video", "video"), "", told)
    yield Row(f"  from frame shards / {what}", ratio("kept, shard", "shard"))
    yield Row("  start of cache-features from video", ours(tiny), "s", "a video of 8 frames, networks loaded")
    worker = rate("shard") * THREADS / IN_ALL
    yield Row("  frames/s of a worker", worker, "frames/s", f"fp32, {THREADS} cores", rate="cache")
    told = f"naive {rate('naive'):.1f} frames/s"
    yield Row("cache-features from video / naive way", ratio("naive", "video"), "times", told, ">= 2")


class _Elsewhere:
    """Measures the bare network in a process of its own, with memory as it comes; asleep until it is called."""

    def __init__(self, size: int) -> None:
        code = f"from affect.benchmarks.speed.caching import serve; serve({size})"
        self._child = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def __call__(self) -> float:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write("\n")
        return float(self._child.stdout.readline())

    def __enter__(self) -> "_Elsewhere":
        return self

    def __exit__(self, *_: object) -> None:
        self._child.communicate()


def serve(size: int) -> None:
    """The bare network's seconds a frame, for each line of standard input."""
    measured = bare_network(folded(scratch("torchvision", 0)).features, size)
    for _ in sys.stdin:
        print(measured(), flush=True)


def bare_network(features: Callable[[torch.Tensor], torch.Tensor], size: int) -> Callable[[], float]:
    """A function that measures the seconds a frame of the network on random pictures."""
    crop = torch.rand(PIECE, 3, size, size) * 255

    def measured() -> float:
        torch.set_num_threads(IN_ALL)
        with torch.inference_mode():
            features(crop)
            return median([seconds(lambda: features(crop)) / PIECE for _ in range(4)])

    return measured


def compiled(folder: Path, frames: int) -> Iterator[Row]:
    """torch.compile on the folded network, in fp32: what it gains on a frame, and what it costs at the start."""
    size = full_size().stn.crop
    plain = folded(scratch("torchvision", 0))
    made = torch.compile(folded(scratch("torchvision", 0)).features, dynamic=False)
    crop = torch.rand(PIECE, 3, size, size) * 255
    torch.set_num_threads(IN_ALL)
    with torch.inference_mode():
        cost = seconds(lambda: made(crop))
    keep_freed_memory(torch.device("cpu"))
    alone, fast = bare_network(plain.features, size), bare_network(made, size)
    times = [(alone(), fast()) for _ in range(3)]
    gain = median([before / after for before, after in times])
    yield Row("compiled network / folded network", gain, "times", f"fp32, {IN_ALL} cores, batches of {PIECE}")
    saved = median([before - after for before, after in times])
    told = f"pays back after {cost / saved:,.0f} frames of a worker" if saved > 0 else "never pays back"
    yield Row("  compiling it", cost, "s", told)


def _naive(video: Path, out: Path, size: int) -> float:
    """Seconds a frame of OpenCV, torchvision's ResNet-50 in fp32 and a file for each frame."""
    out.mkdir(exist_ok=True)
    network = resnet50(weights=None)
    network.fc = torch.nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    network.eval()
    torch.set_num_threads(IN_ALL)
    reader = cv2.VideoCapture(str(video))
    began = time.perf_counter()
    for number in range(NAIVE):
        picture = cv2.resize(cv2.cvtColor(reader.read()[1], cv2.COLOR_BGR2RGB), (size, size))
        with torch.no_grad():
            feature = network(torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255)
        np.save(out / f"{number:05d}.npy", feature.numpy())
    return (time.perf_counter() - began) / NAIVE
