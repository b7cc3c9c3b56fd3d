"""Input files of a command: finds the videos and pictures of files, folders and glob patterns."""

import glob
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..ingest.pictures import is_picture
from ..ingest.walk import (
    SECONDARY_SUFFIXES,
    VIDEO_SUFFIXES,
    closed,
    composed,
    fault_of,
    holds_video,
    is_litter,
    is_video,
    rank,
    similar_file,
    suffixes_in_words,
    url_of,
    walk,
)
from ..records import Problem
from .outputs import FACTS, OVERLAY, PICTURE_OVERLAY, PLOT


@dataclass(frozen=True)
class Picture:
    """A picture to read. name: its path in the folder that was given, or the name of the file that was given."""

    name: str
    path: Path


@dataclass(frozen=True)
class Inputs:
    """Each video and each picture once, and a problem for each file that is left out.

    Problems of kind "note" are not faults: a second name of a listed video, a preview copy, or pictures beside videos.
    """

    videos: list[Path]
    pictures: list[Picture]
    problems: list[Problem]


def find_videos(named: Sequence[Path]) -> tuple[list[Path], list[Problem]]:
    """The videos of files, folders and glob patterns, each once, and a problem for each file that is left out.

    Problems of kind "note" are not faults: a second name of a listed video, or a preview copy.
    """
    inputs = _find(named, pictures=False)
    return inputs.videos, inputs.problems


def find_inputs(named: Sequence[Path]) -> Inputs:
    """The videos and pictures of files, folders and glob patterns.

    Of a folder or pattern, the pictures are used only if it has no video: next to videos, they are usually thumbnails
    or extracted frames. If two pictures have the same name, both get their path as it was given.
    """
    return _find(named, pictures=True)


def _find(named: Sequence[Path], *, pictures: bool) -> Inputs:
    files: dict[Path, Path] = {}
    images: dict[Path, Picture] = {}
    problems: list[Problem] = []
    for path in named:
        own: list[Problem] = []
        beside: list[Picture] | None = [] if pictures else None
        found = _videos_of(path, own, beside)
        if beside is not None:
            by_name = [file for file in found if is_picture(file)]
            found = [file for file in found if not is_picture(file)]
            if found and beside:
                message = f"{len(beside)} picture{'s' * (len(beside) > 1)} skipped, because the folder has videos"
                own.append(Problem("note", str(path), message, "To use them, name them, or a folder without videos."))
                beside = []
            for picture in (*(Picture(file.name, file) for file in by_name), *beside):
                images.setdefault(picture.path.absolute(), picture)
        for file in found:
            key = file.resolve()
            first, other = files.setdefault(key, file), file
            if first.is_symlink() and not file.is_symlink():
                files[key], first, other = file, file, first  # prefer the file to a link to it
            # The same path, found through two arguments, needs no note.
            if first.absolute() != other.absolute() and (first.is_symlink() or other.is_symlink()):
                message = f"the same file as {first}: both have one result"
                own.append(Problem("note", str(other), message))
        problems += [problem for problem in dict.fromkeys(own) if problem not in problems]
    count = Counter(picture.name for picture in images.values())
    named_once = [it if count[it.name] == 1 else replace(it, name=str(it.path)) for it in images.values()]
    return Inputs(list(files.values()), named_once, problems)


def _videos_of(path: Path, problems: list[Problem], pictures: list[Picture] | None) -> list[Path]:
    """The file itself, or the videos of a folder or glob pattern. Adds a problem for each file that is left out.

    pictures: gets the pictures of the folder or pattern, unless it is None.
    """
    fault = fault_of(path)
    if fault is None:
        return [path]
    before = len(problems)
    sought = "video" if pictures is None else "video or picture"
    message, remedy, kind = fault.message, fault.remedy, fault.kind
    if _is_folder(path):
        found = _videos_below(path, problems, pictures)
        message, remedy, kind = f"the folder has no {sought}s", "", "missing"
    elif matches := _matches(path):
        problems += _closed_folders(path)
        found = [file for match in matches for file in _videos_at(match, problems, pictures)]
        message = f"no {sought} matches"
    else:
        near = similar_file(path)
        if near is not None and composed(near.name) == composed(path.name) and fault_of(near) is None:
            return [near]  # the same name in another Unicode normal form
        found = []
        if glob.has_magic(str(path)) and url_of(path) is None:
            message = f"no {sought} matches"
            problems += _closed_folders(path)
    if not found and not pictures and all(problem.kind == "note" for problem in problems[before:]):
        allowed = "a video, a picture or a folder"
        if pictures is None:
            allowed = f"a video, or a folder of {suffixes_in_words()}"
        remedy = remedy or f"Give {allowed}."
        problems.append(Problem(kind, fault.name, message, remedy))
    return found


