"""Decoder processes that wait for another video. Starting one takes as long as decoding seconds of video."""

from .decoder_process import DecoderProcess

MAX_TASKS = 100
"""Videos that a child process decodes before it is replaced, because decord does not free everything."""

MAX_IDLE_BYTES = 1 << 29
"""A child process that has used more memory is not used again."""


class IdleDecoders:
    """Child processes that have decoded a whole video without a fault, and wait for another one."""

    def __init__(self) -> None:
        self._children: list[DecoderProcess] = []

    def take(self) -> DecoderProcess | None:
        while self._children:
            child = self._children.pop()
            if child.is_alive():
                return child
            child.kill()
        return None

    def put(self, child: DecoderProcess) -> None:
        """Keeps the child, or ends it if it was used often or has used much memory."""
        if child.tasks < MAX_TASKS and child.memory_bytes() < MAX_IDLE_BYTES:
            self._children.append(child)
        else:
            child.kill()

    def close(self) -> None:
        while self._children:
            self._children.pop().kill()
