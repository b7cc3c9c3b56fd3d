"""Files on their way: temporaries named `.<file>.<pid>.tmp`, and what processes that were killed left of them."""

import os
import re
from pathlib import Path

_LEFTOVER = re.compile(r"^\..+\.(\d+)\.tmp$")


def temporary_beside(path: Path) -> Path:
    """Where this process writes what is then moved to `path` whole."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def sync(path: Path) -> None:
    """Waits until a file, or the list of a folder, is on the disk. Raises OSError."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def leftovers(folder: Path) -> list[Path]:
    """The temporaries in a folder whose process is no longer alive."""
    found = []
    for path in sorted(folder.glob(".*.tmp")) if folder.is_dir() else ():
        match = _LEFTOVER.match(path.name)
        if match and not alive(int(match[1])):
            found.append(path)
    return found


def sweep(folder: Path) -> int:
    """Removes the temporaries that processes no longer alive left in a folder; returns how many."""
    found = leftovers(folder)
    for path in found:
        path.unlink(missing_ok=True)
    return len(found)


def alive(pid: int) -> bool:
    """Whether a process of that number runs on this machine."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
