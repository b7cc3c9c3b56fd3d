"""Measures time and memory of the stages for a very large data set.

    python -m affect.benchmarks.catalog --videos 100000

Makes a data folder of N videos with 5,000 frames each, in which all files of a kind are hard links to tiny stand-ins:
a video of 16 x 16, annotations, and shards with few bytes per frame. So the figures are the cost of files and rows, not
of pixels. Each step runs in its own process, without workers. Prints a table, and writes it as JSON (--out).
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import av
import numpy as np
from affect.configs.schema import Config, load
from affect.pipeline.features.crops import frames_fingerprint
from affect.pipeline.features.encoder import plan_encoder
from affect.pipeline.ingest.catalog import find_catalog
from affect.pipeline.records import Work
from affect.pipeline.stages import cache_features, extract_frames
from affect.pipeline.storage.shard import FEATURES, FRAMES
from affect.pipeline.storage.shard_writer import ShardWriter

ROWS = 5000
"""Frames of a video: 100,000 videos have 500 million."""
VALIDATION = 10
"""One video of so many is in the validation split."""
SAMPLE = 1000
"""Videos of the first audit. It reads the packets of each video, so its time is proportional to their number."""
MAX_LINKS = 50_000
"""Links to one file. ext4 allows 65,000."""
SETTINGS = ("backbone.weights=scratch", "adapt.epochs=0", "runtime.workers=0", "runtime.device=cpu")
MTIME = 1_700_000_000_000_000_000
"""Of all videos, in ns."""


@dataclass(frozen=True)
class Cost:
    """What one step took. cpu: seconds of user and system time. peak: bytes of its largest process."""

    step: str
    videos: int
    seconds: float
    cpu: float
    peak: int


def main() -> None:
    parser = argparse.ArgumentParser(prog="catalog", description=__doc__)
    parser.add_argument("--videos", type=int, default=1000, metavar="N")
    parser.add_argument("--rows", type=int, default=ROWS, metavar="N", help="frames of a video")
    parser.add_argument("--out", type=Path, help="write the table as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        costs = []
        print(f"{options.videos:,} videos, {options.videos * options.rows:,} frames")
        print(f"{'step':<28}{'s':>9}{'CPU s':>9}{'ms/video':>10}{'peak MiB':>10}")
        for cost in measure(Path(temporary), options.videos, options.rows):
            each = 1000 * cost.cpu / options.videos
            print(
                f"{cost.step:<28}{cost.seconds:>9.1f}{cost.cpu:>9.1f}{each:>10.2f}{cost.peak / 2**20:>10.0f}",
                flush=True,
            )
            costs.append(asdict(cost))
    if options.out:
        table = {"videos": options.videos, "rows": options.rows, "steps": costs}
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


def measure(folder: Path, videos: int, rows: int = ROWS) -> Iterator[Cost]:
    """Makes the data set in `folder` and yields the cost of each step. Raises CalledProcessError."""
    data, work = folder / "data", Work(folder / "work")
    make_data(data, videos, rows)
    options = ["--work", work.root, *(word for setting in SETTINGS for word in ("--set", setting))]
    read = ["--data", data, *options]
    sample, few = folder / "sample", min(videos, SAMPLE)
    make_data(sample, few, rows)
    yield affect(f"first audit of {few:,}", few, ["audit", "--data", sample, *options, "--config", "affwild2"])
    # The others have the same digests as the sample, so only those are computed.
    yield affect("audit, nothing new", videos, ["audit", *read])
    yield own("plan extract-frames", videos, "plan_frames", data, work)
    link_frames(data, work, rows)
    yield affect("extract-frames again", videos, ["extract-frames", *read])
    yield own("plan cache-features", videos, "plan_features", data, work)
    link_features(data, work, rows)
    yield affect("cache-features again", videos, ["cache-features", *read])
    yield affect("verify", videos, ["verify", *options])


def make_data(data: Path, videos: int, rows: int) -> None:
    """A data folder of hard links to one video and one annotation."""
    folder = data / "annotations" / "VA_Set"
    for new in (data / "videos", folder / "Train_Set", folder / "Validation_Set"):
        new.mkdir(parents=True)
    video, labels = data.parent / "video.mp4", data.parent / "labels.txt"
    if not video.exists():
        draw(video, rows)
    values = np.random.default_rng(0).uniform(-1, 1, (rows, 2))
    labels.write_text("valence,arousal\n" + "".join(f"{v:.4f},{a:.4f}\n" for v, a in values), encoding="utf-8")
    names = [f"v{number:06d}" for number in range(videos)]
    link(video, [data / "videos" / f"{name}.mp4" for name in names])
    link(labels, [folder / _split(number) / f"{name}.txt" for number, name in enumerate(names)])


def link_frames(data: Path, work: Work, rows: int) -> None:
    """An up-to-date frame shard for each video."""
    config = _config(work)
    catalog = find_catalog(data)
    shard = data.parent / "frames.h5"
    facts = {"width": 16, "height": 16, "codec": "h264", "lost": [], "decoder": "decord"}
    key, settings = frames_fingerprint(config, catalog.videos[0].path), config.frames.model_dump(mode="json")
    with ShardWriter(shard, FRAMES, key, settings, "video.mp4", facts) as writer:
        writer.append(
            jpeg=np.zeros(8 * rows, np.uint8), offset=8 * np.arange(rows + 1),
            index=np.arange(rows), pts=np.arange(rows) / 25,
        )  # fmt: skip
    link(shard, [work.frames(video.name) for video in catalog.videos])


def link_features(data: Path, work: Work, rows: int) -> None:
    """An up-to-date feature shard for each subject."""
    config = _config(work)
    catalog = find_catalog(data)
    plan = plan_encoder(config, work)
    for split in ("train", "validation"):
        subjects = [subject for subject in catalog.subjects if subject.split == split]
        shard = data.parent / f"features-{split}.h5"
        if not subjects:
            continue
        one = subjects[0]
        key = cache_features.features_fingerprint(
            config, plan, one, catalog.video(one.video).path, work.frames(one.video)
        )
        facts = {"split": split, "video": "video", "encoder": plan.digest, "precision": "fp32", "device": "cpu"}
        with ShardWriter(shard, FEATURES, key, {}, one.name, facts) as writer:
            writer.append(
                feature=np.zeros((rows, 8), np.float16), index=np.arange(rows), pts=np.arange(rows) / 25,
                valid=np.ones(rows, bool), target=np.zeros((rows, 2), np.float32),
            )  # fmt: skip
        link(shard, [work.features(subject.name) for subject in subjects])


def draw(path: Path, frames: int) -> None:
    """A video of 16 x 16 grey frames."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=25, options={"preset": "ultrafast", "g": "250"})
        stream.width = stream.height = 16
        stream.pix_fmt = "yuv420p"
        grey = np.full((16, 16, 3), 128, np.uint8)
        for _ in range(frames):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        output.mux(stream.encode())
    os.utime(path, ns=(MTIME, MTIME))


