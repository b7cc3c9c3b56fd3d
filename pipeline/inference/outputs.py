"""Output files of a command: chooses their names, and records what was written."""

import contextlib
import hashlib
import json
import os
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..names import NAME_BYTES, name_bytes, shorten_name
from ..storage.atomic import unwritable, write_text
from ..storage.lock import lock_folder

PLOT, OVERLAY, FACTS = ".png", ".overlay.mp4", ".facts.json"
PICTURE_OVERLAY = ".overlay.png"
SUFFIXES = (
    ".csv", ".clips.csv", ".json", ".clips.json", ".parquet", ".clips.parquet", PLOT, OVERLAY, FACTS,
)  # fmt: skip
"""Of all files that predict may write for a video. FACTS is written last: it records what the others were made from."""
MAX_SUFFIX_BYTES = max(len(suffix) for suffix in SUFFIXES)


@dataclass(frozen=True)
class PredictOptions:
    """What to predict and which files to write.

    emotions: also the backbone's eight classes. people: how many faces to follow in each video. format: of the tables,
    one of tables.FORMATS. plot: also <video>.png. overlay: also <video>.overlay.mp4 and <picture>.overlay.png.
    """

    emotions: bool = False
    people: int = 1
    format: str = "csv"
    plot: bool = True
    overlay: bool = False

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Suffixes of the files to write for each video, the two tables first."""
        tables = (f".{self.format}", f".clips.{self.format}")
        return (*tables, *([PLOT] if self.plot else []), *([OVERLAY] if self.overlay else []))


TABLES_AND_PLOT = PredictOptions()


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
