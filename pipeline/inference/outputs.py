"""Input videos and output files of a command: finds the videos, names their outputs, records what was written."""

import contextlib
import glob
import hashlib
import json
import os
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
from ..names import NAME_BYTES, name_bytes, shorten_name
from ..records import Problem
from ..storage.atomic import unwritable, write_text
from ..storage.lock import lock_folder

PLOT, OVERLAY, FACTS = ".png", ".overlay.mp4", ".facts.json"
SUFFIXES = (
    ".csv", ".clips.csv", ".json", ".clips.json", ".parquet", ".clips.parquet", PLOT, OVERLAY, FACTS,
)  # fmt: skip
"""Of all files that predict may write for a video. FACTS is written last: it records what the others were made from."""
MAX_SUFFIX_BYTES = max(len(suffix) for suffix in SUFFIXES)


@dataclass(frozen=True)
class Recorded:
    """The content of <name>.facts.json.

    base: path without suffix. key: fingerprint of video, model and settings. source: the video. suffixes: the files
    made with this key. environment: versions and device that computed them.
    """

    base: Path
    key: str
    source: Path
    facts: dict[str, Any]
    suffixes: tuple[str, ...]
    environment: dict[str, Any] = field(default_factory=dict)

    def has(self, suffixes: Sequence[str]) -> bool:
        """Whether files with all these suffixes are recorded and exist."""
        return all(suffix in self.suffixes and _with(self.base, suffix).is_file() for suffix in suffixes)

    def save(self) -> None:
        """Writes the record. Raises WorkError."""
        record: dict[str, Any] = {
            "fingerprint": self.key,
            "source": str(self.source),
            "facts": self.facts,
            "files": self.suffixes,
            "environment": self.environment,
        }
        write_text(_with(self.base, FACTS), json.dumps(record, indent=1) + "\n", "another --out")


