"""Pairs the videos, annotations, boxes and crops of a data folder by name."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from ..errors import CatalogError
from ..records import Catalog, Problem, Split, Subject, Video
from .annotations import HEADER, annotation_files, holds_labels, resembles_labels
from .found_files import FoundFiles, find_files, split_of
from .video_names import SIDES, SimilarVideos, video_of
from .walk import blurred, composed, rank, suffixes_in_words

OTHER_TASKS = frozenset({"expr", "expression", "expressions", "au", "aus", "mtl"})
"""Words in a path that identify annotations of expressions or action units."""
OTHER_TASK_HEADER = re.compile(r"neutral|AU ?[0-9]|image", re.IGNORECASE)


def find_catalog(root: Path) -> Catalog:
    """Finds the videos and subjects below `root`, in a fixed order.

    Raises CatalogError if there is no folder, no video or no annotation. Other faults are in `problems`.
    """
    if not root.is_dir():
        raise CatalogError(f"{root} is not a folder", "Give the folder with the videos and annotations: --data DIR.")
    found = find_files(root)
    named = {composed(path.stem) for path in found.videos}
    chosen = list(_annotations(root, found, named))
    if not found.videos or not chosen:
        raise CatalogError(
            f"{root} contains {len(found.videos)} videos and {len(chosen)} valence-arousal annotations",
            _what_is_needed(root, found, chosen),
        )
    problems = found.problems
    videos = _videos(root, found.videos, problems)
    subjects = _subjects(root, chosen, videos, found, problems)
    problems += _unused(root, found, subjects)
    annotated = {subject.video for subject in subjects}
    problems += [
        Problem("note", name, "has no annotation: not used for training or evaluation")
        for name in videos
        if name not in annotated
    ]
    return Catalog(root, tuple(videos.values()), tuple(subjects), tuple(problems))


def _annotations(root: Path, found: FoundFiles, videos: set[str]) -> Iterator[tuple[Path, Split | None]]:
    """The valence-arousal annotations, each with its split, or with None if it is in no folder of a split.

    If its format has a folder of the split, this folder decides. Other annotations must be in a folder named after the
    task. Only if there is no such folder, files in Train_Set and the like count, unless their header belongs to another
    task. videos: names of the videos. A text file without labels that has no video of its name, such as a README, is
    left out with a note.
    """
    bare: list[tuple[Path, Split | None]] = []
    marked = False
    for path, annotation_format in found.annotations:
        folders = path.relative_to(root).parts[-2::-1]
        split = split_of(path.parent.name)
        task = _task_of(folders)
        split_folder = annotation_format.split_folder
        has_video = _has_video(path.stem, videos)
        if split_folder is not None:
            split = split_of(split_folder(path).name)
            is_va = split is not None
        elif task == "va":
            is_va = split is not None or _first_line(path) == HEADER
        else:
            is_va = task is None and split is not None and path.parent.name.lower().endswith("set")
        if not is_va:
            if task is None and has_video and _first_line(path) == HEADER:
                found.strays.append(path)
        elif not has_video and not resembles_labels(_first_line(path)):
            message = "has no labels and no video of this name: not used"
            if task == "va" or split_folder is not None or not OTHER_TASK_HEADER.match(_first_line(path)):
                found.problems.append(Problem("note", path.relative_to(root).as_posix(), message))
        elif split_folder is not None:
            yield path, split
        elif task == "va":
            marked = True
            yield path, next((known for known in map(split_of, folders) if known), None)
        else:
            bare.append((path, split))
    if not marked:
        yield from (pair for pair in bare if not OTHER_TASK_HEADER.match(_first_line(pair[0])))
    else:
        found.strays += [path for path, _ in bare if _first_line(path) == HEADER]


def _has_video(subject: str, videos: set[str]) -> bool:
    name = composed(subject)
    return name in videos or any(name.removesuffix(f"_{side}") in videos for side in SIDES)


def _task_of(folders: tuple[str, ...]) -> Literal["va", "other"] | None:
    """The task in the name of the nearest folder. A folder that names several tasks is skipped."""
    for folder in folders:
        words = set(re.split(r"[^a-z]+", folder.lower()))
        if ("va" in words) != bool(words & OTHER_TASKS):
            return "va" if "va" in words else "other"
    return None


def _first_line(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.readline(200).decode("utf-8-sig", errors="replace").strip()
    except OSError:
        return ""  # the error is reported when the file is read


def _videos(root: Path, paths: list[Path], problems: list[Problem]) -> dict[str, Video]:
    videos: dict[str, Video] = {}
    for path in sorted(paths, key=lambda path: (path.stem, rank(path), path.relative_to(root).as_posix())):
        name = composed(path.stem)
        first = videos.setdefault(name, Video(name, path))
        if first.path != path:
            problems.append(
                Problem(
                    "note",
                    name,
                    f"two videos have this name; {first.path.relative_to(root)} is used, "
                    f"{path.relative_to(root)} is not",
                    "Remove one of them.",
                )
            )
    return videos


def _subjects(
    root: Path,
    chosen: list[tuple[Path, Split | None]],
    videos: dict[str, Video],
    found: FoundFiles,
    problems: list[Problem],
) -> list[Subject]:
    subjects: dict[str, Subject] = {}
    similar = SimilarVideos(root, videos, found.others)
    order: tuple[Split, ...] = ("train", "validation", "test")
    for path, split in sorted(chosen, key=lambda pair: (order.index(pair[1]) if pair[1] else 3, pair[0].as_posix())):
        name, where = composed(path.stem), path.relative_to(root)
        if split is None:
            message = f"{where} is not in a split folder"
            problems.append(Problem("refused", name, message, "Move it to Train_Set, Validation_Set or Test_Set."))
            continue
        if name in subjects:
            first = subjects[name].annotation.relative_to(root)
            message = f"annotated twice; {first} is used, {where} is not"
            problems.append(
                Problem("refused", name, message, "A subject belongs to one split: remove one of the files.")
            )
            continue
        absent = [file for file in annotation_files(path) if not file.is_file()]
        if absent:
            message = f"{where} needs {absent[0].relative_to(root)}, which does not exist"
            problems.append(Problem("missing", name, message, "Add the file."))
            continue
        video, side = video_of(name, videos)
        if video is None:
            near, remedy = similar.suggestion(name)
            problems.append(Problem("missing", name, f"{where} has no video with this name{near}", remedy))
            continue
        subjects[name] = Subject(name, video, split, path, side, found.boxes.get(name), found.crops.get(name))
    return list(subjects.values())


def _unused(root: Path, found: FoundFiles, subjects: list[Subject]) -> Iterator[Problem]:
    """Files that probably belong to a subject, but have another name or are in another folder."""
    names = {subject.name for subject in subjects}
    for kind, folder in (("boxes", found.boxes), ("crops", found.crops)):
        bare = {blurred(subject.name): subject.name for subject in subjects if subject.name not in folder}
        for name, path in folder.items():
            if name not in names and blurred(name) in bare:
                meant = bare[blurred(name)]
                message = f"{path.relative_to(root)} has {kind} of an unknown subject; the annotation is named {meant}"
                yield Problem("note", meant, message, "Rename one of them.")
    for path in found.tables:
        if composed(path.stem) not in names and holds_labels(_first_line(path)):
            message = f"{path.relative_to(root)} has labels, but is not a .txt file: not used"
            yield Problem("refused", composed(path.stem), message, f"Rename it to {path.stem}.txt.")
    videos = {composed(path.stem) for path in found.videos}
    for path in found.strays:
        message = f"{path.relative_to(root)} has labels, but is not in a folder of annotations: not used"
        remedy = "Move it to the other annotations, or remove it."
        if composed(path.stem) not in names and _has_video(path.stem, videos):
            yield Problem("note", composed(path.stem), message, remedy)


def _what_is_needed(root: Path, found: FoundFiles, chosen: list[tuple[Path, Split | None]]) -> str:
    """The remedy if a data folder has no videos or no annotations."""
    if not chosen:
        tables = [path for path in found.tables if holds_labels(_first_line(path))]
        if tables:
            return (
                f"{tables[0].relative_to(root)} has labels, but is not a .txt file: rename such files to <subject>.txt."
            )
        if found.strays:
            where = found.strays[0].relative_to(root)
            return f"{where} has labels: move such files to Train_Set, Validation_Set or Test_Set."
    elif found.others:
        where = found.others[0].relative_to(root)
        return f"{where} has no known video suffix: rename or convert it. Known suffixes: {suffixes_in_words()}."
    return (
        f"It needs videos ({suffixes_in_words()}) in any folder, and annotations in Train_Set/<subject>.txt and "
        f"Validation_Set/<subject>.txt, with the line {HEADER} and then a row per frame."
    )
