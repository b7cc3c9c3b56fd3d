"""Runs native code that may hang or crash in a child process, which sends messages through a pipe.

Pixels go through shared memory: the pipe would copy them twice.
"""

import contextlib
import ctypes
import errno
import fcntl
import json
import mmap
import os
import queue
import resource
import select
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import ProcessError
from ...processes import fill_standard_descriptors, need_same_process
from ..temporary import no_temporary
from .launcher import start_process

_HEADER = struct.Struct("<cq")
"""Header of a message: its kind (one letter) and the number of bytes that follow."""

_SIZE = struct.Struct("<q")
"""Number of bytes of a task."""
_RELEASE, _TASK = b".", b"t"
"""What the parent sends: the shared memory may be written again; or, with its size, another task."""

_PR_SET_PDEATHSIG = 1

MAX_MEMORY_BYTES = 4 << 30
"""A child that uses more memory is killed: a damaged or hostile file must not exhaust the memory of the machine."""

_CHECK_SECONDS = 0.25
"""Interval of memory checks. RLIMIT_AS is not used: it also counts memory that threads only reserve."""

_REMEDIES = {
    errno.EMFILE: "Raise the limit of open files with `ulimit -n`, or close files.",
    errno.ENFILE: "Close files, or raise fs.file-max.",
    errno.EAGAIN: "Raise the limit of processes with `ulimit -u`, or end some.",
    errno.ENOMEM: "Free memory, or use fewer workers.",
}
"""By cause why no process can be started."""


class ProcessDied(Exception):  # noqa: N818
    """The child process hung or died. The text is the reason."""


class DecoderProcess:
    """Runs `python -m MODULE TASK HANDLE PARENT` in its own session, so that only the parent handles Ctrl-C.

    TASK is JSON. HANDLE is the file descriptor of the shared memory and PARENT the PID of this process; FrameSender in
    the child needs both. The process does not end with the thread that started it. Raises ProcessError if no process
    can be started, and WorkError if no shared memory can be created.

    tasks: how many tasks it was given.
    """

    def __init__(self, module: str, task: dict[str, Any], environment: dict[str, str]) -> None:
        fill_standard_descriptors()
        self._owner = os.getpid()
        with contextlib.ExitStack() as opened:
            try:
                self._shared = _SharedMemory(_anonymous_file())
                opened.callback(self._shared.close)
                self._stderr = _anonymous_file()
                opened.callback(os.close, self._stderr)
                self._process = start_process(
                    [sys.executable, "-P", "-m", module, json.dumps(task), str(self._shared.handle), str(self._owner)],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr, bufsize=0,
                    start_new_session=True, env={**os.environ, **environment}, pass_fds=(self._shared.handle,),
                )  # fmt: skip
            except OSError as error:
                if error.errno not in _REMEDIES:
                    raise
                raise ProcessError(f"no decoder can be started ({error.strerror})", _REMEDIES[error.errno]) from error
            opened.pop_all()
        assert self._process.stdout is not None
        self._pipe = self._process.stdout.fileno()
        self._statm = -1
        with contextlib.suppress(OSError):
            self._statm = os.open(f"/proc/{self._process.pid}/statm", os.O_RDONLY | os.O_CLOEXEC)
        self._paused = False
        self.tasks = 1
        self._poll = select.poll()
        self._poll.register(self._pipe, select.POLLIN)

    def receive(self, deadline: float) -> tuple[bytes, NDArray[np.uint8]]:
        """Kind and payload of the next message.

        Raises ProcessDied if the process ended or sent nothing for `deadline` seconds, and ProcessError in a fork of
        the process that started it.
        """
        need_same_process(self._owner, "the decoder")
        if self._paused:
            self._process.send_signal(signal.SIGCONT)
            self._paused = False
        kind, size = _HEADER.unpack(self._read(_HEADER.size, deadline).tobytes())
        return kind, self._read(size, deadline)

    def shared_bytes(self, size: int) -> NDArray[np.uint8]:
        """A view of the first bytes of the shared memory. The child does not change them until `release`."""
        return self._shared.bytes(size)

    def release(self) -> None:
        """Allows the child to write to the shared memory: at first, and again after each batch. Raises ProcessError as
        `receive` does."""
        self._send(_RELEASE)

    def assign(self, task: dict[str, Any]) -> None:
        """Gives a child that has ended its task another one. Raises ProcessError as `receive` does."""
        text = json.dumps(task).encode()
        self._send(_TASK + _SIZE.pack(len(text)) + text)
        self.tasks += 1

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def _send(self, message: bytes) -> None:
        need_same_process(self._owner, "the decoder")
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # `receive` reports it
            self._process.stdin.write(message)

    def pause_above(self, limit: int) -> None:
        """Pauses the child until the next `receive` if it uses more than `limit` bytes of memory. Linux only."""
        if self.memory_bytes() > limit:
            self._process.send_signal(signal.SIGSTOP)
            self._paused = True

    def kill(self) -> None:
        """Ends the child. In a fork of the process that started it, only closes the descriptors."""
        if os.getpid() == self._owner:
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        os.close(self._stderr)
        self._shared.close()
        if self._statm >= 0:
            os.close(self._statm)
            self._statm = -1

    def _read(self, size: int, deadline: float) -> NDArray[np.uint8]:
        data = np.empty(size, np.uint8)
        view, done = memoryview(data.data), 0
        while done < size:
            until = time.monotonic() + deadline
            while True:
                if self.memory_bytes() > MAX_MEMORY_BYTES:
                    limit = f"{MAX_MEMORY_BYTES / (1 << 30):g} GiB"
                    raise ProcessDied(f"the decoder used more than {limit} of memory and was killed")
                if self._poll.poll(min(_CHECK_SECONDS, max(0, until - time.monotonic())) * 1000):
                    break
                if time.monotonic() >= until:
                    raise ProcessDied(f"the decoder returned nothing for {deadline:g} s and was killed")
            got = os.readv(self._pipe, [view[done:]])
            if not got:
                raise ProcessDied(f"the decoder process stopped unexpectedly ({self._last_error()})")
            done += got
        return data

    def memory_bytes(self) -> int:
        """Resident memory of the child in bytes, or 0 if unknown."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            return int(os.pread(self._statm, 256, 0).split()[1]) * resource.getpagesize()
        return 0

    def _last_error(self) -> str:
        """The signal that ended the child, or else the last line of its standard error."""
        status = self._process.wait()
        if status < 0:
            return signal.Signals(-status).name
        size = os.fstat(self._stderr).st_size
        tail = os.pread(self._stderr, _STDERR_BYTES, max(0, size - _STDERR_BYTES))
        lines = [line.strip() for line in tail.decode(errors="replace").splitlines() if line.strip()]
        return lines[-1] if lines else f"exit status {status}"


_STDERR_BYTES = 1 << 16
"""How much of the end of a child's standard error is read."""


