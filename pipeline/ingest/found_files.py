"""Finds the files of a data folder of any release, and sorts them: videos, annotations, boxes, crops.

Folders with an image per frame are listed, but not entered.
"""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..records import Problem, Split
from .annotations import FORMATS, AnnotationFormat, format_of
from .walk import OTHER_SUFFIXES, VIDEO_SUFFIXES, composed, is_video, walk

SPLITS: dict[str, Split] = {
    "train": "train", "training": "train",
    "validation": "validation", "val": "validation", "valid": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip
CROPS = re.compile(r"cropped_aligned.*", re.IGNORECASE)
BATCH = re.compile(r"batch[ _-]?[0-9]+", re.IGNORECASE)
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, changes of writing direction, and bytes that are not valid UTF-8."""
PTS_FOLDERS = frozenset({"bboxes", "bboxs"})
WANTED = VIDEO_SUFFIXES | {known.suffix for known in FORMATS} | {".csv"}
"""Suffixes of videos, annotations and boxes: a file with one of these that cannot be read is a problem."""
TABLES = frozenset({"", ".csv", ".tsv", ".text", ".dat"})
"""Suffixes of files that may have labels, but are not read as annotations."""
NAME_REMEDY = "Rename it. If the name is UTF-8, you can use a UTF-8 locale instead (PYTHONUTF8=1)."


@dataclass
class FoundFiles:
    """Files and folders found in the data folder. boxes, crops: by name of the subject (NFC).

    tables: files that may have labels, but not the suffix .txt. others: files that may be videos with an unknown
    suffix. strays: files with labels in a folder where labels are not expected.
    """

    videos: list[Path] = field(default_factory=list)
    annotations: list[tuple[Path, AnnotationFormat]] = field(default_factory=list)
    tables: list[Path] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    strays: list[Path] = field(default_factory=list)
    boxes: dict[str, Path] = field(default_factory=dict)
    crops: dict[str, Path] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def split_of(folder: str) -> Split | None:
    """The split of a folder by its name: Train_Set, Training_Set, Validation_Set, Val_Set, Test_Set, train, …"""
    return SPLITS.get(re.sub(r"[^a-z]", "", folder.lower()).removesuffix("set"))


def find_files(root: Path) -> FoundFiles:
    """The files below `root`. Faults are in `problems`."""
    found = FoundFiles()

    def report(problem: Problem) -> None:
        found.problems.append(replace(problem, name=_shown(Path(problem.name), root)))

    def keep(path: Path, folder: bool) -> bool:
        return not _is_unprintable(path, found) and not (folder and _is_frame_folder(path, found))

    for path in walk(root, WANTED, report, keep):
        _sort_in(path, found)
    return found


def _shown(path: Path, root: Path) -> str:
    """A path for messages: relative to the data folder, with escapes for unprintable characters."""
    text = path.relative_to(root).as_posix()
    return text.encode("unicode_escape").decode() if UNPRINTABLE.search(text) else text


def _is_frame_folder(path: Path, found: FoundFiles) -> bool:
    """Whether a folder has a file per frame of a subject. Adds crops and boxes to `found`."""
    if path.name.lower() == "landmarks":
        return True
    name = composed(path.name)
    parents = [parent.name for parent in path.parents][:2]
    crops = parents[0] if not BATCH.fullmatch(parents[0]) else parents[-1]
    if CROPS.fullmatch(crops) and not BATCH.fullmatch(path.name):
        found.crops.setdefault(name, path)
        return True
    if len(parents) == 2 and parents[1].lower() in PTS_FOLDERS and split_of(parents[0]):
        found.boxes.setdefault(name, path)
        return True
    return False


def _is_unprintable(path: Path, found: FoundFiles) -> bool:
    """Whether a name has unprintable characters. Such files and folders are refused."""
    if not UNPRINTABLE.search(path.name):
        return False
    shown = path.name.encode("unicode_escape").decode()
    found.problems.append(Problem("refused", shown, "its name has unprintable characters", NAME_REMEDY))
    return True


def _sort_in(path: Path, found: FoundFiles) -> None:
    suffix = path.suffix.lower()
    if suffix in VIDEO_SUFFIXES:
        if is_video(path):
            found.videos.append(path)
    elif suffix == ".csv" and path.parent.name.lower() == "bounding_boxes":
        found.boxes[composed(path.stem)] = path  # takes precedence over the .pts files of Aff-Wild
    elif annotation_format := format_of(path):
        found.annotations.append((path, annotation_format))
    elif suffix in TABLES and split_of(path.parent.name):
        found.tables.append(path)
    elif suffix not in OTHER_SUFFIXES:
        found.others.append(path)