def link(source: Path, paths: Sequence[Path]) -> None:
    """Makes each path a hard link to a copy of `source`. All copies have the same mtime."""
    for start in range(0, len(paths), MAX_LINKS):
        first, *others = paths[start : start + MAX_LINKS]
        first.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, first)
        for path in others:
            os.link(first, path)


def affect(step: str, videos: int, words: Sequence[str | Path]) -> Cost:
    """The cost of a command."""
    return _run(step, videos, ["-m", "affect", *words, "--quiet"])


def own(step: str, videos: int, function: str, data: Path, work: Work) -> Cost:
    """The cost of a function of this module."""
    code = f"from {__spec__.name} import {function}; {function}({str(data)!r}, {str(work.root)!r})"
    return _run(step, videos, ["-c", code])


def plan_frames(data: str, root: str) -> None:
    """Plans extract-frames, as the stage does before it starts workers."""
    work = Work(Path(root))
    pending, _ = extract_frames.plan(_config(work), Path(data), work)
    assert pending


def plan_features(data: str, root: str) -> None:
    """Plans cache-features, as the stage does before it starts workers."""
    work = Work(Path(root))
    config = _config(work)
    pending, _ = cache_features.plan(config, plan_encoder(config, work), Path(data), work)
    assert pending


def _config(work: Work) -> Config:
    return load(str(work.config), SETTINGS)


def _split(number: int) -> str:
    return "Train_Set" if number % VALIDATION else "Validation_Set"


def _run(step: str, videos: int, arguments: Sequence[str | Path]) -> Cost:
    # Through a small process: the peak of a process includes that of the one that started it.
    code = (
        "import json, resource, subprocess, sys, time\n"
        "start = time.perf_counter()\n"
        "done = subprocess.run([sys.executable, *sys.argv[1:]], stdout=subprocess.DEVNULL)\n"
        "seconds, used = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(json.dumps([seconds, used.ru_utime + used.ru_stime, 1024 * used.ru_maxrss]))\n"
        "sys.exit(done.returncode)\n"
    )
    words = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
    return Cost(step, videos, *json.loads(done.stdout))


if __name__ == "__main__":
    main()
