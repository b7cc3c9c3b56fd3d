"""extract-frames, compared with decord alone on the same cores, and all cores compared with one."""

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

from .measure import CORES, QUIET, Row, draw_data, median, seconds

LENGTH_FACTOR = 4
"""The videos are longer than those of the other parts, so that the start has a small share of the time."""
TURNS = 2


def extract(folder: Path, frames: int) -> Iterator[Row]:
    """Compares extract-frames of several 720p videos, including JPEGs and shards, with decord alone in as many
    processes; with one video as long as all of them; and on all cores with one core. The time for videos of 8 frames
    is the start, and is reported separately."""
    frames *= LENGTH_FACTOR
    count = 2 * CORES
    data = draw_data(folder / "data", count, frames, width=1280, height=720)
    tiny = draw_data(folder / "tiny", count, 8, width=1280, height=720)
    work, small = Work(folder / "work"), Work(folder / "small")
    config = load("affwild2")
    for source, out in ((data, work), (tiny, small)):
        audit(config, source, out, QUIET)
    videos = [str(video.path) for video in find_catalog(data).videos]

    def time_stage(source: Path, out: Work, workers: int) -> float:
        for shard in (out.root / "frames").glob("*.h5"):
            shard.unlink()
        chosen = load("affwild2", [f"runtime.workers={workers}"])
        return seconds(lambda: extract_frames(chosen, source, out, QUIET))

    def time_decord(processes: int) -> float:
        size = config.frames.size
        with ProcessPoolExecutor(processes) as pool:
            list(pool.map(decode_alone, videos[:processes], [size] * processes, [8] * processes))  # loads the libraries
            return seconds(lambda: list(pool.map(decode_alone, videos, [size] * count, [frames] * count)))

    limit, whole, starts = [], [], []
    for _ in range(TURNS):
        limit.append(time_decord(CORES))
        whole.append(time_stage(data, work, CORES))
        starts.append(time_stage(tiny, small, CORES))
    total, start = frames * count, median(starts)
    for shard in (work.root / "frames").glob("*.h5"):
        with Shard(shard, FRAMES) as written:
            assert (written.attributes["decoder"], len(written)) == ("decord", frames)
    working = median(whole) - start
    length = f"{count} videos of {frames} frames, {CORES} processes"
    detail = f"{total / working:.0f} and {total / median(limit):.0f} frames/s; {length}"
    yield Row("extract-frames of 720p / decord alone, without start", median(limit) / working, "", detail, ">= 0.8")
    yield Row("  the same, with start", median(limit) / median(whole), "", f"{median(whole):.1f} s")
    yield Row("  start of extract-frames: Dask, workers, decoders", start, "s", f"{count} videos of 8 frames")
    yield Row("  per core", total / working / CORES, "frames/s", "720p to 448 x 448, JPEG 95", rate="extract")
    long, one = draw_data(folder / "long", 1, total, width=1280, height=720), Work(folder / "one")
    audit(config, long, one, QUIET)
    split = time_stage(long, one, CORES) - start
    detail = f"{total / split:.0f} frames/s, {total} frames"
    yield Row("  one video as long as all of them, in segments / all of them", working / split, "", detail)
    with one_core():
        alone = time_stage(data, work, 1) - time_stage(tiny, small, 1)
        limit_alone = time_decord(1)
    yield Row(
        f"extract-frames, {CORES} workers on {CORES} cores / linear from one core", alone / working / CORES, "",
        f"one worker: {total / alone:.0f} frames/s", ">= 0.85",
    )  # fmt: skip
    yield Row("  the same for decord alone", limit_alone / median(limit) / CORES, "", f"one: {total / limit_alone:.0f}")


def decode_alone(video: str, size: int, frames: int) -> int:
    """Decodes the first frames of a video and drops them."""
    import decord

    reader = decord.VideoReader(video, decord.cpu(0), width=size, height=size, num_threads=1)
    for start in range(0, frames, 64):
        reader.get_batch(list(range(start, min(start + 64, frames)))).asnumpy()
    return frames


@contextmanager
def one_core() -> Iterator[None]:
    """Restricts this process and its children to one core, if the system supports it."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