def recorded(out: Path, name: str) -> Recorded | None:
    """The record of the outputs with this name in `out`, or None if there is no valid record."""
    try:
        record = json.loads((out / f"{name}{FACTS}").read_text(encoding="utf-8"))
        suffixes = tuple(it for it in record.get("files", (".csv", ".clips.csv", PLOT)) if it in SUFFIXES)
        return Recorded(
            out / name,
            str(record["fingerprint"]),
            Path(record["source"]),
            dict(record["facts"]),
            suffixes,
            dict(record.get("environment", {})),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def remove_others(out: Path, name: str, known: Recorded | None, keep: Sequence[str], *, mark: bool = False) -> None:
    """Removes the recorded files of an earlier run, except `keep`, so that nobody takes them for results of this run.

    mark: remove the record too. Without a record (known=None), no file is removed.
    """
    if known is not None:
        for suffix in (*known.suffixes, *([FACTS] if mark else [])):
            if suffix not in keep:
                (out / f"{name}{suffix}").unlink(missing_ok=True)


@contextlib.contextmanager
def claimed(out: Path, name: str, path: Path, *, wait: bool) -> Iterator[str]:
    """Locks the output name of a video: until the block ends, no other process writes files with this name.

    Yields the name, or a new one if another video has taken the name in the meantime.

    wait: whether to wait for another process that holds the lock. Raises InUseError if one holds it and `wait` is
    false, and WorkError if `out` is not writable.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(out, error, "another --out") from error
    while True:
        with lock_folder(out, name=_lock_name(name), wait=wait):
            known = recorded(out, name)
            if known is None or known.source == path.resolve() or not exists(known.source):
                yield name
                return
        name = output_names([path], out)[0][0]


def find_videos(named: Sequence[Path]) -> tuple[list[Path], list[Problem]]:
    """The videos of files, folders and glob patterns, each once, and a problem for each file that is left out.

    Problems of kind "note" are not faults: a second name of a listed video, or a preview copy.
    """
    files: dict[Path, Path] = {}
    problems: list[Problem] = []
    for path in named:
        own: list[Problem] = []
        found = _videos_of(path, own)
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
    return list(files.values()), problems


def _videos_of(path: Path, problems: list[Problem]) -> list[Path]:
    """The videos of one file, folder or glob pattern. Adds a problem for each file that is left out."""
    fault = fault_of(path)
    if fault is None:
        return [path]
    before = len(problems)
    message, remedy, kind = fault.message, fault.remedy, fault.kind
    if _is_folder(path):
        found = _videos_below(path, problems)
        message, remedy, kind = "the folder has no videos", "", "missing"
    elif matches := _matches(path):
        problems += _closed_folders(path)
        found = [file for match in matches for file in _videos_at(match, problems)]
        message = "no video matches"
    else:
        near = similar_file(path)
        if near is not None and composed(near.name) == composed(path.name) and fault_of(near) is None:
            return [near]  # the same name in another Unicode normal form
        found = []
        if glob.has_magic(str(path)) and url_of(path) is None:
            message = "no video matches"
            problems += _closed_folders(path)
    if not found and all(problem.kind == "note" for problem in problems[before:]):
        remedy = remedy or f"Give a video, or a folder of {suffixes_in_words()}."
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


def _videos_at(path: Path, problems: list[Problem]) -> list[Path]:
    """The videos of one match of a pattern, which is a file or a folder."""
    if is_litter(path.name):
        return []
    if _is_folder(path):
        return _videos_below(path, problems)
    fault = fault_of(path)
    if fault is None:
        return [path] if _is_input_video(path, problems) else []
    if path.suffix.lower() in VIDEO_SUFFIXES or not path.suffix:
        problems.append(fault)
    return []


def _videos_below(folder: Path, problems: list[Problem]) -> list[Path]:
    files = [file for file in walk(folder, VIDEO_SUFFIXES, problems.append) if _is_input_video(file, problems)]
    return sorted(files, key=lambda file: (file.with_suffix(""), rank(file), file))


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


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False  # no permission for the parent folder


def output_names(files: Sequence[Path], out: Path | None = None) -> list[tuple[str, Path]]:
    """(output name, video) for each video. The name is the stem, or <stem>-2, -3, … if another video has that name.

    A video keeps the name of its earlier outputs in `out`, whatever the order of `files`. Names of other videos that
    still exist are taken. Names that differ only in case count as equal, because some file systems ignore case. A stem
    that is too long for the suffixes is shortened and ends in a digest.
    """
    recorded_sources = _sources(out) if out else {}
    known = {source: name for name, source in recorded_sources.items()}
    taken = {_normalized(name) for name, source in recorded_sources.items() if exists(source)}
    named: dict[Path, str] = {}
    for path in files:
        if path.resolve() in known:
            named[path] = known[path.resolve()]
    taken |= {_normalized(name) for name in named.values()}
    limit = name_bytes(out) if out else NAME_BYTES
    for path in files:
        name, count = named.get(path) or shorten_name(path.stem, MAX_SUFFIX_BYTES, limit), 1
        while path not in named and any(_clash(name, other) for other in taken):
            count += 1
            name = f"{shorten_name(path.stem, MAX_SUFFIX_BYTES + len(f'-{count}'), limit)}-{count}"
        taken.add(_normalized(name))
        named[path] = name
    return [(named[path], path) for path in files]


def exists(path: Path) -> bool:
    """Whether the path exists. True also if it cannot be checked, for example without permission for its folder."""
    try:
        return path.exists()
    except OSError:
        return True


def _lock_name(name: str) -> str:
    # A digest has a fixed length, so names of the maximum length work too.
    return f".{hashlib.sha256(os.fsencode(_normalized(name))).hexdigest()[:20]}.lock"


def _normalized(name: str) -> str:
    """The name without differences that some file systems ignore: case, and the Unicode normal form."""
    return unicodedata.normalize("NFC", name.casefold())


def _clash(name: str, other: str) -> bool:
    """Whether two names share an output file. `x` and `x.clips` do: x.clips.csv. other: a normalized name."""
    return bool({f"{_normalized(name)}{it}" for it in SUFFIXES} & {f"{other}{it}" for it in SUFFIXES})


def _sources(out: Path) -> dict[str, Path]:
    """The video of each recorded name in `out`."""
    found = {}
    for path in sorted(out.glob(f"*{FACTS}")):
        try:
            found[path.name.removesuffix(FACTS)] = Path(json.loads(path.read_text(encoding="utf-8"))["source"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found


def _with(base: Path, suffix: str) -> Path:
    return base.with_name(f"{base.name}{suffix}")
