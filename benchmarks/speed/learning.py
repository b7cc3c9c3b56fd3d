"""The head's training from cache: against tensors in memory, over a cache as long as Aff-Wild2, and against training
end to end."""

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
from affect.models.head import TemporalHead
from affect.models.stn import SpatialTransformer
from affect.pipeline.learning.end_to_end import EndToEnd
from affect.pipeline.learning.frame_tracks import FrameTrack
from affect.pipeline.learning.from_cache import FromCache
from affect.pipeline.learning.loop import fit
from affect.pipeline.learning.tracks import FeatureTracks, read_track
from affect.pipeline.records import WHOLE
from affect.pipeline.storage.jpeg import decode, encode
from affect.pipeline.storage.shard import FEATURES, ShardWriter

from .measure import HUSH, Row, full_size, median

SUBJECTS, ROWS = 594, 4800
"""Of the cache that is as long as Aff-Wild2: 2.85 million frames."""
CPU = torch.device("cpu")


def head(folder: Path, frames: int) -> Iterator[Row]:
    """Batches from shards on disk against the same from tensors in memory; the first step over a long cache."""
    config = full_size()
    paths = long_cache(folder)
    few, count = [read_track(path) for path in paths[:12]], 6

    def rate(memory: int | None) -> float:
        """Frames a second over some steps; the first, for which nothing is read ahead yet, is not timed."""
        road = head_road(config, FeatureTracks(few, CPU, memory=memory))
        optimizer, done, began = torch.optim.AdamW(road.model.parameters(), fused=True), 0, 0.0
        for place, batch in enumerate(islice(road.batches(1), count + 1)):
            if place == 1:
                done, began = 0, time.perf_counter()
            optimizer.zero_grad()
            road.loss(batch)[0].backward()
            optimizer.step()
            done += batch.valid.numel()
        return done / (time.perf_counter() - began)

    held, read = [], []
    for _ in range(3):
        held.append(rate(1 << 40))
        read.append(rate(0))
    told = (
        f"{median(read):,.0f} and {median(held):,.0f} frames/s, batches of {config.train.batch} x {config.clip.length}"
    )
    yield Row("head trained from disk / from memory", median(read) / median(held), "", told, ">= 0.9")
    yield Row("  frames/s", median(read), "frames/s", rate="head")
    code = f"from {__package__} import learning; learning.first_step({str(folder)!r})"
    done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True)
    took, peak, length = (float(word) for word in done.stdout.split())
    told = (
        f"{length:,.0f} frames, {SUBJECTS} shards that are one file on disk; statistics and one step, libraries loaded"
    )
    yield Row("first step over a cache as long as Aff-Wild2", took, "s", told, "<= 10")
    yield Row("  peak memory of that process", peak / 2**30, "GiB", "features read when wanted", "<= 3")


def long_cache(folder: Path) -> list[Path]:
    """As many shards as Aff-Wild2 has subjects, which are links to one."""
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


def head_road(config: Config, tracks: FeatureTracks, *, calibrate: bool = False) -> FromCache:
    made = TemporalHead(WIDTH, **config.head.model_dump())
    return FromCache(made, tracks, tracks, config, CPU, torch.float32, calibrate=calibrate)


def first_step(folder: str) -> None:
    """Prints the seconds to the end of the first step, the peak bytes of this process, and the frames."""
    paths = long_cache(Path(folder))
    began = time.perf_counter()
    road = head_road(
        full_size(), FeatureTracks([read_track(path) for path in paths], CPU, memory=0), calibrate=True
    )  # fmt: skip
    batches = road.batches(1)
    road.loss(next(iter(batches)))[0].backward()
    took = time.perf_counter() - began
    print(took, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, len(road.training))


def epoch(folder: Path, frames: int) -> Iterator[Row]:
    """An epoch end to end, STN and backbone learning, against one of the head from cache over as many frames."""
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
    net = AffectNet(stn, scratch(), TemporalHead(WIDTH, **config.head.model_dump()))
    slow = EndToEnd(net, [track], [track], config, CPU, torch.float32, calibrate=False)

    shards = [folder / f"e{number}.h5" for number in range(32)]
    for number, shard in enumerate(shards):
        with ShardWriter(shard, FEATURES, "f", {}, "e", {"split": "train", "video": "e", "encoder": "e"}) as writer:
            feature = np.random.default_rng(number).random((length, WIDTH), np.float32).astype(np.float16)
            writer.append(feature=feature, index=index, pts=index / 25, valid=valid, target=target)
    fast = head_road(config, FeatureTracks([read_track(shard) for shard in shards], CPU))

    def rate(road: FromCache | EndToEnd) -> float:
        result = fit(
            road.model, road.batches, road.loss, lambda: {"score": 0.0}, groups=road.groups, epochs=1,
            steps=road.steps, score="score", talk=HUSH, title="epoch", device=CPU,
        )  # fmt: skip
        return sum(map(len, road.learned)) / result.history[0]["train_seconds"]

    end_to_end = rate(slow)
    cached = median([rate(fast) for _ in range(3)])
    told = f"{cached:,.0f} and {end_to_end:.2f} frames/s, over {length * len(shards)} and {length} frames, fp32"
    yield Row("an epoch from cache / end to end, the same frames", cached / end_to_end, "times", told, ">= 100")
    yield Row("  end to end", end_to_end, "frames/s", rate="end to end")
