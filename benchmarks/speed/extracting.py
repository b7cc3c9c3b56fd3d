"""extract-frames against decord alone: on all cores, and on one."""

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from affect.configs.schema import load
from affect.pipeline.ingest.catalog import find_catalog
from affect.pipeline.records import Work
from affect.pipeline.stages.audit import audit
from affect.pipeline.stages.extract_frames import extract_frames
from affect.pipeline.storage.shard import FRAMES, Shard

from .measure import CORES, HUSH, Row, draw_data, median, seconds

LONGER = 4
"""Times as long as the other parts' videos, so that the start does not say more than the work."""
TURNS = 2


def extract(folder: Path, frames: int) -> Iterator[Row]:
    """extract-frames of several 720p videos, JPEGs and shards included, against decord alone on as many processes; one
    video as long as all of them; and all cores against one. What an extraction of videos of 8 frames takes is its
    start, and is told apart."""
    frames *= LONGER
    count = 2 * CORES
    data = draw_data(folder / "data", count, frames, width=1280, height=720)
    tiny = draw_data(folder / "tiny", count, 8, width=1280, height=720)
    work, small = Work(folder / "work"), Work(folder / "small")
    config = load("affwild2")
    for source, out in ((data, work), (tiny, small)):
        audit(config, source, out, HUSH)
    videos = [str(video.path) for video in find_catalog(data).videos]

    def ours(source: Path, out: Work, workers: int) -> float:
        for shard in (out.root / "frames").glob("*.h5"):
            shard.unlink()
        chosen = load("affwild2", [f"runtime.workers={workers}"])
        return seconds(lambda: extract_frames(chosen, source, out, HUSH))

    def bare(processes: int) -> float:
        size = config.frames.size
        with ProcessPoolExecutor(processes) as pool:
            list(pool.map(decode_alone, videos[:processes], [size] * processes, [8] * processes))  # libraries loaded
            return seconds(lambda: list(pool.map(decode_alone, videos, [size] * count, [frames] * count)))

    limit, whole, begun = [], [], []
    for _ in range(TURNS):
        limit.append(bare(CORES))
        whole.append(ours(data, work, CORES))
        begun.append(ours(tiny, small, CORES))
    total, start = frames * count, median(begun)
    for shard in (work.root / "frames").glob("*.h5"):
        with Shard(shard, FRAMES) as made:
            assert (made.attributes["decoder"], len(made)) == ("decord", frames)
    working = median(whole) - start
    length = f"{count} videos of {frames} frames, {CORES} processes"
    told = f"{total / working:.0f} and {total / median(limit):.0f} frames/s; {length}"
    yield Row("extract-frames of 720p / bare decord, start told apart", median(limit) / working, "", told, ">= 0.8")
    yield Row("  the same, start included", median(limit) / median(whole), "", f"{median(whole):.1f} s")
    yield Row("  start of extract-frames: Dask, workers, decoders", start, "s", f"{count} videos of 8 frames")
    yield Row("  frames/s and core", total / working / CORES, "frames/s", "720p to 448 x 448, JPEG 95", rate="extract")
    long, one = draw_data(folder / "long", 1, total, width=1280, height=720), Work(folder / "one")
    audit(config, long, one, HUSH)
    pieces = ours(long, one, CORES) - start
    told = f"{total / pieces:.0f} frames/s, {total} frames"
    yield Row("  one video as long as all of them, in pieces / all of them", working / pieces, "", told)
    with one_core():
        alone = ours(data, work, 1) - ours(tiny, small, 1)
        limit_alone = bare(1)
    yield Row(
        f"extract-frames, {CORES} workers on {CORES} cores / linear from one on one", alone / working / CORES, "",
        f"one: {total / alone:.0f} frames/s", ">= 0.85",
    )  # fmt: skip
    yield Row("  bare decord, the same", limit_alone / median(limit) / CORES, "", f"one: {total / limit_alone:.0f}")


def decode_alone(video: str, size: int, frames: int) -> int:
    """Decodes the start of a video to nothing."""
    import decord

    reader = decord.VideoReader(video, decord.cpu(0), width=size, height=size, num_threads=1)
    for start in range(0, frames, 64):
        reader.get_batch(list(range(start, min(start + 64, frames)))).asnumpy()
    return frames


@contextmanager
def one_core() -> Iterator[None]:
    """This process and those it starts have one core, where the system can be told so."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
