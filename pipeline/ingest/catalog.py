"""Finds what lies in a data folder, whatever its release calls its folders, and pairs it by name.

A walk lists the folder; pure functions make sense of the list. Folders of a picture per frame are seen, not entered.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ..errors import CatalogError
from ..records import Catalog, Problem, Side, Split, Subject, Video
from .annotations import HEADER, arousal_beside, is_affwild

VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm"})
SPLITS: dict[str, Split] = {
    "train": "train", "training": "train",
    "validation": "validation", "val": "validation", "valid": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip
FOREIGN = frozenset({"expr", "expression", "expressions", "au", "aus", "mtl"})
"""Words in a path that mark annotations of expressions or action units."""
FOREIGN_HEADER = re.compile(r"neutral|AU ?[0-9]|image", re.IGNORECASE)
SIDES: tuple[Side, ...] = ("left", "right")
CROPS = re.compile(r"cropped_aligned.*", re.IGNORECASE)
BATCH = re.compile(r"batch[ _-]?[0-9]+", re.IGNORECASE)
ODD = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, changes of the direction of writing, and bytes that are no text."""
PTS = frozenset({"bboxes", "bboxs"})


@dataclass
class _Found:
    """What the walk came upon. Whose pictures or boxes: by the name of the subject."""

    videos: list[Path] = field(default_factory=list)
    texts: list[Path] = field(default_factory=list)
    boxes: dict[str, Path] = field(default_factory=dict)
    crops: dict[str, Path] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def find_catalog(root: Path) -> Catalog:
    """Everything below `root` that an Aff-Wild2 or Aff-Wild release could hold, paired by name, in a fixed order.

    Raises CatalogError where there is no folder, no video or no annotation; all lesser trouble is in `problems`.
    """
    if not root.is_dir():
        raise CatalogError(f"{root} is not a folder", "Give the folder that holds videos and annotations with --data.")
    found = _look_around(root)
    chosen = list(_annotations(root, found.texts))
    if not found.videos or not chosen:
        raise CatalogError(
            f"{root} holds {len(found.videos)} videos and {len(chosen)} valence-arousal annotations",
            "Both have to lie below it: videos (.mp4, .avi, .mov, .mkv, .webm) anywhere, "
            "annotations as …VA…/Train_Set/<subject>.txt and …VA…/Validation_Set/<subject>.txt.",
        )
    problems = found.problems
    videos = _videos(root, found.videos, problems)
    subjects = _subjects(root, chosen, videos, found, problems)
    annotated = {subject.video for subject in subjects}
    problems += [
        Problem("note", name, "a video without annotation: not used for training or evaluation")
        for name in videos
        if name not in annotated
    ]
    return Catalog(root, tuple(videos.values()), tuple(subjects), tuple(problems))


def split_of(folder: str) -> Split | None:
    """The split a folder's name stands for: Train_Set, Training_Set, Validation_Set, Val_Set, Test_Set, train, …"""
    return SPLITS.get(re.sub(r"[^a-z]", "", folder.lower()).removesuffix("set"))


def _look_around(root: Path) -> _Found:
    found = _Found()
    seen: set[tuple[int, int]] = set()
    queue = [root]
    while queue:
        folder = queue.pop()
        try:
            facts = folder.stat()
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            name = folder.relative_to(root).as_posix()
            found.problems.append(
                Problem("missing", name, f"a folder that cannot be read ({error.strerror})", "Check its permissions.")
            )
            continue
        # Links are followed, since data are often linked into place; a link to a folder above would go round for ever.
        if (facts.st_dev, facts.st_ino) in seen:
            continue
        seen.add((facts.st_dev, facts.st_ino))
        below = [entry for entry in entries if not entry.name.startswith(".") and not _odd(entry, found)]
        queue += reversed([Path(entry.path) for entry in below if entry.is_dir() and not _keep(entry, found)])
        for entry in below:
            if entry.is_file():
                _sort_in(Path(entry.path), found)
    return found


def _keep(entry: os.DirEntry[str], found: _Found) -> bool:
    """Whether this folder is a subject's pictures or points, noted here and not to be entered."""
    path = Path(entry.path)
    if path.name.lower() == "landmarks":
        return True
    parents = [parent.name for parent in path.parents][:2]
    crops = parents[0] if not BATCH.fullmatch(parents[0]) else parents[-1]
    if CROPS.fullmatch(crops) and not BATCH.fullmatch(path.name):
        found.crops.setdefault(path.name, path)
        return True
    if len(parents) == 2 and parents[1].lower() in PTS and split_of(parents[0]):
        found.boxes.setdefault(path.name, path)
        return True
    return False


