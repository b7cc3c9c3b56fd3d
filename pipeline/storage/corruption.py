"""Marks shards that a reader found damaged, so that no stage uses them and their stage makes them again.

Checking every shard before each run would take as long as reading the data set. Instead, the reader that finds the
damage writes `.<name>.damaged` next to the shard. The marker has the size and mtime of the damaged file, so it does not
apply to a new shard with that name.
"""

import contextlib
from pathlib import Path

from ..errors import WorkError
from ..names import name_bytes, shorten_name
from .atomic import write_text


def file_identity(path: Path) -> str:
    """Size and mtime of the file at `path`, which distinguish it from later versions. Raises OSError."""
    facts = path.stat()
    return f"{facts.st_size} {facts.st_mtime_ns}\n"


def mark_corrupt(path: Path, identity: str) -> None:
    """Marks the shard at `path` as damaged if it still has this identity. Does nothing if the folder is read-only."""
    with contextlib.suppress(WorkError):
        write_text(_marker(path), identity)


def is_corrupt(path: Path) -> bool:
    """Whether the current shard at `path` is marked as damaged."""
    try:
        return _marker(path).read_text(encoding="utf-8") == file_identity(path)
    except (OSError, ValueError):
        return False


def clear_mark(path: Path) -> None:
    """Removes the marker. Call it when the shard was made again or removed."""
    with contextlib.suppress(OSError):
        _marker(path).unlink(missing_ok=True)


def _marker(path: Path) -> Path:
    ending = ".damaged"
    return path.with_name(f".{shorten_name(path.name, 1 + len(ending), name_bytes(path.parent))}{ending}")
