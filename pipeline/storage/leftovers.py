"""What processes that were killed left behind: temporaries named `.<file>.<pid>.tmp`."""

import os
import re
from pathlib import Path

_LEFTOVER = re.compile(r"^\..+\.(\d+)\.tmp$")


def temporary_beside(path: Path) -> Path:
    """Where this process writes what is then moved to `path` whole."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


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
