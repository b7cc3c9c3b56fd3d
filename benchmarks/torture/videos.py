"""Damaged videos through extract-frames and predict. Nothing may hang, stop the run, or get a wrong frame number."""

import csv
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from affect.configs.schema import Config, load
from affect.pipeline.ingest.walk import VIDEO_SUFFIXES
from affect.pipeline.progress import Reporter
from affect.pipeline.records import Work
from affect.pipeline.stages.extract_frames import extract_frames
from affect.pipeline.stages.predict import predict
from affect.pipeline.storage.shard import FrameShard

from .model import SETTINGS, tiny_model
from .mutations import MUTATIONS
from .readers import Reader, ReadResult, thumbnail
from .sources import FRAMES, gather

MIN_SHIFTED = 3
"""Minimum length of a run of frames with the same offset that counts as shifted. A decoder that conceals lost frames by
repeating one gives frames with a growing offset instead."""
MAX_DIFFERENCE = 8
"""Maximum mean difference of two pictures, out of 255, that count as equal."""
UNLIKE_PYAV = "frames that differ from PyAV's at the same time"
UNLIKE_BOTH = "of these, also different from the intact file"
"""If an AVI lost frames, PyAV continues to count and gives later frames wrong times."""


@dataclass(frozen=True)
class Case:
    """A damaged video and its intact original."""

    name: str
    damaged: Path
    intact: Path