def _matches(pattern: Path) -> list[Path]:
    """The paths that match a glob pattern; empty if the path is not a pattern."""
    if not glob.has_magic(str(pattern)):
        return []
    # Path.glob does not accept absolute patterns.
    return sorted(Path(match) for match in glob.glob(str(pattern), recursive=True))  # noqa: PTH207


def _closed_folders(pattern: Path) -> list[Problem]:
    """A problem for each unreadable folder that the pattern would search. glob skips them silently."""
    named = [parent for parent in pattern.parents if glob.has_magic(str(parent))]
    fixed = next(parent for parent in pattern.parents if not glob.has_magic(str(parent)))
    folders = {fixed, *(match for parent in named for match in _matches(parent) if _is_folder(match))}
    return [problem for folder in sorted(folders) if (problem := closed(folder)) is not None]


def _videos_at(path: Path, problems: list[Problem], pictures: list[Picture] | None) -> list[Path]:
    """The videos of one match of a pattern, which is a file or a folder."""
    if is_litter(path.name):
        return []
    if _is_folder(path):
        return _videos_below(path, problems, pictures)
    fault = fault_of(path)
    if fault is None:
        if pictures is not None and _is_input_picture(path):
            pictures.append(Picture(path.name, path))
        return [path] if _is_input_video(path, problems) else []
    if path.suffix.lower() in VIDEO_SUFFIXES or not path.suffix:
        problems.append(fault)
    return []


def _videos_below(folder: Path, problems: list[Problem], pictures: list[Picture] | None) -> list[Path]:
    files = list(walk(folder, VIDEO_SUFFIXES, problems.append))
    if pictures is not None:
        found = [file for file in files if _is_input_picture(file)]
        pictures += [Picture(file.relative_to(folder).as_posix(), file) for file in found]
    videos = [file for file in files if _is_input_video(file, problems)]
    return sorted(videos, key=lambda file: (file.with_suffix(""), rank(file), file))


def _is_input_video(file: Path, problems: list[Problem]) -> bool:
    """Whether a file that was found in a folder is a video to read. Overlays that predict wrote are not."""
    if is_video(file):
        if not file.name.endswith(OVERLAY):
            return True
        base = file.name.removesuffix(OVERLAY)
        origins = (FACTS, *(suffix for known in VIDEO_SUFFIXES for suffix in (known, known.upper())))
        if not any(file.with_name(f"{base}{suffix}").exists() for suffix in origins):
            message = "skipped, because its name ends like an overlay of `affect predict`"
            problems.append(Problem("note", str(file), message, "To read it, give the path of the file."))
    elif holds_video(file):
        suffix = file.suffix.lower()
        if suffix in SECONDARY_SUFFIXES:
            message = f"skipped: {suffix} is the suffix of previews, backups and unfinished downloads"
            problems.append(Problem("note", str(file), message))
        else:
            message = f"is a video, but {f'{file.suffix} is not a known suffix' if suffix else 'has no suffix'}"
            remedy = f"Rename it, or give the path of the file. Known suffixes: {suffixes_in_words()}."
            problems.append(Problem("refused", str(file), message, remedy))
    return False


def _is_input_picture(file: Path) -> bool:
    """Whether a file that was found in a folder is a picture to read. Plots and overlays that predict wrote are not."""
    if not is_picture(file) or file.name.endswith(PICTURE_OVERLAY):
        return False
    return not (file.suffix == PLOT and file.with_suffix(FACTS).exists())


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False  # no permission for the parent folder
