"""Draws the demo data set in parallel: videos with labels, boxes and irregularities. Equal seeds give equal files."""

import json
import multiprocessing
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ...errors import InputError
from ...progress import Reporter
from ...records import NOT_ANNOTATED
from ...storage.atomic import write_bytes, write_text
from .ferplus import FACES, Portion, draw_portion, portions, write_ferplus
from .video import CHOOSE, GroundTruth, SyntheticVideo, draw_video

MARK = "demo.json"
DRAWING = "78a14b4d0df60a6c"
"""Version of the drawings. Change it whenever the same seed gives other pictures or labels, and only then: a demo data
set of another version is drawn again."""
PARTS = ("videos", "annotations", "bounding_boxes", "ferplus")
LABELS = Path("annotations") / "VA_Estimation_Challenge"
FOLDER = {"train": "Train_Set", "validation": "Validation_Set", "test": "Test_Set"}
SPLITS = ("train", "train", "validation", "train", "train", "train", "validation", "test", "train")
DIFFERENCES = (1, 1, 1, 0, 1, 2, -1, 1, -3)
RATES = (30.0, 25.0, 30.0, 24.0, 15.0, 30.0, 25.0, 30000 / 1001, 10.0)


@dataclass(frozen=True)
class Plan:
    """One video of the data set. subjects: name of each person's annotation, "" for a person without one.

    difference: annotation rows minus frames. damage: overwrite bytes in the middle of the file with zeros.
    """

    video: SyntheticVideo
    split: str
    subjects: tuple[str, ...]
    difference: int = 1
    damage: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the annotated subjects."""
        return tuple(name for name in self.subjects if name)


def draw_demo_data(
    out: Path,
    *,
    videos: int = 60,
    frames: int = 120,
    seed: int = 0,
    faces: int = FACES,
    workers: int = 0,
    reporter: Reporter | None = None,
) -> dict[str, object]:
    """Draws a data set with the layout of Aff-Wild2, and FER+ faces, into `out`. Returns counts of its content.

    videos: ordinary videos, at least 8, of about `frames` frames; three irregular ones are added. faces: FER+ training
    faces. workers: number of processes, 0 or 1 for this one; does not change the result. If `out` already has this data
    set, nothing is written; another demo data set is replaced. Raises InputError if `out` has other content, and
    WorkError if it cannot be written.
    """
    if videos < 8 or frames < 16 or faces < 40:
        given = f"{videos} videos of {frames} frames and {faces} faces are too few"
        raise InputError(given, "Use at least 8 videos, 16 frames and 40 faces.")
    requested = {"videos": videos, "frames": frames, "seed": seed, "faces": faces, "drawn_by": DRAWING}
    reporter = reporter or Reporter(quiet=True)
    known = _known(out)
    if known.get("wanted") == requested and "facts" in known:
        reporter.info(f"{out} is up to date")
        return known["facts"]
    for part in PARTS:
        shutil.rmtree(out / part, ignore_errors=True)
    # Without facts, the file marks an unfinished data set, which may be replaced.
    write_text(out / MARK, json.dumps({"wanted": requested}) + "\n", CHOOSE)
    plans, parts = list(_plans(out, videos, frames, seed)), portions(faces, seed)
    with reporter.progress("demo-data", len(plans) + len(parts), "items") as bar:
        drawn: dict[int, tuple[list[str], list[str]]] = {}
        counts = dict.fromkeys(FOLDER, 0)
        for item, result in _draw_all([*plans, *parts], workers):
            if isinstance(item, Plan):
                counts[item.split] += len(item.names)
                bar.advance(item=item.video.path.name)
            else:
                drawn[item.first] = result
                bar.advance(item=f"ferplus {item.usage} {item.first}")
    _write_videoless(out, frames)
    facts: dict[str, object] = {
        "videos": len(plans),
        "frames": sum(plan.video.frames for plan in plans),
        "subjects": counts,
        "faces": write_ferplus(out / "ferplus", [drawn[first] for first in sorted(drawn)]),
    }
    write_text(out / MARK, json.dumps({"wanted": requested, "facts": facts}, indent=1) + "\n", CHOOSE)
    return facts


def _known(out: Path) -> dict[str, Any]:
    """The content of demo.json in `out`, or {} for a new folder. Raises InputError for a folder with other content."""
    try:
        known = json.loads((out / MARK).read_text(encoding="utf-8"))
        if isinstance(known, dict) and "wanted" in known:
            return known
    except (OSError, ValueError):
        if not out.exists() or (out.is_dir() and not any(out.iterdir())):
            return {}
    raise InputError(f"{out} exists and is not a demo data set", "Choose a new folder.")


def _plans(out: Path, videos: int, frames: int, seed: int) -> Iterator[Plan]:
    """Yields the ordinary videos, then one that the audit refuses, one damaged, and one without annotation."""
    rng = np.random.default_rng((seed, 17))
    for i in range(videos):
        name, people = f"{i + 1}", 1
        subjects: tuple[str, ...] = (name,)
        if i % 12 == 1:
            people, subjects = 2, (f"{name}_left", f"{name}_right")
        elif i % 12 == 4:
            people, subjects = 2, (f"{name}_left", "")
        elif i % 12 == 10:
            people, subjects = 2, (name, f"{name}_right")
        if i % 18 == 6:
            name = f"video{i + 1}_60fps"
            subjects = (name,)
        elif people == 1 and i % 5 == 2:
            name = f"{i + 1}-30-640x360"
            subjects = (name,)
        variable = i % 18 == 5
        suffix = ".avi" if i % 4 == 3 and not variable else ".mp4"  # AVI cannot store a variable frame rate
        path = out / "videos" / f"batch{1 + i % 2}" / f"{name}{suffix}"
        length = max(16, round(frames * rng.uniform(0.8, 1.2)))
        size = ((640, 360), (640, 360), (640, 480), (854, 480))[rng.integers(4)]
        video = SyntheticVideo(path, _seed(seed, i), length, RATES[i % 9], people, *size, variable)
        yield Plan(video, SPLITS[i % 9], subjects, DIFFERENCES[i % 9])
    short = max(16, frames // 3)
    for k, (name, split) in enumerate((("refused", "train"), ("damaged", "validation"), ("unlabelled", "train"))):
        video = SyntheticVideo(out / "videos" / "batch2" / f"{name}.mp4", _seed(seed, 1000 + k), short, 30.0)
        plan = Plan(video, split, (name,))
        yield (replace(plan, difference=40), replace(plan, damage=True), replace(plan, subjects=("",)))[k]


def _seed(seed: int, i: int) -> int:
    return int(np.random.SeedSequence((seed, i)).generate_state(1)[0])


def _draw_all(items: list[Plan | Portion], workers: int) -> Iterator[tuple[Plan | Portion, Any]]:
    """Yields each item with its result: in order with fewer than two workers, otherwise as they finish."""
    if workers < 2:
        for item in items:
            yield item, _draw(item)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=cv2.setNumThreads, initargs=(1,))
    try:
        futures = {pool.submit(_draw, item): item for item in items}
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _draw(item: Plan | Portion) -> tuple[list[str], list[str]] | None:
    return draw_portion(item) if isinstance(item, Portion) else _draw_video(item)


def _draw_video(plan: Plan) -> None:
    """Draws one video and writes its annotations and boxes."""
    video = plan.video
    root = video.path.parents[2]
    for name, truth in zip(plan.subjects, draw_video(video), strict=True):
        if name:
            _write_labels(root / LABELS / FOLDER[plan.split] / f"{name}.txt", truth, plan)
            _write_boxes(root / "bounding_boxes" / f"{name}.csv", truth)
    if plan.damage:
        content = bytearray(video.path.read_bytes())
        middle = len(content) // 2
        content[middle : middle + len(content) // 10] = bytes(len(content) // 10)
        write_bytes(video.path, bytes(content), CHOOSE)


def _write_labels(path: Path, truth: GroundTruth, plan: Plan) -> None:
    """Writes a header and a row per frame. -5 means not annotated. Additional rows repeat the last one.

    In a third of the videos, frames without a visible face are annotated too, as in the real set.
    """
    rows = plan.video.frames + plan.difference
    label = truth.label if plan.video.seed % 3 == 0 else np.where(truth.seen[:, None], truth.label, NOT_ANNOTATED)
    label = label[np.minimum(np.arange(rows), len(label) - 1)]
    gap = max(2, rows // 40)
    label[rows // 3 : rows // 3 + gap] = NOT_ANNOTATED
    text = "\n".join("-5,-5" if v == NOT_ANNOTATED else f"{v:.13g},{a:.13g}" for v, a in label)
    write_text(path, f"valence,arousal\n{text}\n", CHOOSE)


def _write_boxes(path: Path, truth: GroundTruth) -> None:
    rows = [
        f"{t + 1},{x0:.2f},{y0:.2f},{x1:.2f},{y1:.2f}" for t, (x0, y0, x1, y1) in enumerate(truth.box) if truth.seen[t]
    ]
    write_text(path, "\n".join(["frame,x0,y0,x1,y1", *rows]) + "\n", CHOOSE)


def _write_videoless(out: Path, frames: int) -> None:
    """Writes an annotation without a video."""
    rows = ["valence,arousal", *("0.1,0.2" for _ in range(frames))]
    write_text(out / LABELS / FOLDER["train"] / "videoless.txt", "\n".join(rows) + "\n", CHOOSE)
