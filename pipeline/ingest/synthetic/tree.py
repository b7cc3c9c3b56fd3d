"""The whole demo tree: which videos, which quirks, whose labels; drawn in parallel, the same for the same seed."""

import json
import multiprocessing
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from ...errors import InputError
from ...progress import Talk
from ...records import NOT_ANNOTATED
from .ferplus import FACES, draw_ferplus
from .film import Acted, Film, draw_film

VERSION = 1
MARK = "demo.json"
LABELS = Path("annotations") / "VA_Estimation_Challenge"
FOLDER = {"train": "Train_Set", "validation": "Validation_Set", "test": "Test_Set"}
SPLITS = ("train", "train", "validation", "train", "train", "train", "validation", "test", "train")
DIFFERENCES = (1, 1, 1, 0, 1, 2, -1, 1, -3)
RATES = (30.0, 25.0, 30.0, 24.0, 15.0, 30.0, 25.0, 30000 / 1001, 10.0)


@dataclass(frozen=True)
class Plan:
    """One video of the tree. subjects: the annotation's name for each person, "" where a person has none.

    difference: annotation rows minus frames. damage: bytes are lost in the middle of the file.
    """

    film: Film
    split: str
    subjects: tuple[str, ...]
    difference: int = 1
    damage: bool = False


def draw_tree(
    out: Path,
    *,
    videos: int = 36,
    frames: int = 200,
    seed: int = 0,
    faces: int = FACES,
    workers: int = 0,
    talk: Talk | None = None,
) -> dict[str, object]:
    """Draws a data set in the shape of Aff-Wild2, and FER+ beside it, into `out`; returns what it holds.

    videos: ordinary videos, at least 8, of about `frames` frames; quirky ones come on top. faces: FER+ training faces.
    workers: processes; 0: this one. An `out` that holds this very tree is left as it is. Raises InputError for an `out`
    that holds anything else.
    """
    if videos < 8 or frames < 16 or faces < 40:
        given = f"{videos} videos of {frames} frames and {faces} faces are too few"
        raise InputError(given, "Take at least 8 videos, 16 frames, 40 faces.")
    wanted = {"version": VERSION, "videos": videos, "frames": frames, "seed": seed, "faces": faces}
    talk = talk or Talk(quiet=True)
    mark = out / MARK
    if mark.is_file():
        known = json.loads(mark.read_text(encoding="utf-8"))
        if known["wanted"] == wanted:
            talk.say(f"{out} holds this demo already")
            return known["facts"]
        shutil.rmtree(out)
    elif out.exists() and any(out.iterdir()):
        raise InputError(f"{out} is not empty and no demo tree", "Name a new folder.")
    out.mkdir(parents=True, exist_ok=True)
    plans = list(_plans(out, videos, frames, seed))
    subjects = 0
    with talk.track("demo-data", len(plans) + 1, "videos") as bar, _pool(workers) as pool:
        ferplus = pool.submit(draw_ferplus, out / "ferplus", faces, seed)  # the longest, so it goes first
        drawn = {pool.submit(_draw, plan): plan for plan in plans}
        for future in as_completed(drawn):
            subjects += len(future.result())
            bar.advance(item=drawn[future].film.path.name)
        ferplus.result()
        bar.advance(item="ferplus")
    _orphan(out, frames)
    facts: dict[str, object] = {"videos": len(plans), "subjects": subjects, "faces": ferplus.result()}
    mark.write_text(json.dumps({"wanted": wanted, "facts": facts}, indent=1) + "\n", encoding="utf-8")
    return facts


def _plans(out: Path, videos: int, frames: int, seed: int) -> Iterator[Plan]:
    """The ordinary videos, then one each that is refused, damaged, and not annotated."""
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
        suffix = ".avi" if i % 4 == 3 and not variable else ".mp4"  # an avi knows no uneven times
        path = out / "videos" / f"batch{1 + i % 2}" / f"{name}{suffix}"
        length = max(16, round(frames * rng.uniform(0.8, 1.2)))
        size = ((640, 360), (640, 360), (640, 480), (854, 480))[rng.integers(4)]
        film = Film(path, _seed(seed, i), length, RATES[i % 9], people, *size, variable)
        yield Plan(film, SPLITS[i % 9], subjects, DIFFERENCES[i % 9])
    short = max(16, frames // 3)
    for k, (name, split) in enumerate((("refused", "train"), ("damaged", "validation"), ("unlabelled", "train"))):
        film = Film(out / "videos" / "batch2" / f"{name}.mp4", _seed(seed, 1000 + k), short, 30.0)
        plan = Plan(film, split, (name,))
        yield (replace(plan, difference=40), replace(plan, damage=True), replace(plan, subjects=("",)))[k]


def _seed(seed: int, i: int) -> int:
    return int(np.random.SeedSequence((seed, i)).generate_state(1)[0])


def _draw(plan: Plan) -> list[str]:
    """One video with its annotations and boxes; returns the names of its subjects."""
    film = plan.film
    root = film.path.parents[2]
    for name, acted in zip(plan.subjects, draw_film(film), strict=True):
        if name:
            _write_labels(root / LABELS / FOLDER[plan.split] / f"{name}.txt", acted, film.frames + plan.difference)
            _write_boxes(root / "bounding_boxes" / f"{name}.csv", acted)
    if plan.damage:
        content = bytearray(film.path.read_bytes())
        middle = len(content) // 2
        content[middle : middle + len(content) // 10] = bytes(len(content) // 10)
        film.path.write_bytes(content)
    return [name for name in plan.subjects if name]


def _write_labels(path: Path, acted: Acted, rows: int) -> None:
    """As the real files: a header, a row a frame, -5 where nobody annotated; too many rows repeat the last."""
    label = np.where(acted.seen[:, None], acted.label, NOT_ANNOTATED)
    label = label[np.minimum(np.arange(rows), len(label) - 1)]
    gap = max(2, rows // 40)
    label[rows // 3 : rows // 3 + gap] = NOT_ANNOTATED
    text = "\n".join("-5,-5" if v == NOT_ANNOTATED else f"{v:.13g},{a:.13g}" for v, a in label)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"valence,arousal\n{text}\n", encoding="utf-8")


def _write_boxes(path: Path, acted: Acted) -> None:
    rows = [
        f"{t + 1},{x0:.2f},{y0:.2f},{x1:.2f},{y1:.2f}" for t, (x0, y0, x1, y1) in enumerate(acted.box) if acted.seen[t]
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["frame,x0,y0,x1,y1", *rows]) + "\n", encoding="utf-8")


def _orphan(out: Path, frames: int) -> None:
    """An annotation whose video is not there."""
    rows = ["valence,arousal", *("0.1,0.2" for _ in range(frames))]
    (out / LABELS / FOLDER["train"] / "videoless.txt").write_text("\n".join(rows) + "\n", encoding="utf-8")


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(max(1, workers), mp_context=context, initializer=cv2.setNumThreads, initargs=(1,))
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
