"""What predict reads and leaves, by name: which videos are meant, what their files are called, which are there."""

import contextlib
import glob
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import WorkError
from ..ingest.catalog import VIDEO_SUFFIXES
from ..records import Problem
from ..storage.lock import hold
from .runs import write_text

PLOT, OVERLAY, FACTS = ".png", ".overlay.mp4", ".facts.json"
SUFFIXES = (
    ".csv", ".clips.csv", ".json", ".clips.json", ".parquet", ".clips.parquet", PLOT, OVERLAY, FACTS,
)  # fmt: skip
"""Of what a video may leave. The last is written last: it says what the others were made from."""


@dataclass(frozen=True)
class Recorded:
    """What <name>.facts.json says. base: the path without suffix. suffixes: of the files made from the same `key`.
    environment: what they were computed with."""

    base: Path
    key: str
    source: Path
    facts: dict[str, Any]
    suffixes: tuple[str, ...]
    environment: dict[str, Any] = field(default_factory=dict)

    def has(self, wanted: Sequence[str]) -> bool:
        """Whether all of these are there."""
        return all(suffix in self.suffixes and _with(self.base, suffix).is_file() for suffix in wanted)

    def save(self) -> None:
        """Raises WorkError."""
        told: dict[str, Any] = {
            "fingerprint": self.key,
            "source": str(self.source),
            "facts": self.facts,
            "files": self.suffixes,
        }
        told["environment"] = self.environment
        try:
            write_text(_with(self.base, FACTS), json.dumps(told, indent=1) + "\n")
        except WorkError as error:
            raise WorkError(error.problem, "Free space, or choose another --out.") from error


def recorded(out: Path, name: str) -> Recorded | None:
    """What is known of the files of that name in `out`; None where they are not ours."""
    try:
        told = json.loads((out / f"{name}{FACTS}").read_text(encoding="utf-8"))
        suffixes = tuple(it for it in told.get("files", (".csv", ".clips.csv", PLOT)) if it in SUFFIXES)
        return Recorded(
            out / name,
            str(told["fingerprint"]),
            Path(told["source"]),
            dict(told["facts"]),
            suffixes,
            dict(told.get("environment", {})),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def remove_others(out: Path, name: str, known: Recorded | None, keep: Sequence[str], *, mark: bool = False) -> None:
    """Removes what an earlier run left, but for `keep`: it would pass for the result of this one. mark: its facts too.
    Without a record nothing is ours."""
    if known is not None:
        for suffix in (*known.suffixes, *([FACTS] if mark else [])):
            if suffix not in keep:
                (out / f"{name}{suffix}").unlink(missing_ok=True)


@contextlib.contextmanager
def claimed(out: Path, name: str, path: Path, *, wait: bool) -> Iterator[str]:
    """Holds the name under which a video's files go: no other process writes files of that name until the block ends.
    Yields another name where that one went to another video meanwhile.

    wait: where another process holds it, until it is done. Raises InUseError where it does and `wait` is false, and
    WorkError where `out` cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WorkError(f"{out}: cannot be written ({error.strerror})", "Choose another --out.") from error
    while True:
        with hold(out, name=f".{_key(name)}.lock", wait=wait):
            known = recorded(out, name)
            if known is None or known.source == path.resolve() or not known.source.exists():
                yield name
                return
        name = output_names([path], out)[0][0]


def find_videos(named: Sequence[Path]) -> tuple[list[Path], list[Problem]]:
    """The videos that files, folders and glob patterns stand for, each once, and what stands for none."""
    files: dict[Path, Path] = {}
    problems: list[Problem] = []
    for path in named:
        if path.is_file():
            found, message = [path], ""
        elif path.is_dir():
            below = (file for file in path.rglob("*") if not _hidden(file.relative_to(path)))
            found, message = sorted(_videos(below)), "a folder without a video"
        else:
            # Path.glob takes no absolute pattern.
            matches = sorted(Path(match) for match in glob.glob(str(path), recursive=True))  # noqa: PTH207
            found = list(_videos(matches))
            message = "no video matches" if glob.has_magic(str(path)) else "there is no such file"
        for file in found:
            files.setdefault(file.resolve(), file)
        if not found:
            known = ", ".join(sorted(VIDEO_SUFFIXES))
            problems.append(Problem("missing", str(path), message, f"Name a video, or a folder of {known}."))
    return list(files.values()), problems


def output_names(files: Sequence[Path], out: Path | None = None) -> list[tuple[str, Path]]:
    """A name for what each video leaves: its stem, or <stem>-2, -3, … where another video's would be overwritten.

    A video keeps the name that it has in `out` from an earlier time, in whatever order videos are given; names there of
    other videos that still exist are taken. Upper and lower case count as the same, as to some file systems they are.
    """
    before = _sources(out) if out else {}
    known = {source: name for name, source in before.items()}
    taken = {_key(name) for name, source in before.items() if source.exists()}
    named: dict[Path, str] = {}
    for path in files:
        if path.resolve() in known:
            named[path] = known[path.resolve()]
    taken |= {_key(name) for name in named.values()}
    for path in files:
        name, count = named.get(path, path.stem), 1
        while path not in named and any(_clash(name, key) for key in taken):
            count += 1
            name = f"{path.stem}-{count}"
        taken.add(_key(name))
        named[path] = name
    return [(named[path], path) for path in files]


def _key(name: str) -> str:
    return name.casefold()


def _clash(name: str, key: str) -> bool:
    """Whether two different names would write one file: `x` and `x.clips` both write x.clips.csv."""
    return bool({f"{_key(name)}{it}" for it in SUFFIXES} & {f"{key}{it}" for it in SUFFIXES})


def _sources(out: Path) -> dict[str, Path]:
    """Which video each name in `out` stands for, as far as its facts say so."""
    found = {}
    for path in sorted(out.glob(f"*{FACTS}")):
        try:
            found[path.name.removesuffix(FACTS)] = Path(json.loads(path.read_text(encoding="utf-8"))["source"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found


def _with(base: Path, suffix: str) -> Path:
    return base.with_name(f"{base.name}{suffix}")


def _videos(paths: Iterable[Path]) -> Iterator[Path]:
    """Those that are videos, and not what `--overlay` made of one."""
    for path in paths:
        ours = path.name.startswith(".") or path.name.endswith(OVERLAY)
        if path.suffix.lower() in VIDEO_SUFFIXES and not ours and path.is_file():
            yield path


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
