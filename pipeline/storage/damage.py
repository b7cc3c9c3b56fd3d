"""Shards that a reader found damaged, marked so that nobody uses them and their stage makes them anew.

To read every shard through before each run would take as long as reading the whole set. So whoever comes upon the
damage leaves `.<name>.damaged` beside the shard, which holds the size and time of the file it speaks of: a shard that
was made anew is not meant.
"""

import contextlib
from pathlib import Path


def which(path: Path) -> str:
    """What tells the file that is now at `path` from others that were or will be there. Raises OSError."""
    facts = path.stat()
    return f"{facts.st_size} {facts.st_mtime_ns}\n"


def mark(path: Path, file: str) -> None:
    """Says that the shard at `path` is damaged, if it is still that file; where nothing can be written, it is found out
    again."""
    with contextlib.suppress(OSError):
        _beside(path).write_text(file, encoding="utf-8")


def is_marked(path: Path) -> bool:
    """Whether the shard that is now at `path` was found damaged."""
    try:
        return _beside(path).read_text(encoding="utf-8") == which(path)
    except (OSError, ValueError):
        return False


def forget(path: Path) -> None:
    """Takes the mark away: the shard was made anew, or removed."""
    with contextlib.suppress(OSError):
        _beside(path).unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.damaged")
