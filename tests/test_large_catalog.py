"""Very many videos: the work of a stage per video does not grow with their number, nor its memory with their frames.

benchmarks/catalog.py makes the data; its figures are in docs/performance.md.
"""

import sys
import tracemalloc
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from affect.benchmarks import catalog
from affect.configs.schema import Config, dump, load
from affect.pipeline.progress import Reporter
from affect.pipeline.records import Work
from affect.pipeline.stages.audit import audit
from affect.pipeline.stages.cache_features import cache_features
from affect.pipeline.stages.extract_frames import extract_frames
from affect.pipeline.stages.verify import verify

pytestmark = pytest.mark.slow
QUIET = Reporter(quiet=True)


def prepared(folder: Path, videos: int, rows: int) -> tuple[Config, Path, Work]:
    """A data folder and a work folder in which everything is up to date."""
    config, data, work = load("affwild2", list(catalog.SETTINGS)), folder / "data", Work(folder / "work")
    catalog.make_data(data, videos, rows)
    audit(config, data, work, QUIET)
    work.config.write_text(dump(load("affwild2")), encoding="utf-8")
    catalog.link_frames(data, work, rows)
    catalog.link_features(data, work, rows)
    return config, data, work


def stages(config: Config, data: Path, work: Work) -> dict[str, Callable[[], Any]]:
    return {
        "audit": lambda: audit(config, data, work, QUIET),
        "extract-frames": lambda: extract_frames(config, data, work, QUIET),
        "cache-features": lambda: cache_features(config, data, work, QUIET),
        "verify": lambda: verify(config, work, QUIET),
    }


def lines_run(work: Callable[[], object]) -> int:
    """The number of lines of affect that run, each time they run."""
    counted: Counter[str] = Counter()
    root = str(Path(catalog.__file__).parents[1])

    def trace(frame: FrameType, event: str, _: object) -> Any:
        if not frame.f_code.co_filename.startswith(root):
            return None
        counted[event] += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return counted["line"]


def test_the_work_of_a_stage_is_proportional_to_the_number_of_videos(tmp_path: Path) -> None:
    counts: list[dict[str, int]] = []
    for videos in (30, 60, 120):
        folder = tmp_path / str(videos)
        config, data, work = prepared(folder, videos, 4)
        report = extract_frames(config, data, work, QUIET)
        assert len(report.kept) == videos
        assert len(cache_features(config, data, work, QUIET).kept) == videos
        counts.append({name: lines_run(stage) for name, stage in stages(config, data, work).items()})
    few, some, many = counts
    for name in few:
        assert many[name] - some[name] == pytest.approx(2 * (some[name] - few[name]), rel=0.03), name


def test_a_thousand_missing_videos_do_not_compare_all_names_with_each_other(tmp_path: Path) -> None:
    counts = []
    for subjects in (50, 100, 200):
        data, config = tmp_path / str(subjects), load("affwild2", list(catalog.SETTINGS))
        catalog.make_data(data, subjects, 4)
        for path in (data / "videos").iterdir():
            if path.stem != "v000001":
                path.rename(path.with_stem(f"{path.stem}x"))
        counts.append(lines_run(partial(audit, config, data, Work(data / "work"), QUIET)))
    assert counts[2] - counts[1] == pytest.approx(2 * (counts[1] - counts[0]), rel=0.03)


def test_the_memory_of_planning_does_not_depend_on_the_length_of_the_videos(tmp_path: Path) -> None:
    peaks: dict[str, list[int]] = {}
    for rows in (10, 20_000):
        config, data, work = prepared(tmp_path / str(rows), 12, rows)
        for name, stage in stages(config, data, work).items():
            stage()  # imports and caches
            tracemalloc.start()
            stage()
            peaks.setdefault(name, []).append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    del peaks["verify"]  # it reads the frame numbers of one shard at a time
    for name, (short, long) in peaks.items():
        assert long < short + 100_000, f"{name}: {short} and {long} bytes"


def test_the_benchmark_measures_each_step(tmp_path: Path) -> None:
    costs = list(catalog.measure(tmp_path, 20, 10))
    assert [cost.step for cost in costs] == [
        "first audit of 20", "audit, nothing new", "plan extract-frames", "extract-frames again",
        "plan cache-features", "cache-features again", "verify",
    ]  # fmt: skip
    assert all(cost.cpu > 0 and cost.peak > 1 << 20 for cost in costs)