def make_cases(folder: Path, count: int, seed: int, *, demo: Path | None) -> list[Case]:
    """Writes damaged videos into folder/data, each with an annotation that has a row per frame of the intact video."""
    rng = np.random.default_rng(seed)
    sources = gather(folder / "intact", demo)
    labels = folder / "data" / "VA_Set" / "Train_Set"
    videos = folder / "data" / "videos"
    for path in (labels, videos):
        path.mkdir(parents=True, exist_ok=True)
    cases = []
    for number in range(count):
        source, mutation = sources[number % len(sources)], MUTATIONS[(number // len(sources)) % len(MUTATIONS)]
        name = f"{number:03d}-{mutation.__name__}-{source.stem}"
        # Sources whose suffix the catalogue does not accept get a wrong but accepted one.
        suffix = source.suffix if source.suffix in VIDEO_SUFFIXES else ".mp4"
        case = Case(name, videos / f"{name}{suffix}", source)
        case.damaged.write_bytes(mutation(source.read_bytes(), rng))
        (labels / f"{name}.txt").write_text("valence,arousal\n" + "0.1,0.2\n" * FRAMES, encoding="utf-8")
        cases.append(case)
    return cases


def run(
    folder: Path, count: int, seed: int, log: Callable[[str], None], *, demo: Path | None, peers: bool
) -> dict[str, Any]:
    """The figures of this part. peers: also measure OpenCV and decord."""
    cases = make_cases(folder, count, seed, demo=demo)
    config = load("demo", [*SETTINGS, "runtime.decode_seconds=20", "runtime.workers=0"])
    work, reporter = Work(folder / "work"), Reporter(quiet=True)
    start = time.perf_counter()
    extraction = extract_frames(config, folder / "data", work, reporter)
    log(f"extract-frames: {len(extraction.made)} made, {len(extraction.failed)} refused, in {_since(start)}")
    start = time.perf_counter()
    model = tiny_model(folder / "model")
    prediction = predict(config, [folder / "data" / "videos"], model, folder / "out", reporter)
    log(f"predict: {len(prediction.made)} made, {len(prediction.failed)} refused, in {_since(start)}")
    with Reader("pyav", folder) as pyav:
        references = {intact: pyav.read(intact) for intact in {case.intact for case in cases}}
        counts = [compare(case, work, references[case.intact], pyav) for case in cases]
    figures: dict[str, Any] = {
        "videos": len(cases),
        "extracted": len(extraction.made),
        "refused": len(extraction.failed),
        "predicted": len(prediction.made),
        "not reported": _unreported(cases, extraction) + _unreported(cases, prediction),
        "tables that differ from their shard": sum(_differs(case, work, folder / "out", config) for case in cases),
    }
    figures |= {key: sum(found[key] for found in counts) for key in counts[0]}
    for case, found in zip(cases, counts, strict=True):
        if found["frames shifted"] or found[UNLIKE_BOTH]:
            log(f"  {case.name}: {found}")
    if peers:
        for name in ("opencv", "decord"):
            with Reader(name, folder) as reader:
                peer_counts = [read_with_peer(case, references[case.intact], reader) for case in cases]
            figures[name] = {key: sum(found[key] for found in peer_counts) for key in peer_counts[0]}
            log(f"{name}: {figures[name]}")
    return figures


def compare(case: Case, work: Work, intact: ReadResult, pyav: Reader) -> dict[str, int]:
    """Compares the frames of a video with the intact file, and with PyAV on the damaged file."""
    found = {"frames": 0, "frames listed as lost": 0, "frames shifted": 0, UNLIKE_PYAV: 0, UNLIKE_BOTH: 0}
    if not work.frames(case.name).is_file():
        return found
    with FrameShard(work.frames(case.name)) as shard:
        index, times, lost = shard.read("index"), shard.read("pts"), shard.attributes["lost"]
        pixels = shard.frames(np.arange(len(index))).permute(0, 2, 3, 1).numpy()
    pictures = np.stack([thumbnail(np.ascontiguousarray(picture)) for picture in pixels])
    complete = sorted([*index.tolist(), *lost]) == list(range(len(index) + len(lost)))
    theirs = pyav.read(case.damaged)
    found["frames"], found["frames listed as lost"] = len(index), len(lost)
    found["frames shifted"] = count_shifted(index, pictures, intact.picture) if complete else len(index)
    unlike = _unlike(times, pictures, theirs)
    found[UNLIKE_PYAV] = int(unlike.sum())
    found[UNLIKE_BOTH] = int((unlike & ~_equal(index, pictures, intact.picture)).sum())
    return found


def count_shifted(index: np.ndarray, pictures: np.ndarray, intact: np.ndarray) -> int:
    """The number of frames that clearly show the picture of another number, with the offset of their neighbours."""
    if not len(intact) or not len(pictures):
        return 0
    flat, ours = (array.reshape(len(array), -1).astype(np.int16) for array in (intact, pictures))
    offsets = np.zeros(len(index), np.int64)
    for row, number in enumerate(index.tolist()):
        distance = np.abs(flat - ours[row]).mean(1)
        best = int(distance.argmin())
        own = distance[number] if number < len(flat) else 255.0
        contrast = np.abs(flat[best] - flat[min(number, len(flat) - 1)]).mean()
        if distance[best] < 3 and own > 2 * distance[best] + 3 and (contrast > 5 or number >= len(flat)):
            offsets[row] = best - number
    count = 0
    for part in np.split(offsets, np.flatnonzero(np.diff(offsets)) + 1):
        count += len(part) if part[0] and len(part) >= MIN_SHIFTED else 0
    return count


def read_with_peer(case: Case, intact: ReadResult, reader: Reader) -> dict[str, int]:
    """The result of another reader for a damaged video."""
    result = reader.read(case.damaged)
    wrong = count_shifted(np.arange(len(result.time)), result.picture, intact.picture)
    counted = Counter([result.outcome])
    outcomes = {key: counted[key] for key in ("read", "refused", "hung", "crashed")}
    return outcomes | {"frames": len(result.time), "frames shifted": wrong, "videos shifted": int(wrong > 0)}


def _equal(index: np.ndarray, pictures: np.ndarray, intact: np.ndarray) -> np.ndarray:
    """bool [n]: whether the frame equals the frame with the same number in the intact file."""
    difference = np.abs(intact[index.clip(0, len(intact) - 1)].astype(np.int16) - pictures).mean((1, 2, 3))
    return (index < len(intact)) & (difference <= MAX_DIFFERENCE)


def _unlike(times: np.ndarray, pictures: np.ndarray, theirs: ReadResult) -> np.ndarray:
    """bool [n]: whether PyAV has no equal frame at the same time. Times may have another start."""
    best = np.ones(len(times), bool)
    if np.isnan(theirs.time).any() or not len(theirs.time):
        return ~best  # without times, nothing can be compared
    for start in {0.0, *(theirs.time[:4] - times[0]).tolist()}:
        rows = np.searchsorted(theirs.time, times + start - 1e-3).clip(0, len(theirs.time) - 1)
        same_time = np.abs(theirs.time[rows] - times - start) < 2e-3
        difference = np.abs(theirs.picture[rows].astype(np.int16) - pictures).mean((1, 2, 3))
        found = ~same_time | (difference > MAX_DIFFERENCE)
        best = found if found.sum() < best.sum() else best
    return best


def _unreported(cases: list[Case], report: Any) -> int:
    reported = {*report.made, *report.kept, *(problem.name for problem in report.failed)}
    return sum(case.name not in reported for case in cases)


def _differs(case: Case, work: Work, out: Path, config: Config) -> bool:
    """Whether predict and extract-frames give a video different frame numbers or times."""
    table, path = out / f"{case.name}.csv", work.frames(case.name)
    if not (table.is_file() and path.is_file()):
        return table.is_file() != path.is_file()
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with FrameShard(path) as shard:
        index, times = shard.read("index"), shard.read("pts")
    same = [int(row["frame"]) for row in rows] == index.tolist()
    return not (same and np.allclose([float(row["time"]) for row in rows], times, atol=1e-6))


def _since(start: float) -> str:
    return f"{time.perf_counter() - start:.0f} s"