def _odd(entry: os.DirEntry[str], found: _Found) -> bool:
    """Whether a name cannot be shown or written down as it is; what it names is refused then."""
    if not ODD.search(entry.name):
        return False
    shown = entry.name.encode("unicode_escape").decode()
    found.problems.append(Problem("refused", shown, "a name with characters that cannot be shown", "Rename it."))
    return True


def _sort_in(path: Path, found: _Found) -> None:
    suffix = path.suffix.lower()
    if suffix in VIDEO_SUFFIXES:
        found.videos.append(path)
    elif suffix == ".txt":
        found.texts.append(path)
    elif suffix == ".csv" and path.parent.name.lower() == "bounding_boxes":
        found.boxes[path.stem] = path  # ours win over Aff-Wild's


def _annotations(root: Path, texts: list[Path]) -> Iterator[tuple[Path, Split | None]]:
    """The valence-arousal annotations among the text files, each with its split, None where it lies in no such folder.

    Folders named for the task decide; only where there are none do bare Train_Set folders count, and then only files
    without another task's header. Aff-Wild's are known by their valence folder.
    """
    bare: list[tuple[Path, Split | None]] = []
    marked = False
    for path in texts:
        folders = path.relative_to(root).parts[-2::-1]
        split = split_of(path.parent.name)
        task = _task_of(folders)
        if is_affwild(path):
            split = split_of(path.parent.parent.name)
            if split:
                yield path, split
        elif task == "va" and (split or _first_line(path) == HEADER):
            marked = True
            yield path, next((found for found in map(split_of, folders) if found), None)
        elif task is None and split and path.parent.name.lower().endswith("set"):
            bare.append((path, split))
    if not marked:
        yield from (pair for pair in bare if not FOREIGN_HEADER.match(_first_line(pair[0])))


def _task_of(folders: tuple[str, ...]) -> Literal["va", "foreign"] | None:
    """What the nearest of these folders that names one task names; a folder that names several says nothing."""
    for folder in folders:
        words = set(re.split(r"[^a-z]+", folder.lower()))
        if ("va" in words) != bool(words & FOREIGN):
            return "va" if "va" in words else "foreign"
    return None


def _first_line(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.readline(200).decode("utf-8-sig", errors="replace").strip()
    except OSError:
        return ""  # the reader of the file will say so


def _videos(root: Path, paths: list[Path], problems: list[Problem]) -> dict[str, Video]:
    videos: dict[str, Video] = {}
    for path in sorted(paths, key=lambda path: (path.stem, path.relative_to(root).as_posix())):
        first = videos.setdefault(path.stem, Video(path.stem, path))
        if first.path != path:
            problems.append(
                Problem(
                    "note",
                    path.stem,
                    f"two videos of this name; {first.path.relative_to(root)} is used, {path.relative_to(root)} is not",
                    "Move one of them away.",
                )
            )
    return videos


def _subjects(
    root: Path,
    chosen: list[tuple[Path, Split | None]],
    videos: dict[str, Video],
    found: _Found,
    problems: list[Problem],
) -> list[Subject]:
    subjects: dict[str, Subject] = {}
    order: tuple[Split, ...] = ("train", "validation", "test")
    for path, split in sorted(chosen, key=lambda pair: (order.index(pair[1]) if pair[1] else 3, pair[0].as_posix())):
        name, where = path.stem, path.relative_to(root)
        if split is None:
            message = f"{where} lies in no folder of a split"
            problems.append(Problem("refused", name, message, "Move it to Train_Set, Validation_Set or Test_Set."))
            continue
        if name in subjects:
            first = subjects[name].annotation.relative_to(root)
            message = f"annotated twice; {first} is used, {where} is not"
            problems.append(Problem("refused", name, message, "A subject belongs to one split: remove one of the two."))
            continue
        if is_affwild(path) and not arousal_beside(path).is_file():
            message = f"{where} has no {arousal_beside(path).relative_to(root)} beside it"
            problems.append(Problem("missing", name, message, "Restore it from the Aff-Wild release."))
            continue
        video, side = _video_of(name, videos)
        if video is None:
            message = f"{where} has no video of that name"
            problems.append(Problem("missing", name, message, "Put the video below the data folder."))
            continue
        subjects[name] = Subject(name, video, split, path, side, found.boxes.get(name), found.crops.get(name))
    return list(subjects.values())


def _video_of(subject: str, videos: dict[str, Video]) -> tuple[str | None, Side | None]:
    if subject in videos:
        return subject, None
    for side in SIDES:
        video = subject.removesuffix(f"_{side}")
        if video != subject and video in videos:
            return video, side
    return None, None
