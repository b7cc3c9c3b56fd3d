"""Shards that a reader found damaged, marked so that nobody uses them and their stage makes them anew.

To read every shard through before each run would take as long as reading the whole set. So whoever comes upon the
damage leaves `.<name>.damaged` beside the shard, which holds the size and time of the file it speaks of: a shard that
was made anew is not meant.
"""

import contextlib
from pathlib import Path


def mark(path: Path) -> None:
    """Says that the shard that is now at `path` is damaged; where nothing can be written, it is found again instead."""
    with contextlib.suppress(OSError):
        _beside(path).write_text(_which(path), encoding="utf-8")


def is_marked(path: Path) -> bool:
    """Whether the shard that is now at `path` was found damaged."""
    try:
        return _beside(path).read_text(encoding="utf-8") == _which(path)
    except (OSError, ValueError):
        return False


def forget(path: Path) -> None:
    """Takes the mark away: the shard was made anew, or removed."""
    with contextlib.suppress(OSError):
        _beside(path).unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.damaged")


def _which(path: Path) -> str:
    facts = path.stat()
    return f"{facts.st_size} {facts.st_mtime_ns}\n"