class FrameSender:
    """Sends messages from the child process. Ends the child process when the parent ends."""

    def __init__(self, handle: int, parent: int) -> None:
        self._shared, self._free = _SharedMemory(handle), threading.Semaphore(0)
        self._tasks: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        if sys.platform == "linux":
            # A paused process cannot notice that its parent ended.
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:  # the parent ended before prctl
                os._exit(1)
        # Output of libraries to stdout must not mix with the messages.
        self._pipe = os.dup(1)
        os.dup2(2, 1)
        self._last_sent = time.monotonic()
        threading.Thread(target=self._listen, daemon=True).start()

    def send(self, kind: bytes, *parts: Any) -> None:
        """Sends bytes or contiguous arrays as one message."""
        views = [memoryview(part).cast("B") for part in parts]
        for view in (memoryview(_HEADER.pack(kind, sum(map(len, views)))), *views):
            sent = 0
            while sent < len(view):
                sent += os.write(self._pipe, view[sent:])
        self._last_sent = time.monotonic()

    def send_shared(self, kind: bytes, *parts: Any, large: NDArray[np.uint8]) -> None:
        """Sends a message with a large array in shared memory. First waits until the parent released that memory."""
        self._free.acquire()
        shared = self._shared.bytes(large.size).reshape(large.shape)
        np.copyto(shared, large)
        self.send(kind, *parts)

    def wait_until_used(self) -> None:
        """Waits until the parent uses the frames of this task."""
        self._free.acquire()
        self._free.release()

    def next_task(self) -> dict[str, Any]:
        """Waits for another task. Ends the process if the parent ends first."""
        return self._tasks.get()

    def tick(self) -> None:
        """Sends a heartbeat, a message of kind t, if nothing was sent for a second."""
        if time.monotonic() - self._last_sent > 1:
            self.send(b"t")

    def _listen(self) -> None:
        """Receives releases and tasks. Standard input ends when the parent ends."""
        while kind := os.read(0, 1):
            if kind == _RELEASE:
                self._free.release()
                continue
            (size,) = _SIZE.unpack(_read_exactly(_SIZE.size))
            task = json.loads(_read_exactly(size))
            self._free = threading.Semaphore(0)  # all releases of the last task came before this one
            self._tasks.put(task)
        os._exit(1)


def _read_exactly(size: int) -> bytes:
    """The next bytes of standard input. Ends the process if they do not come."""
    data = b""
    while len(data) < size:
        part = os.read(0, size - len(data))
        if not part:
            os._exit(1)
        data += part
    return data


class _SharedMemory:
    """Memory of an anonymous file that two processes share. Grows on demand."""

    def __init__(self, handle: int) -> None:
        self.handle = handle
        self._map: mmap.mmap | None = None

    def bytes(self, size: int) -> NDArray[np.uint8]:
        if self._map is None or len(self._map) < size:
            if os.fstat(self.handle).st_size < size:
                os.truncate(self.handle, size)
            self._map = mmap.mmap(self.handle, size)  # existing arrays keep the old map alive
        return np.frombuffer(self._map, np.uint8, size)

    def close(self) -> None:
        if self.handle >= 0:
            os.close(self.handle)
            self.handle, self._map = -1, None


def _anonymous_file() -> int:
    """A descriptor of an anonymous memory file, or of an unlinked temporary file if the system has no memory files.

    It is greater than 2, because the child has its own stdin, stdout and stderr.
    """
    if hasattr(os, "memfd_create"):
        handle = os.memfd_create("affect")
    else:
        try:
            with tempfile.TemporaryFile() as file:
                handle = os.dup(file.fileno())
        except OSError as error:
            raise no_temporary(error) from error
    if handle > 2:
        return handle
    try:
        return fcntl.fcntl(handle, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(handle)
