"""One run at a time in a folder, by a lock of the system's that ends with the process that holds it.

`filelock` empties the file it locks, so it could not tell who holds it; hence flock(2), here, for a folder on Linux or
macOS. The lock file is `.lock`, holds the holder as JSON, and goes when the lock is given back; one that a killed
process left is no lock.
"""

import contextlib
import errno
import fcntl
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from ..errors import InUseError, WorkError

NAME = ".lock"

_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


@contextlib.contextmanager
def hold(folder: Path, *, shared: bool = False, wait: bool = False, name: str = NAME) -> Iterator[bool]:
    """Holds the folder's lock for the length of the block; yields False where its file system has none.

    shared: beside others that share it, but not beside one that does not. wait: until it is free. Raises InUseError
    where another process holds it, naming that process, and WorkError where the folder cannot be written.
    """
    path = folder / name
    kind = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
    try:
        handle = _acquire(path, kind)
    except BlockingIOError as error:
        raise InUseError(
            f"{folder} is in use by {_holder(path)}", "Wait until that has ended, or use another folder."
        ) from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise WorkError(f"{folder} cannot be written ({error.strerror})", "Choose another folder.") from error
        handle = None
    if handle is None:
        yield False
        return
    try:
        _sign(handle)
        yield True
    finally:
        _give_back(path, handle, shared)


def _acquire(path: Path, kind: int) -> int:
    """A handle that holds the lock of the file that is at `path` now. Raises BlockingIOError, OSError."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(handle, kind)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), path.stat()):
                    return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # Its holder gave it back, and removed the file, between the two.


def _give_back(path: Path, handle: int, shared: bool) -> None:
    # Removed while it is held, or another's lock would be removed; shared, only by the last one.
    with contextlib.suppress(OSError):
        if shared:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    os.close(handle)


def _sign(handle: int) -> None:
    words = [Path(sys.argv[0]).name, *sys.argv[1:]]
    facts = {"pid": os.getpid(), "host": socket.gethostname(), "command": " ".join(words), "since": time.time()}
    with contextlib.suppress(OSError):  # A full disk: the lock holds all the same.
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(facts).encode(), 0)


def _holder(path: Path) -> str:
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        since = time.strftime("%H:%M on %Y-%m-%d", time.localtime(facts["since"]))
        command = "".join(letter if letter.isprintable() else "?" for letter in facts["command"])[:200]
        return f"process {facts['pid']} on {facts['host']} since {since}: {command}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
