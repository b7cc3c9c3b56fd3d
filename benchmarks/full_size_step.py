"""Measures the time and the peak memory of one end-to-end training step at full size, in one process or in several.

    python benchmarks/full_size_step.py
    python benchmarks/full_size_step.py --processes 2

Config affwild2: 448 x 448 frames, 224 x 224 crops, clips of 32 frames. The processes share the windows of one batch.
Weights and frames are random, which does not change time or memory. docs/performance.md compares the variants.
"""

import argparse
import resource
import subprocess
import sys
import time

import numpy as np
import torch
from affect.configs.schema import load
from affect.models.affect_net import AffectNet
from affect.models.backbone import FEATURES, scratch
from affect.models.head import HeadSettings, TemporalHead
from affect.models.stn import SpatialTransformer
from affect.pipeline.learning.distributed import gather_all, own_device, process_group
from affect.pipeline.learning.end_to_end import EndToEnd
from affect.pipeline.learning.frame_tracks import FrameTrack
from affect.pipeline.learning.loop import FitSettings, SimpleTask, fit
from affect.pipeline.learning.runtime import Compute, pick_device, pick_dtype
from affect.pipeline.progress import Reporter
from affect.pipeline.records import WHOLE
from numpy.typing import NDArray


def random_track(name: str, frames: int, side: int, seed: int) -> FrameTrack:
    rng = np.random.default_rng(seed)

    def draw(rows: NDArray[np.int64]) -> torch.Tensor:
        return torch.from_numpy(np.random.default_rng(seed).integers(0, 255, (len(rows), 3, side, side), np.uint8))

    index = np.arange(frames)
    target = rng.uniform(-1, 1, (frames, 2)).astype(np.float32)
    return FrameTrack(name, draw, WHOLE, index, index / 25, target, np.ones(frames, np.bool_))


def peak_bytes(device: torch.device) -> int:
    """The peak memory of this process, or of its GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def step(overrides: list[str]) -> None:
    config = load("affwild2", overrides)
    device = own_device(pick_device(config.runtime.device), config.runtime.device)
    compute = Compute(device, pick_dtype(config.runtime.precision, device))
    torch.manual_seed(0)
    stn = SpatialTransformer(config.stn.kind, config.stn.view, config.stn.crop, config.stn.margin)
    net = AffectNet(stn, scratch(), TemporalHead(FEATURES, HeadSettings(**config.head.model_dump())))
    windows = config.train.batch_end_to_end
    tracks = [random_track(str(k), config.clip.length, config.frames.size, k) for k in range(windows)]
    with process_group(device) as rank:
        training = EndToEnd(net, tracks, tracks[:1], config, compute, calibrate=False)
        before = peak_bytes(device)
        start, cpu_start = time.perf_counter(), time.process_time()
        task = SimpleTask(
            training.model, training.batches, training.loss, lambda: {"score": 0.0}, training.groups, training.steps
        )
        settings = FitSettings(
            "score", 1, config.train.ema, 0.05, config.train.weight_decay, config.train.gradient_clip, "cosine"
        )
        result = fit(task, settings, compute, Reporter(quiet=True), "step")
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
        peaks = [int(it.item()) for it in gather_all(torch.tensor([peak_bytes(device)]), device)]
        if rank.rank:
            return
        loss, skipped = result.history[0]["train_loss"], result.history[0]["skipped"]
        print(
            f"{rank.world} process(es), {torch.get_num_threads()} thread(s) each, {device}, {compute.dtype}, "
            f"{windows} windows of {config.clip.length} frames, pieces of {config.features.batch}: "
            f"{seconds:.1f} s, CPU time {cpu_seconds:.1f} s; "
            f"peak memory {' + '.join(f'{peak / 2**30:.2f}' for peak in peaks)} "
            f"= {sum(peaks) / 2**30:.2f} GiB, {before / 2**30:.2f} GiB of it before the step; "
            f"steps {training.steps}, skipped {skipped}, loss {loss:.3f}"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    options = parser.parse_args()
    if options.processes > 1:
        words = [word for it in options.set for word in ("--set", it)]
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(options.processes)]
        subprocess.run([*torchrun, __file__, *words], check=True)
    else:
        step(options.set)
