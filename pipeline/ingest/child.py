"""A process apart for native code that may hang or crash, and the pipe on which it answers in messages.

What is large goes through memory that the two share: through the pipe it would be copied twice.
"""

import contextlib
import ctypes
import json
import mmap
import os
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

_HEADER = struct.Struct("<cq")
"""Of a message: its kind, one letter, and how many bytes follow."""

_PR_SET_PDEATHSIG = 1


LIMIT = 4 << 30
"""Bytes of memory at which a child is killed: a damaged or hostile file must not take the machine down."""

_LOOK = 0.25
"""Seconds between two looks at the child's memory while it gives nothing. RLIMIT_AS would count what decoders' threads
only reserve."""


class Gone(Exception):  # noqa: N818
    """The child hung or died; the text says how."""


class Child:
    """Runs `python -m module task-as-JSON handle`, in a session of its own so that Ctrl-C is the parent's alone to
    handle. The handle is of the shared memory, for its Sender."""

    def __init__(self, module: str, task: dict[str, Any], environment: dict[str, str]) -> None:
        self._shared = _Shared(_nameless_file())
        self._words = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", module, json.dumps(task), str(self._shared.handle)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._words, bufsize=0, start_new_session=True,
            env={**os.environ, **environment}, pass_fds=(self._shared.handle,),
        )  # fmt: skip
        assert self._process.stdout is not None
        self._pipe = self._process.stdout.fileno()
        self._statm = -1
        with contextlib.suppress(OSError):
            self._statm = os.open(f"/proc/{self._process.pid}/statm", os.O_RDONLY | os.O_CLOEXEC)
        self._paused = False
        self._poll = select.poll()
        self._poll.register(self._pipe, select.POLLIN)

    def receive(self, deadline: float) -> tuple[bytes, NDArray[np.uint8]]:
        """Kind and bytes of the next message. Raises Gone after `deadline` seconds of silence, or at its end."""
        if self._paused:
            self._process.send_signal(signal.SIGCONT)
            self._paused = False
        kind, size = _HEADER.unpack(self._read(_HEADER.size, deadline).tobytes())
        return kind, self._read(size, deadline)

    def lent(self, size: int) -> NDArray[np.uint8]:
        """The first bytes of the shared memory, which the child leaves as they are until `give_back`."""
        return self._shared.bytes(size)

    def give_back(self) -> None:
        """Lets the child write to the shared memory again."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # `receive` will tell
            self._process.stdin.write(b".")

    def pause_above(self, limit: int) -> None:
        """Stops the child until the next `receive` if it holds more than `limit` bytes of memory. On Linux only."""
        if self._taken() > limit:
            self._process.send_signal(signal.SIGSTOP)
            self._paused = True

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._words):
            assert pipe is not None
            pipe.close()
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
                if self._taken() > LIMIT:
                    raise Gone(f"its decoder took more than {LIMIT / (1 << 30):g} GiB of memory and was killed")
                if self._poll.poll(min(_LOOK, max(0, until - time.monotonic())) * 1000):
                    break
                if time.monotonic() >= until:
                    raise Gone(f"its decoder gave nothing for {deadline:g} s and was killed")
            got = os.readv(self._pipe, [view[done:]])
            if not got:
                raise Gone(f"its decoder died ({self._last_words()})")
            done += got
        return data

    def _taken(self) -> int:
        """Bytes that the child holds; 0 where the system does not say."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            return int(os.pread(self._statm, 256, 0).split()[1]) * resource.getpagesize()
        return 0

    def _last_words(self) -> str:
        status = self._process.wait()
        if status < 0:
            return signal.Signals(-status).name
        self._words.seek(0)
        lines = [line.strip() for line in self._words.read().decode(errors="replace").splitlines() if line.strip()]
        return lines[-1] if lines else f"exit status {status}"


class Sender:
    """The child's end of the pipe. Its process ends as soon as the parent is gone, whatever it is doing."""

    def __init__(self, handle: int) -> None:
        self._shared, self._free = _Shared(handle), threading.Semaphore(1)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        if sys.platform == "linux":
            # Paused, this process could not see for itself that the parent is gone.
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        # What libraries print must not get between the messages.
        self._pipe = os.dup(1)
        os.dup2(2, 1)
        self._beat = time.monotonic()
        threading.Thread(target=self._listen, daemon=True).start()

    def send(self, kind: bytes, *parts: Any) -> None:
        """Sends bytes, or the bytes of contiguous arrays, as one message."""
        views = [memoryview(part).cast("B") for part in parts]
        for view in (memoryview(_HEADER.pack(kind, sum(map(len, views)))), *views):
            sent = 0
            while sent < len(view):
                sent += os.write(self._pipe, view[sent:])
        self._beat = time.monotonic()

    def lend(self, kind: bytes, *parts: Any, large: NDArray[np.uint8]) -> None:
        """Sends a message, and what is large in the shared memory; waits until the parent has given that back."""
        self._free.acquire()
        shared = self._shared.bytes(large.size).reshape(large.shape)
        np.copyto(shared, large)
        self.send(kind, *parts)

    def tick(self) -> None:
        """Says once a second, in a message of kind t, that work goes on."""
        if time.monotonic() - self._beat > 1:
            self.send(b"t")

    def _listen(self) -> None:
        """Each byte from the parent gives the shared memory back. Standard input ends when the parent does, and not
        when the thread that started this process does."""
        while os.read(0, 1):
            self._free.release()
        os._exit(1)


class _Shared:
    """Memory of a file that two processes hold; it grows as it is asked for."""

    def __init__(self, handle: int) -> None:
        self.handle = handle
        self._map: mmap.mmap | None = None

    def bytes(self, size: int) -> NDArray[np.uint8]:
        if self._map is None or len(self._map) < size:
            if os.fstat(self.handle).st_size < size:
                os.truncate(self.handle, size)
            self._map = mmap.mmap(self.handle, size)  # arrays hold on to an older one
        return np.frombuffer(self._map, np.uint8, size)

    def close(self) -> None:
        if self.handle >= 0:
            os.close(self.handle)
            self.handle, self._map = -1, None


def _nameless_file() -> int:
    """A handle of memory, or of a file on the disk where the system has no such memory."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("affect")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
