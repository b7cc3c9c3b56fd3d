"""Training of the head from cached features: from disk compared with tensors in memory, the first step over a cache as
long as Aff-Wild2, and an epoch compared with end-to-end training."""

import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from affect.configs.schema import Config
from affect.models.affect_net import AffectNet
from affect.models.backbone import FEATURES as WIDTH
from affect.models.backbone import scratch
from affect.models.head import HeadSettings, TemporalHead
from affect.models.stn import SpatialTransformer
from affect.pipeline.learning.end_to_end import EndToEnd
from affect.pipeline.learning.frame_tracks import FrameTrack
from affect.pipeline.learning.from_cache import FromCache
from affect.pipeline.learning.loop import FitSettings, SimpleTask, fit
from affect.pipeline.learning.runtime import Compute
from affect.pipeline.learning.tracks import FeatureTracks, read_track
from affect.pipeline.records import WHOLE
from affect.pipeline.storage.jpeg import decode, encode
from affect.pipeline.storage.shard import FEATURES
from affect.pipeline.storage.shard_writer import ShardWriter

from .measure import QUIET, Row, full_size, median

SUBJECTS, ROWS = 594, 4800
"""Of a cache as long as Aff-Wild2: 2.85 million frames."""
CPU = torch.device("cpu")


def head(folder: Path, frames: int) -> Iterator[Row]:
    """Compares batches from shards on disk with batches from memory, and measures the first step over a long cache."""
    config = full_size()
    paths = long_cache(folder)
    few, count = [read_track(path) for path in paths[:12]], 6

    def rate(memory: int | None) -> float:
        """Frames per second over some steps. The first step is not timed, because nothing is prefetched for it."""
        task = head_task(config, FeatureTracks(few, CPU, memory=memory))
        optimizer, done, start = torch.optim.AdamW(task.model.parameters(), fused=True), 0, 0.0
        for number, batch in enumerate(islice(task.batches(1), count + 1)):
            if number == 1:
                done, start = 0, time.perf_counter()
            optimizer.zero_grad()
            task.loss(batch)[0].backward()
            optimizer.step()
            done += batch.valid.numel()
        return done / (time.perf_counter() - start)

    from_memory, from_disk = [], []
    for _ in range(3):
        from_memory.append(rate(1 << 40))
        from_disk.append(rate(0))
    batches = f"batches of {config.train.batch} x {config.clip.length}"
    detail = f"{median(from_disk):,.0f} and {median(from_memory):,.0f} frames/s, {batches}"
    yield Row("head trained from disk / from memory", median(from_disk) / median(from_memory), "", detail, ">= 0.9")
    yield Row("  from disk", median(from_disk), "frames/s", rate="head")
    code = f"from {__package__} import learning; learning.first_step({str(folder)!r})"
    done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True)
    elapsed, peak, length = (float(word) for word in done.stdout.split())
    detail = f"{length:,.0f} frames, {SUBJECTS} hard links to one shard; statistics and one step, without imports"
    yield Row("first step over a cache as long as Aff-Wild2", elapsed, "s", detail, "<= 10")
    yield Row("  peak memory of that process", peak / 2**30, "GiB", "features read on demand", "<= 3")


def long_cache(folder: Path) -> list[Path]:
    """As many shards as Aff-Wild2 has subjects, all hard links to one file."""
    rng, shard = np.random.default_rng(0), folder / "one.h5"
    paths = [folder / f"s{number}.h5" for number in range(SUBJECTS)]
    if paths[-1].exists():
        return paths
    with ShardWriter(shard, FEATURES, "f", {}, "one", {"split": "train", "video": "one", "encoder": "e"}) as writer:
        writer.append(
            feature=rng.random((ROWS, WIDTH), np.float32).astype(np.float16), index=np.arange(ROWS),
            pts=np.arange(ROWS) / 30, valid=np.ones(ROWS, bool),
            target=rng.uniform(-1, 1, (ROWS, 2)).astype(np.float32),
        )  # fmt: skip
    for path in paths:
        path.unlink(missing_ok=True)
        path.hardlink_to(shard)
    return paths


def head_task(config: Config, tracks: FeatureTracks, *, calibrate: bool = False) -> FromCache:
    head = TemporalHead(WIDTH, HeadSettings(**config.head.model_dump()))
    return FromCache(head, tracks, tracks, config, Compute(CPU), calibrate=calibrate)


def first_step(folder: str) -> None:
    """Prints the seconds until the end of the first step, the peak memory in bytes, and the number of frames."""
    paths = long_cache(Path(folder))
    start = time.perf_counter()
    task = head_task(
        full_size(), FeatureTracks([read_track(path) for path in paths], CPU, memory=0), calibrate=True
    )  # fmt: skip
    batches = task.batches(1)
    task.loss(next(iter(batches)))[0].backward()
    elapsed = time.perf_counter() - start
    print(elapsed, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, len(task.training))


def epoch(folder: Path, frames: int) -> Iterator[Row]:
    """Compares an epoch end to end, with STN and backbone, with an epoch of the head from cache over as many frames."""
    config = full_size("train.ema=0", "runtime.precision=fp32")
    length = 2 * config.clip.length
    rng = np.random.default_rng(0)
    side = config.frames.size
    jpegs = encode(rng.integers(0, 255, (8, side, side, 3), np.uint8), config.frames.jpeg_quality)
    target = rng.uniform(-1, 1, (length, 2)).astype(np.float32)
    index, valid = np.arange(length), np.ones(length, np.bool_)
    track = FrameTrack(
        "one", lambda rows: decode([jpegs[row % 8] for row in rows.tolist()]), WHOLE, index, index / 25, target, valid
    )
    stn = SpatialTransformer(config.stn.kind, config.stn.view, config.stn.crop, config.stn.margin)
    net = AffectNet(stn, scratch(), TemporalHead(WIDTH, HeadSettings(**config.head.model_dump())))
    end_to_end = EndToEnd(net, [track], [track], config, Compute(CPU), calibrate=False)

    shards = [folder / f"e{number}.h5" for number in range(32)]
    for number, shard in enumerate(shards):
        with ShardWriter(shard, FEATURES, "f", {}, "e", {"split": "train", "video": "e", "encoder": "e"}) as writer:
            feature = np.random.default_rng(number).random((length, WIDTH), np.float32).astype(np.float16)
            writer.append(feature=feature, index=index, pts=index / 25, valid=valid, target=target)
    from_cache = head_task(config, FeatureTracks([read_track(shard) for shard in shards], CPU))

    def rate(trained: FromCache | EndToEnd) -> float:
        task = SimpleTask(
            trained.model, trained.batches, trained.loss, lambda: {"score": 0.0}, trained.groups, trained.steps
        )
        train = trained.config.train
        settings = FitSettings("score", 1, 0.0, train.warmup, train.weight_decay, train.gradient_clip, "cosine")
        result = fit(task, settings, trained.compute, QUIET, "epoch")
        return sum(map(len, trained.train_tracks)) / result.history[0]["train_seconds"]

    slow = rate(end_to_end)
    fast = median([rate(from_cache) for _ in range(3)])
    detail = f"{fast:,.0f} and {slow:.2f} frames/s, over {length * len(shards)} and {length} frames, fp32"
    yield Row("an epoch from cache / end to end, the same frames", fast / slow, "times", detail, ">= 100")
    yield Row("  end to end", slow, "frames/s", rate="end to end")
