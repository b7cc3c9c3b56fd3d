"""Profile: the CPU time per frame of each step of extract-frames and cache-features."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import decord
import numpy as np
import torch
from affect.models.backbone import folded, scratch
from affect.models.pyramid import Pyramid
from affect.models.stn import SpatialTransformer
from affect.pipeline.features.encode import THREADS
from affect.pipeline.learning.runtime import CPU_BATCH, keep_freed_memory
from affect.pipeline.stages.extract_frames import FRAMES_PER_WRITE
from affect.pipeline.storage.jpeg import decode, encode
from affect.pipeline.storage.shard import FEATURES, FRAMES
from affect.pipeline.storage.shard_writer import ShardWriter

from .measure import Row, draw_data, full_size

TURNS = 5


def profile(folder: Path, frames: int) -> Iterator[Row]:
    """Milliseconds of one core per frame of 720p video, the minimum of some turns."""
    config = full_size("runtime.precision=fp32")
    side, count = config.frames.size, 8 * CPU_BATCH
    video = draw_data(folder / "data", 1, 200, width=1280, height=720) / "videos" / "v0.mp4"
    reader = decord.VideoReader(str(video), decord.cpu(0), width=side, height=side, num_threads=1)
    batches: list[np.ndarray] = []

    def read() -> None:
        reader.seek(0)
        batches[:] = [reader.get_batch(list(range(at, at + CPU_BATCH))).asnumpy() for at in range(0, count, CPU_BATCH)]

    detail = f"decord, 1280 x 720 to {side} x {side}"
    extracting = [("decode", _core_time(read, count), detail)]
    jpegs = encode(batches[0], config.frames.jpeg_quality)
    size = sum(map(len, jpegs)) / len(jpegs)
    extracting.append(("encode", _core_time(lambda: encode(batches[0], config.frames.jpeg_quality), CPU_BATCH), "JPEG"))

    def write() -> None:
        with ShardWriter(folder / "frames.h5", FRAMES, "f", {}, "v") as writer:
            writer.append(offset=np.zeros(1, np.int64))
            for at in range(0, count, FRAMES_PER_WRITE):
                index = np.arange(at, min(at + FRAMES_PER_WRITE, count))
                some = [jpegs[number % CPU_BATCH] for number in index.tolist()]
                writer.append(jpeg=np.concatenate(some), offset=index, index=index, pts=index / 25)

    extracting.append(("write", _core_time(write, count), f"{size / 1024:.0f} KiB per frame, with checksums and seal"))

    torch.set_num_threads(THREADS)
    keep_freed_memory(torch.device("cpu"))
    stn = SpatialTransformer(config.stn.kind, config.stn.view, config.stn.crop, config.stn.margin).eval()
    network, pixels = folded(scratch("torchvision", 0)), torch.from_numpy(batches[0]).permute(0, 3, 1, 2)
    with torch.inference_mode():
        pyramid = Pyramid(pixels)
        theta = stn.locate(pyramid)[0]
        crop = stn.sample(pyramid, theta)
        caching = [
            ("decode JPEG", _core_time(lambda: decode(jpegs), CPU_BATCH), ""),
            ("find the face", _core_time(lambda: stn.locate(Pyramid(pixels)), CPU_BATCH), "STN"),
            (
                "sample the crop",
                _core_time(lambda: stn.sample(pyramid, theta), CPU_BATCH),
                f"{crop.shape[-1]} pixels wide",
            ),
            ("network", _core_time(lambda: network.features(crop), CPU_BATCH), f"ResNet-50, fp32, {THREADS} threads"),
        ]
        feature = network.features(crop).half().numpy()

    def write_features() -> None:
        with ShardWriter(folder / "features.h5", FEATURES, "f", {}, "v") as writer:
            for turn in range(count // CPU_BATCH):
                writer.append(feature=feature, theta=theta.numpy(), index=np.arange(CPU_BATCH) + turn * CPU_BATCH)

    caching.append(("write", _core_time(write_features, count), "float16"))
    for stage, steps in (("extract-frames", extracting), ("cache-features", caching)):
        total = sum(cost for _, cost, _ in steps)
        for step, cost, detail in steps:
            name = "jpeg" if step == "decode JPEG" else ""
            yield Row(f"{stage}: {step}", cost, "ms", f"{cost / total:.0%} {detail}".rstrip(), rate=name)


def _core_time(work: Callable[[], object], frames: int) -> float:
    """Milliseconds of CPU time per frame."""
    fastest = float("inf")
    for _ in range(TURNS):
        start = time.process_time()
        work()
        fastest = min(fastest, time.process_time() - start)
    return fastest / frames * 1e3
