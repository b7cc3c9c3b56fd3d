"""Sends frames from a decoder process to its parent."""

import ctypes
import json
import os
import queue
import signal
import sys
import threading
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .shared_memory import HEADER, RELEASE, TASK_SIZE, SharedMemory

_PR_SET_PDEATHSIG = 1


class FrameSender:
    """Sends messages from the child process. Ends the child process when the parent ends."""

    def __init__(self, handle: int, parent: int) -> None:
        self._shared, self._free = SharedMemory(handle), threading.Semaphore(0)
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
        for view in (memoryview(HEADER.pack(kind, sum(map(len, views)))), *views):
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
            if kind == RELEASE:
                self._free.release()
                continue
            (size,) = TASK_SIZE.unpack(_read_exactly(TASK_SIZE.size))
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
