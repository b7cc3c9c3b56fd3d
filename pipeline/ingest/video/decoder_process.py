"""Runs native code that may hang or crash in a child process, which sends messages through a pipe.

Pixels go through shared memory: the pipe would copy them twice.
"""

import contextlib
import errno
import json
import os
import resource
import select
import signal
import subprocess
import sys
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import ProcessError
from ...processes import fill_standard_descriptors, need_same_process
from .launcher import start_process
from .shared_memory import HEADER, RELEASE, TASK, TASK_SIZE, SharedMemory, anonymous_file

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
                self._shared = SharedMemory(anonymous_file())
                opened.callback(self._shared.close)
                self._stderr = anonymous_file()
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
        kind, size = HEADER.unpack(self._read(HEADER.size, deadline).tobytes())
        return kind, self._read(size, deadline)

    def shared_bytes(self, size: int) -> NDArray[np.uint8]:
        """A view of the first bytes of the shared memory. The child does not change them until `release`."""
        return self._shared.bytes(size)

    def release(self) -> None:
        """Allows the child to write to the shared memory: at first, and again after each batch. Raises ProcessError as
        `receive` does."""
        self._send(RELEASE)

    def assign(self, task: dict[str, Any]) -> None:
        """Gives a child that has ended its task another one. Raises ProcessError as `receive` does."""
        text = json.dumps(task).encode()
        self._send(TASK + TASK_SIZE.pack(len(text)) + text)
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
