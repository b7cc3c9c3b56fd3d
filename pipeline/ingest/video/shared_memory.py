"""What a decoder process and its parent share: memory for pixels, and the form of their messages."""

import fcntl
import mmap
import os
import struct
import tempfile

import numpy as np
from numpy.typing import NDArray

from ..temporary import no_temporary

HEADER = struct.Struct("<cq")
"""Header of a message: its kind (one letter) and the number of bytes that follow."""

TASK_SIZE = struct.Struct("<q")
"""Number of bytes of a task."""
RELEASE, TASK = b".", b"t"
"""What the parent sends: the shared memory may be written again; or, with its size, another task."""


class SharedMemory:
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


def anonymous_file() -> int:
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
