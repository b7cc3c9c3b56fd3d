"""The whole demo tree: which videos, which quirks, whose labels; drawn in parallel, the same for the same seed."""

import hashlib
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
from ...progress import Talk
from ...records import NOT_ANNOTATED
from .ferplus import FACES, Portion, draw_portion, portions, write_ferplus
from .film import Acted, Film, draw_film

MARK = "demo.json"
PARTS = ("videos", "annotations", "bounding_boxes", "ferplus")
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

    @property
    def names(self) -> tuple[str, ...]:
        """Of the subjects that are annotated."""
        return tuple(name for name in self.subjects if name)


def draw_tree(
    out: Path,
    *,
    videos: int = 60,
    frames: int = 120,
    seed: int = 0,
    faces: int = FACES,
    workers: int = 0,
    talk: Talk | None = None,
) -> dict[str, object]:
    """Draws a data set in the shape of Aff-Wild2, and FER+ beside it, into `out`; returns what it holds.

    videos: ordinary videos, at least 8, of about `frames` frames; quirky ones come on top. faces: FER+ training faces.
    workers: processes; 0 or 1: this one; what is drawn does not depend on it. An `out` that holds this very tree is
    left as it is, another demo tree is replaced. Raises InputError for an `out` that holds anything else.
    """
    if videos < 8 or frames < 16 or faces < 40:
        given = f"{videos} videos of {frames} frames and {faces} faces are too few"
        raise InputError(given, "Take at least 8 videos, 16 frames, 40 faces.")
    wanted = {"videos": videos, "frames": frames, "seed": seed, "faces": faces, "drawn_by": _source_digest()}
    talk = talk or Talk(quiet=True)
    known = _known(out)
    if known.get("wanted") == wanted and "facts" in known:
        talk.say(f"{out} holds this demo already")
        return known["facts"]
    for part in PARTS:
        shutil.rmtree(out / part, ignore_errors=True)
    try:
        out.mkdir(parents=True, exist_ok=True)
        # The mark without facts says: ours, but not finished.
        (out / MARK).write_text(json.dumps({"wanted": wanted}) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"{out} cannot be written: {error.strerror}", "Name another folder.") from error
    plans, parts = list(_plans(out, videos, frames, seed)), portions(faces, seed)
    with talk.track("demo-data", len(plans) + len(parts), "items") as bar:
        drawn: dict[int, tuple[list[str], list[str]]] = {}
        counts = dict.fromkeys(FOLDER, 0)
        for item, result in _each([*plans, *parts], workers):
            if isinstance(item, Plan):
                counts[item.split] += len(item.names)
                bar.advance(item=item.film.path.name)
            else:
                drawn[item.first] = result
                bar.advance(item=f"ferplus {item.usage} {item.first}")
    _orphan(out, frames)
    facts: dict[str, object] = {
        "videos": len(plans),
        "frames": sum(plan.film.frames for plan in plans),
        "subjects": counts,
        "faces": write_ferplus(out / "ferplus", [drawn[first] for first in sorted(drawn)]),
    }
    (out / MARK).write_text(json.dumps({"wanted": wanted, "facts": facts}, indent=1) + "\n", encoding="utf-8")
    return facts


def _known(out: Path) -> dict[str, Any]:
    """What the mark in `out` says; empty for a new folder. Raises InputError for a folder of something else."""
    try:
        known = json.loads((out / MARK).read_text(encoding="utf-8"))
        if isinstance(known, dict) and "wanted" in known:
            return known
    except (OSError, ValueError):
        if not out.exists() or (out.is_dir() and not any(out.iterdir())):
            return {}
    raise InputError(f"{out} is there and no demo tree", "Name a new folder.")


def _source_digest() -> str:
    """Of the code that draws: another code draws another tree."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]


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


def _each(items: list[Plan | Portion], workers: int) -> Iterator[tuple[Plan | Portion, Any]]:
    """Every item with what came of it: in order with fewer than two workers, else as they are done."""
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
    """One video with its annotations and boxes."""
    film = plan.film
    root = film.path.parents[2]
    for name, acted in zip(plan.subjects, draw_film(film), strict=True):
        if name:
            _write_labels(root / LABELS / FOLDER[plan.split] / f"{name}.txt", acted, plan)
            _write_boxes(root / "bounding_boxes" / f"{name}.csv", acted)
    if plan.damage:
        content = bytearray(film.path.read_bytes())
        middle = len(content) // 2
        content[middle : middle + len(content) // 10] = bytes(len(content) // 10)
        film.path.write_bytes(content)


def _write_labels(path: Path, acted: Acted, plan: Plan) -> None:
    """As the real files: a header, a row a frame, -5 where nobody annotated; too many rows repeat the last.

    Some annotators went on where no face was to be seen.
    """
    rows = plan.film.frames + plan.difference
    label = acted.label if plan.film.seed % 3 == 0 else np.where(acted.seen[:, None], acted.label, NOT_ANNOTATED)
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
