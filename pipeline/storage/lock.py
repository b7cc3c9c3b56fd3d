"""Locks a folder with flock(2), so that only one run at a time uses it. The lock ends with its process.

The lock file is `.lock`. It describes its process as JSON and is removed when the lock is released. A `.lock` file of a
killed process does not lock. `filelock` is not used because it empties the file: an error could not name the process.
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
def lock_folder(folder: Path, *, shared: bool = False, wait: bool = False, name: str = NAME) -> Iterator[bool]:
    """Holds the lock of the folder during the block. Yields False if the file system does not support locks.

    shared: take a shared lock instead of an exclusive one. wait: wait until the lock is free. Raises InUseError, which
    names the process, if another process has the lock, and WorkError if the folder cannot be written.
    """
    path = folder / name
    mode = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
    try:
        handle = _acquire(path, mode)
    except BlockingIOError as error:
        raise InUseError(
            f"{folder} is in use by {_read_owner(path)}", "Wait until it ends, or use another folder."
        ) from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise WorkError(f"{folder} cannot be written ({error.strerror})", "Choose another folder.") from error
        handle = None
    if handle is None:
        yield False
        return
    try:
        _write_owner(handle)
        yield True
    finally:
        _release(path, handle, shared)


def _acquire(path: Path, mode: int) -> int:
    """Opens and locks the file that is currently at `path`. Returns its descriptor. Raises BlockingIOError, OSError."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(handle, mode)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), path.stat()):
                    return handle
        except BaseException as error:
            os.close(handle)
            if isinstance(error, OSError) and error.errno in _NO_LOCKS:
                with contextlib.suppress(OSError):
                    path.unlink()  # a lock file without a lock
            raise
        os.close(handle)  # The other process released the lock and removed the file between open and flock.


def _release(path: Path, handle: int, shared: bool) -> None:
    # Remove the file before releasing, or another process's lock file is removed. Shared: only the last process does.
    with contextlib.suppress(OSError):
        if shared:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    os.close(handle)


def _write_owner(handle: int) -> None:
    arguments = [Path(sys.argv[0]).name, *sys.argv[1:]]
    facts = {"pid": os.getpid(), "host": socket.gethostname(), "command": " ".join(arguments), "since": time.time()}
    with contextlib.suppress(OSError):  # On a full disk, the lock is still valid.
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(facts).encode(), 0)


def _read_owner(path: Path) -> str:
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        since = time.strftime("%H:%M on %Y-%m-%d", time.localtime(facts["since"]))
        command = "".join(letter if letter.isprintable() else "?" for letter in facts["command"])[:200]
        return f"process {facts['pid']} on {facts['host']} since {since}: {command}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
