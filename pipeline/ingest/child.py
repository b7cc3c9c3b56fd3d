"""A process apart for native code that may hang or crash, and the pipe on which it answers in messages."""

import contextlib
import ctypes
import json
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
from pathlib import Path
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
    """Runs `python -m module task-as-JSON`, in a session of its own so that Ctrl-C is the parent's alone to handle."""

    def __init__(self, module: str, task: dict[str, Any], environment: dict[str, str]) -> None:
        self._words = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", module, json.dumps(task)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._words, bufsize=0, start_new_session=True,
            env={**os.environ, **environment},
        )  # fmt: skip
        assert self._process.stdout is not None
        self._pipe = self._process.stdout.fileno()
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

    def pause_above(self, limit: int) -> None:
        """Stops the child until the next `receive` if it holds more than `limit` bytes of memory. On Linux only."""
        if self._memory() > limit:
            self._process.send_signal(signal.SIGSTOP)
            self._paused = True

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._words):
            assert pipe is not None
            pipe.close()

    def _read(self, size: int, deadline: float) -> NDArray[np.uint8]:
        data = np.empty(size, np.uint8)
        view, done = memoryview(data.data), 0
        while done < size:
            until = time.monotonic() + deadline
            while True:
                if self._memory() > LIMIT:
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

    def _memory(self) -> int:
        """Bytes that the child holds; 0 where the system does not say."""
        with contextlib.suppress(OSError, ValueError):
            pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
            return pages * resource.getpagesize()
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

    def __init__(self) -> None:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        if sys.platform == "linux":
            # Paused, this process could not see for itself that the parent is gone.
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        # What libraries print must not get between the messages.
        self._pipe = os.dup(1)
        os.dup2(2, 1)
        self._beat = time.monotonic()
        threading.Thread(target=_watch_parent, daemon=True).start()

    def send(self, kind: bytes, *parts: Any) -> None:
        """Sends bytes, or the bytes of contiguous arrays, as one message."""
        views = [memoryview(part).cast("B") for part in parts]
        for view in (memoryview(_HEADER.pack(kind, sum(map(len, views)))), *views):
            sent = 0
            while sent < len(view):
                sent += os.write(self._pipe, view[sent:])
        self._beat = time.monotonic()

    def tick(self) -> None:
        """Says once a second, in a message of kind t, that work goes on."""
        if time.monotonic() - self._beat > 1:
            self.send(b"t")


def _watch_parent() -> None:
    # Standard input ends when the parent does, and not when the thread that started this process does.
    while os.read(0, 1):
        pass
    os._exit(1)
