"""Damaged videos through extract-frames and predict: does anything hang, stop the run, or get a wrong number?"""

import csv
import shutil
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from affect.configs.schema import Config, load
from affect.pipeline.ingest.catalog import VIDEO_SUFFIXES
from affect.pipeline.progress import Talk
from affect.pipeline.records import Work
from affect.pipeline.stages.extract_frames import extract_frames
from affect.pipeline.stages.predict import predict
from affect.pipeline.storage.shard import FrameShard

from .model import SETTINGS, tiny_model
from .mutations import MUTATIONS
from .readers import Reader, Seen, thumbnail
from .sources import FRAMES, gather

RUN = 3
"""So many frames in a row that all show the same number of frames too early or too late: the numbers have shifted.
A decoder that conceals a lost frame by repeating another shows ever older ones instead."""

ALIKE = 8
"""Pictures whose values differ by no more than this in the mean, of 255, show the same."""
UNLIKE = "frames without their like in PyAV"
UNKNOWN = "of these, unlike the sound file too"
"""PyAV counts the frames of an AVI that lost some, and so gives later ones the times of others."""


@dataclass(frozen=True)
class Case:
    """A damaged video and the sound one it was."""

    name: str
    damaged: Path
    sound: Path


def make_cases(folder: Path, count: int, seed: int, *, demo: Path | None) -> list[Case]:
    """`count` damaged videos below folder/data, each with an annotation of as many rows as the sound one has frames."""
    rng = np.random.default_rng(seed)
    sources = gather(folder / "sound", demo)
    labels = folder / "data" / "VA_Set" / "Train_Set"
    videos = folder / "data" / "videos"
    for place in (labels, videos):
        place.mkdir(parents=True, exist_ok=True)
    cases = []
    for number in range(count):
        source, mutation = sources[number % len(sources)], MUTATIONS[(number // len(sources)) % len(MUTATIONS)]
        name = f"{number:03d}-{mutation.__name__}-{source.stem}"
        # A wrong extension for what the catalogue does not take for a video.
        suffix = source.suffix if source.suffix in VIDEO_SUFFIXES else ".mp4"
        case = Case(name, videos / f"{name}{suffix}", source)
        case.damaged.write_bytes(mutation(source.read_bytes(), rng))
        (labels / f"{name}.txt").write_text("valence,arousal\n" + "0.1,0.2\n" * FRAMES, encoding="utf-8")
        cases.append(case)
    return cases


def run(
    folder: Path, count: int, seed: int, say: Callable[[str], None], *, demo: Path | None, peers: bool
) -> dict[str, Any]:
    """The figures of this part. peers: those of OpenCV and decord as well."""
    cases = make_cases(folder, count, seed, demo=demo)
    config = load("demo", [*SETTINGS, "runtime.decode_seconds=20", "runtime.workers=0"])
    work, talk = Work(folder / "work"), Talk(quiet=True)
    start = time.perf_counter()
    extraction = extract_frames(config, folder / "data", work, talk)
    say(f"extract-frames: {len(extraction.made)} made, {len(extraction.failed)} refused, in {_since(start)}")
    start = time.perf_counter()
    model = tiny_model(folder / "model")
    prediction = predict(config, [folder / "data" / "videos"], model, folder / "out", talk)
    say(f"predict: {len(prediction.made)} made, {len(prediction.failed)} refused, in {_since(start)}")
    with Reader("pyav", folder) as pyav:
        references = {sound: pyav.read(sound) for sound in {case.sound for case in cases}}
        judged = [judge(case, work, references[case.sound], pyav) for case in cases]
    figures: dict[str, Any] = {
        "videos": len(cases),
        "extracted": len(extraction.made),
        "refused": len(extraction.failed),
        "predicted": len(prediction.made),
        "without a record": _unrecorded(cases, extraction) + _unrecorded(cases, prediction),
        "tables that differ from their shard": sum(_differs(case, work, folder / "out", config) for case in cases),
    }
    figures |= {key: sum(found[key] for found in judged) for key in judged[0]}
    for case, found in zip(cases, judged, strict=True):
        if found["frames shifted"] or found[UNKNOWN]:
            say(f"  {case.name}: {found}")
    if peers:
        for by in ("opencv", "decord"):
            with Reader(by, folder) as reader:
                told = [peer(case, references[case.sound], reader) for case in cases]
            figures[by] = {key: sum(found[key] for found in told) for key in told[0]}
            say(f"{by}: {figures[by]}")
    return figures


def judge(case: Case, work: Work, sound: Seen, pyav: Reader) -> dict[str, int]:
    """One video's frames against the sound file and against PyAV on the damaged one."""
    found = {"frames": 0, "frames lost and named": 0, "frames shifted": 0, UNLIKE: 0, UNKNOWN: 0}
    if not work.frames(case.name).is_file():
        return found
    with FrameShard(work.frames(case.name)) as shard:
        index, times, lost = shard.read("index"), shard.read("pts"), shard.attributes["lost"]
        pixels = shard.frames(np.arange(len(index))).permute(0, 2, 3, 1).numpy()
    pictures = np.stack([thumbnail(np.ascontiguousarray(picture)) for picture in pixels])
    whole = sorted([*index.tolist(), *lost]) == list(range(len(index) + len(lost)))
    theirs = pyav.read(case.damaged)
    found["frames"], found["frames lost and named"] = len(index), len(lost)
    found["frames shifted"] = shifted(index, pictures, sound.picture) if whole else len(index)
    unlike = _unlike(times, pictures, theirs)
    found[UNLIKE] = int(unlike.sum())
    found[UNKNOWN] = int((unlike & ~_alike(index, pictures, sound.picture)).sum())
    return found


def shifted(index: np.ndarray, pictures: np.ndarray, sound: np.ndarray) -> int:
    """How many frames plainly show the picture of another number, by the same distance as their neighbours do."""
    if not len(sound) or not len(pictures):
        return 0
    flat, ours = (array.reshape(len(array), -1).astype(np.int16) for array in (sound, pictures))
    offsets = np.zeros(len(index), np.int64)
    for row, number in enumerate(index.tolist()):
        distance = np.abs(flat - ours[row]).mean(1)
        best = int(distance.argmin())
        own = distance[number] if number < len(flat) else 255.0
        apart = np.abs(flat[best] - flat[min(number, len(flat) - 1)]).mean()
        if distance[best] < 3 and own > 2 * distance[best] + 3 and (apart > 5 or number >= len(flat)):
            offsets[row] = best - number
    count = 0
    for part in np.split(offsets, np.flatnonzero(np.diff(offsets)) + 1):
        count += len(part) if part[0] and len(part) >= RUN else 0
    return count


def peer(case: Case, sound: Seen, reader: Reader) -> dict[str, int]:
    """What another reader makes of a damaged video."""
    seen = reader.read(case.damaged)
    wrong = shifted(np.arange(len(seen.time)), seen.picture, sound.picture)
    counted = Counter([seen.outcome])
    outcomes = {key: counted[key] for key in ("read", "refused", "hung", "crashed")}
    return outcomes | {"frames": len(seen.time), "frames shifted": wrong, "videos shifted": int(wrong > 0)}


def _alike(index: np.ndarray, pictures: np.ndarray, sound: np.ndarray) -> np.ndarray:
    """bool [n]: which frames show what the frame of their number does in the sound file."""
    apart = np.abs(sound[index.clip(0, len(sound) - 1)].astype(np.int16) - pictures).mean((1, 2, 3))
    return (index < len(sound)) & (apart <= ALIKE)


def _unlike(times: np.ndarray, pictures: np.ndarray, theirs: Seen) -> np.ndarray:
    """bool [n]: for which frames PyAV has none of that time that looks the same. Times may begin elsewhere."""
    best = np.ones(len(times), bool)
    if np.isnan(theirs.time).any() or not len(theirs.time):
        return ~best  # the container has no times to compare by
    for start in {0.0, *(theirs.time[:4] - times[0]).tolist()}:
        places = np.searchsorted(theirs.time, times + start - 1e-3).clip(0, len(theirs.time) - 1)
        timely = np.abs(theirs.time[places] - times - start) < 2e-3
        apart = np.abs(theirs.picture[places].astype(np.int16) - pictures).mean((1, 2, 3))
        found = ~timely | (apart > ALIKE)
        best = found if found.sum() < best.sum() else best
    return best


def _unrecorded(cases: list[Case], report: Any) -> int:
    told = {*report.made, *report.kept, *(problem.name for problem in report.failed)}
    return sum(case.name not in told for case in cases)


def _differs(case: Case, work: Work, out: Path, config: Config) -> bool:
    """Whether predict numbers or times frames otherwise than extract-frames does."""
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


def forget(folder: Path) -> None:
    """Removes what the part made."""
    shutil.rmtree(folder, ignore_errors=True)
