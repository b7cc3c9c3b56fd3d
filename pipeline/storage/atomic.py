"""Atomic writes: a file is written under a temporary name in the same folder, then renamed.

The temporary name is `.<file>.<host>.<pid>.tmp`. `sweep` removes temporary files of processes that were killed. The
first write of a process to a folder sweeps that folder. All code that writes files uses this module.
"""

import contextlib
import errno
import hashlib
import os
import re
import shutil
import socket
import stat
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from ..errors import WorkError
from ..names import name_bytes, shorten_name

MAX_IDLE_SECONDS = 24 * 3600.0
"""A temporary file of another host is stale after this time without a write: its process cannot be checked."""

# Earlier versions wrote names without a host, or with the suffix `.part`.
_TEMPORARY = re.compile(r"\.(?:[^/]+?)(?:\.(?P<host>[0-9a-f]{8}))?\.(?P<pid>\d+)\.(?:tmp|part)", re.DOTALL)
_NO_SYNC = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF, errno.EACCES)
_swept: set[tuple[int, Path]] = set()


class Replacement:
    """A new version of `path`: write to `temporary`, which is empty, then call `commit` or `discard`.

    A library may replace the temporary file. The result still has the mode of a new file (0666 without the umask). If
    `path` exists and is not a regular file, such as /dev/stdout or a pipe, `temporary` is `path` itself. Creates the
    folder if needed. Raises OSError.
    """

    def __init__(self, path: Path) -> None:
        self.path = self.temporary = path
        if path.exists() and not path.is_file() and not path.is_dir():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep_once(path.parent)
        temporary = temp_path(path)
        temporary.unlink(missing_ok=True)  # left by a killed process that had the same PID
        self._mode = _create(temporary)
        self.temporary = temporary

    def commit(self) -> None:
        """Syncs the temporary file to disk and renames it to `path`. Raises OSError."""
        if self.temporary == self.path:
            return
        if stat.S_IMODE(self.temporary.stat().st_mode) != self._mode:
            self.temporary.chmod(self._mode)
        sync(self.temporary)
        self.temporary.replace(self.path)
        sync(self.path.parent)

    def discard(self) -> None:
        """Removes the temporary file. Does nothing after `commit`."""
        if self.temporary != self.path:
            with contextlib.suppress(OSError):
                self.temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields an empty temporary file, which replaces `path` at the end of the block.

    If the block raises, `path` is unchanged and the temporary file is removed. Raises OSError.
    """
    file = Replacement(path)
    try:
        yield file.temporary
        file.commit()
    finally:
        file.discard()


@contextlib.contextmanager
def temporary_folder(parent: Path, name: str) -> Iterator[Path]:
    """Yields a temporary folder in `parent`. It is removed with its content at the end of the block. Raises OSError."""
    parent.mkdir(parents=True, exist_ok=True)
    _sweep_once(parent)
    folder = temp_path(parent / name)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_text(path: Path, text: str, alternative: str = "another --work") -> None:
    """Writes text as UTF-8, atomically. alternative: what the user can choose instead of this path. Raises WorkError.

    A byte of a file name that is not UTF-8 becomes an escape such as `\\udcff`, which a JSON parser restores.
    """
    write_bytes(path, text.encode("utf-8", errors="backslashreplace"), alternative)


def write_bytes(path: Path, data: bytes, alternative: str = "another --work") -> None:
    """Writes bytes, atomically. alternative: what the user can choose instead of this path. Raises WorkError."""
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        raise unwritable(path, error, alternative) from error


def unwritable(path: Path, error: Exception, alternative: str = "another --work") -> WorkError:
    """The error for a `path` that cannot be written, with a remedy for its cause.

    alternative: what the user can choose instead of this path, such as `another --work`.
    """
    reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
    remedy = f"Free space, or choose {alternative}."
    code = getattr(error, "errno", None)
    if code in (errno.EACCES, errno.EPERM):
        remedy = f"Ask the owner of {path.parent} for permission to write there, or choose {alternative}."
    elif code in (errno.EROFS, errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EBUSY, errno.ELOOP):
        remedy = f"Choose {alternative}."
    return WorkError(f"{path}: cannot be written ({reason})", remedy)


def temp_path(path: Path) -> Path:
    """The temporary path at which this process writes `path`. If it is too long, the name is cut and gets a digest."""
    ending = f".{_host()}.{os.getpid()}.tmp"
    return path.with_name(f".{shorten_name(path.name, 1 + len(ending), name_bytes(path.parent))}{ending}")


def sync(path: Path) -> None:
    """Syncs a file, or the entries of a folder, to disk if the file system supports it. Raises OSError."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError as error:
        if error.errno in _NO_SYNC:  # a umask without read permission, or a system that cannot open folders
            return
        raise
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(handle)


def leftovers(folder: Path) -> list[Path]:
    """The temporary files and folders in `folder` whose process has ended."""
    found = []
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208  (100,000 Path objects are slow)
    except OSError:
        return []
    for name in names:
        match = _TEMPORARY.fullmatch(name) if name.startswith(".") else None
        if match and _is_leftover(folder / name, match["host"], int(match["pid"])):
            found.append(folder / name)
    return found


def sweep(folder: Path) -> int:
    """Removes the leftovers in `folder`. Returns how many were removed."""
    count = 0
    for path in leftovers(folder):
        with contextlib.suppress(OSError):  # owned by another user, or removed by another process meanwhile
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
            count += 1
    return count


def alive(pid: int) -> bool:
    """Whether a process with this PID runs on this host."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _create(temporary: Path) -> int:
    """Creates an empty file. Returns the mode that the system gives to new files in this folder."""
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        return stat.S_IMODE(os.fstat(handle).st_mode)
    finally:
        os.close(handle)


def _sweep_once(folder: Path) -> None:
    key = (os.getpid(), folder)
    if key not in _swept:
        _swept.add(key)
        sweep(folder)


def _is_leftover(path: Path, host: str | None, pid: int) -> bool:
    if host in (None, _host()):
        return not alive(pid)
    try:
        return time.time() - path.stat().st_mtime > MAX_IDLE_SECONDS
    except OSError:
        return False


@cache
def _host() -> str:
    """Eight characters that identify the host and PID namespace: containers can share a folder and reuse PIDs."""
    try:
        processes = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        processes = ""
    return hashlib.sha256(f"{socket.gethostname()} {processes}".encode()).hexdigest()[:8]
