"""Decodes several videos one after the other. Frames come earlier than with `decode`: the next video can be prepared
while another one is used, and the child processes are used again."""

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self, TypeVar

from ...errors import VideoError
from .decode import DECODERS, DecodeTask, Decoding, DecordError
from .idle_decoders import IdleDecoders
from .timeline import need_file

FIRST_BATCH = 16
"""Frames in the first batch of a video, so that their results come early. As many as go through a network at once on a
CPU: so results are the same for all sizes of the other batches."""

Result = TypeVar("Result")


class Decoders:
    """Decodes videos. Use it in a `with` block, which ends the child processes.

    size, batch, deadline: see `decode`.
    """

    def __init__(self, size: int, batch: int = 64, deadline: float = 60.0) -> None:
        self._size, self._batch, self._deadline = size, batch, deadline
        self._idle = IdleDecoders()
        self._prepared: Decoding | None = None
        self._following: Path | None = None

    def prepare(self, path: Path, following: Path | None = None) -> None:
        """Starts to decode a video that is used next. Does not wait, and raises no VideoError: `decoded` does.

        following: the video after it, which is prepared when this one is in use.
        """
        self._following = following
        if self._prepared is not None and self._prepared.path == path:
            return
        self._close_prepared()
        with contextlib.suppress(VideoError):
            self._prepared = self._open(path)

    def decoded(self, path: Path, use: Callable[[Decoding], Result]) -> Result:
        """Like `decode.decoded`. Raises VideoError."""
        prepared = None
        if self._prepared is not None and self._prepared.path == path:
            prepared, self._prepared = self._prepared, None

        def use_and_prepare(decoding: Decoding) -> Result:
            decoding.start()
            if self._following is not None:
                self.prepare(self._following)
            return use(decoding)

        try:
            with prepared or self._open(path) as decoding:
                return use_and_prepare(decoding)
        except DecordError:
            with self._open(path, ("pyav",)) as decoding:
                return use_and_prepare(decoding)

    def close(self) -> None:
        self._close_prepared()
        self._idle.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self, path: Path, decoders: Sequence[str] = DECODERS) -> Decoding:
        need_file(path)
        task = DecodeTask(str(path.absolute()), self._size, self._batch, 0, None, first=FIRST_BATCH)
        return Decoding(path, task, decoders, self._deadline, idle=self._idle)

    def _close_prepared(self) -> None:
        prepared, self._prepared = self._prepared, None
        if prepared is not None:
            prepared.close()
