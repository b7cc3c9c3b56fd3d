"""The parts of the benchmark, each a function from a folder and a number of frames to rows of the table."""

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import torch
from affect.configs.schema import Config, load
from affect.models.backbone import Backbone, folded, scratch
from affect.models.head import TemporalHead
from affect.pipeline.ingest.catalog import find_catalog
from affect.pipeline.learning.from_cache import FromCache
from affect.pipeline.learning.runtime import PIECE
from affect.pipeline.learning.tracks import FeatureTracks, read_track
from affect.pipeline.progress import Talk
from affect.pipeline.records import Work
from affect.pipeline.stages.audit import audit
from affect.pipeline.stages.cache_features import THREADS, cache_features
from affect.pipeline.stages.extract_frames import extract_frames
from affect.pipeline.storage.shard import FEATURES, ShardWriter
from torchvision.models import resnet50

from .measure import Row, affect, draw_data, median, own_peak, seconds

HUSH = Talk(quiet=True)
CORES = os.cpu_count() or 1


def full_size(*more: str) -> Config:
    return load("affwild2", ["backbone.weights=scratch", "runtime.device=cpu", "runtime.workers=0", *more])


def cache(folder: Path, frames: int) -> Iterator[Row]:
    """cache-features at full size, from a 720p video and from its frame shard, against the network alone and against
    OpenCV frame by frame through the plain network. All by as many threads."""
    config = full_size("runtime.precision=fp32")
    data, work = draw_data(folder / "data", 1, frames, width=1280, height=720), Work(folder / "work")
    audit(config, data, work, HUSH)
    backbone = folded(scratch("torchvision", 0))
    crop = torch.rand(PIECE, 3, config.stn.crop, config.stn.crop) * 255

    def bare() -> float:
        """Seconds a frame."""
        torch.set_num_threads(THREADS)
        with torch.inference_mode():
            backbone.features(crop)
            return median([seconds(lambda: backbone.features(crop)) / PIECE for _ in range(max(3, frames // 100))])

    def ours(source: str) -> float:
        shard = work.features("v0")
        shard.unlink(missing_ok=True)
        took = seconds(lambda: cache_features(config, data, work, HUSH))
        assert shard.is_file(), source
        return took / frames

    times: dict[str, list[float]] = {"bare": [], "video": [], "shard": []}
    ours("warm-up")
    for _ in range(2):
        times["bare"].append(bare())
        times["video"].append(ours("video"))
    extract_frames(config, data, work, HUSH)
    for _ in range(2):
        times["shard"].append(ours("shard"))
        times["bare"].append(bare())
    limit = median(times["bare"])
    naive = _naive(data / "videos" / "v0.mp4", folder / "naive", config.stn.crop, min(frames, 60))
    told = f"bare {1 / limit:.1f} frames/s, fp32, {THREADS} threads"
    yield Row("cache-features from 720p video / bare network", limit / median(times["video"]), "", told)
    yield Row("cache-features from frame shards / bare network", limit / median(times["shard"]))
    yield Row(
        "cache-features from video / naive way", naive / median(times["video"]), "times", f"naive {1 / naive:.1f}"
    )


def _naive(video: Path, out: Path, size: int, frames: int) -> float:
    """Seconds a frame of OpenCV, torchvision's ResNet-50 in fp32 and a file for each frame."""
    out.mkdir()
    network = resnet50(weights=None)
    network.fc = torch.nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    network.eval()
    torch.set_num_threads(THREADS)
    reader = cv2.VideoCapture(str(video))
    began = time.perf_counter()
    for number in range(frames):
        picture = cv2.resize(cv2.cvtColor(reader.read()[1], cv2.COLOR_BGR2RGB), (size, size))
        with torch.no_grad():
            feature = network(torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255)
        np.save(out / f"{number:05d}.npy", feature.numpy())
    return (time.perf_counter() - began) / frames


def extract(folder: Path, frames: int) -> Iterator[Row]:
    """extract-frames of several 720p videos on all cores, JPEGs and shards included, against decord alone on as many
    processes; and all workers against one."""
    data, work = draw_data(folder / "data", 2 * CORES, frames, width=1280, height=720), Work(folder / "work")
    config = load("affwild2", [f"runtime.workers={CORES}"])
    audit(config, data, work, HUSH)
    videos = [str(video.path) for video in find_catalog(data).videos]

    def ours(workers: int) -> float:
        for shard in (work.root / "frames").glob("*.h5"):
            shard.unlink()
        chosen = load("affwild2", [f"runtime.workers={workers}"])
        return seconds(lambda: extract_frames(chosen, data, work, HUSH))

    size, total = config.frames.size, frames * len(videos)
    all_cores, one, limit = [], [], []
    for _ in range(2):
        with ProcessPoolExecutor(CORES) as pool:
            list(pool.map(_decord, videos[:CORES], [size] * CORES))  # processes started, libraries loaded
            limit.append(seconds(lambda: list(pool.map(_decord, videos, [size] * len(videos)))))
        all_cores.append(ours(CORES))
        one.append(ours(1))
    told = f"{total / median(all_cores):.0f} frames/s, decord alone {total / median(limit):.0f}"
    yield Row("extract-frames of 720p / bare decord on all cores", median(limit) / median(all_cores), "", told)
    yield Row(f"extract-frames by {CORES} workers / linear from one", median(one) / median(all_cores) / CORES)


def _decord(video: str, size: int) -> int:
    """Decodes a video to nothing."""
    import decord

    reader = decord.VideoReader(video, decord.cpu(0), width=size, height=size, num_threads=1)
    for start in range(0, len(reader), 64):
        reader.get_batch(list(range(start, min(start + 64, len(reader))))).asnumpy()
    return len(reader)


def head(folder: Path, frames: int) -> Iterator[Row]:
    """The head's training: batches from shards on disk against the same from tensors in memory; the first step over a
    cache as long as Aff-Wild2, whose shards are links to one."""
    config, rng = full_size("train.batch=32"), np.random.default_rng(0)
    shard = folder / "one.h5"
    rows = 4800
    with ShardWriter(shard, FEATURES, "f", {}, "one", {"split": "train", "video": "one", "encoder": "e"}) as writer:
        writer.append(
            feature=rng.random((rows, 2048), np.float32).astype(np.float16), index=np.arange(rows),
            pts=np.arange(rows) / 30, valid=np.ones(rows, bool),
            target=rng.uniform(-1, 1, (rows, 2)).astype(np.float32),
        )  # fmt: skip
    paths = [folder / f"s{number}.h5" for number in range(594)]
    for path in paths:
        path.hardlink_to(shard)

    def way(tracks: FeatureTracks) -> FromCache:
        made = TemporalHead(2048, **config.head.model_dump())
        return FromCache(made, tracks, tracks, config, torch.device("cpu"), torch.float32, calibrate=False)

    few = [read_track(path) for path in paths[:12]]

    def rate(memory: int | None) -> float:
        """Frames a second over an epoch."""
        road = way(FeatureTracks(few, torch.device("cpu"), memory=memory))
        optimizer, done, began = torch.optim.AdamW(road.model.parameters(), fused=True), 0, time.perf_counter()
        for batch in road.batches(1):
            optimizer.zero_grad()
            road.loss(batch)[0].backward()
            optimizer.step()
            done += batch.valid.numel()
        return done / (time.perf_counter() - began)

    rate(None)
    held, read = [], []
    for _ in range(3):
        held.append(rate(1 << 40))
        read.append(rate(0))
    yield Row("head trained from disk / from memory", median(read) / median(held), "", f"{median(read):,.0f} frames/s")
    before, began = own_peak(), time.perf_counter()
    road = way(FeatureTracks([read_track(path) for path in paths], torch.device("cpu"), memory=0))
    road.loss(next(iter(road.batches(1))))[0].backward()
    told = f"{len(road.training):,} frames, {len(paths)} shards that are one file on disk"
    yield Row("first step over a cache as long as Aff-Wild2", time.perf_counter() - began, "s", told)
    yield Row("peak memory of that", max(own_peak(), before) / 2**30, "GiB")


def memory(folder: Path, frames: int) -> Iterator[Row]:
    """Peak memory of predict and cache-features on a video ten times as long."""
    peaks: dict[str, list[int]] = {"predict": [], "cache-features": []}
    model = _model(folder / "run", "demo")
    for times in (1, 10):
        data = draw_data(folder / f"data{times}", 1, times * max(frames // 4, 60), width=640, height=360)
        work, options = folder / f"work{times}", ("--quiet", "--config", "demo", "--set", "runtime.workers=0")
        video = data / "videos" / "v0.mp4"
        peaks["predict"].append(affect("predict", video, "--model", model, "--out", folder / f"o{times}", "--quiet")[1])
        affect("audit", "--data", data, "--work", work, *options)
        choices = ("--set", "backbone.weights=scratch", "--set", "adapt.epochs=0")
        peaks["cache-features"].append(affect("cache-features", "--data", data, "--work", work, *options, *choices)[1])
    for name, (short, long) in peaks.items():
        yield Row(f"peak memory of {name}, video ten times as long", long / short, "times", f"{long / 2**20:.0f} MiB")


def predict(folder: Path, frames: int) -> Iterator[Row]:
    """predict of 640 x 360 video with the full ResNet-50 at 224, all cores."""
    data = draw_data(folder / "data", 1, frames, width=640, height=360)
    took, peak = affect(
        "predict", data / "videos" / "v0.mp4", "--model", _model(folder / "run", "affwild2"), "--out", folder / "out",
        "--quiet", "--no-plot",
    )  # fmt: skip
    yield Row(
        "predict of 640 x 360, network at 224, start included", frames / took, "frames/s", f"{peak / 2**20:.0f} MiB"
    )


def start(folder: Path, frames: int) -> Iterator[Row]:
    """How long the commands take to begin, and an audit of as many subjects as Aff-Wild2 has."""
    yield Row("affect --help", min(affect("--help")[0] for _ in range(5)), "s", "a second process around it included")
    data = draw_data(folder / "data", 1, 16, width=64, height=64)
    video = data / "videos" / "v0.mp4"
    rows = "valence,arousal\n" + "0.1403,-0.072\n" * 5050
    for number in range(594):
        (data / "videos" / f"n{number}.mp4").write_bytes(video.read_bytes())
        (data / "annotations" / "VA_Set" / "Train_Set" / f"n{number}.txt").write_text(rows, encoding="utf-8")
    config, work = load("demo"), Work(folder / "work")
    took = seconds(lambda: audit(config, data, work, HUSH))
    yield Row("audit of 594 subjects with 3 million rows, cold", took, "s", "videos of 16 frames, so all are refused")


def _model(folder: Path, config: str) -> Path:
    """The folder of a run with random weights, at the sizes of this config."""
    from affect.configs.schema import dump
    from affect.models.affect_net import AffectNet
    from affect.models.stn import SpatialTransformer
    from affect.pipeline.learning.model_file import NAME, save_model

    chosen = load(config)
    stn = SpatialTransformer(**chosen.stn.model_dump(include={"kind", "view", "crop", "margin"}))
    net = AffectNet(stn, Backbone(), TemporalHead(2048, **chosen.head.model_dump())).eval()
    folder.mkdir(parents=True, exist_ok=True)
    save_model(folder / NAME, net, fingerprint="f", encoder="e", config=chosen.model_dump(mode="json"))
    (folder / "config.yaml").write_text(dump(chosen), encoding="utf-8")
    return folder


PARTS: dict[str, Callable[[Path, int], Iterator[Row]]] = {
    "cache": cache, "extract": extract, "head": head, "memory": memory, "predict": predict, "start": start,
}  # fmt: skip
