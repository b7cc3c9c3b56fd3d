"""Decodes videos to resized frames, each with its number and time.

Decoders can hang, crash and skip frames. So they run in a child process (decoder_child.py), which is killed if it sends
nothing for too long, and which ends with its parent. decord numbers frames by counting. If the packets show that
counting would be wrong, or if decord fails, PyAV decodes instead and numbers frames by their timestamps.
"""

import json
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from ...errors import VideoError
from ...records import FrameBatch, VideoFacts
from .decoder_process import DecoderProcess, ProcessDied
from .idle_decoders import IdleDecoders
from .timeline import REMEDY, need_file, read_timeline

DECODERS = ("decord", "pyav")
"""In the order in which `decode` tries them."""

MAX_PREFETCH_BYTES = 3 << 28
"""A decoder that uses more memory is paused: without a limit, decord prefetches the whole video."""

BATCH_HEADER = struct.Struct("<qqqq")
"""Start of a batch message: index of the decoder, number of frames, height, width. Then follow int64 frame numbers and
float64 times. The pixels are in shared memory."""

Result = TypeVar("Result")


def probe(path: Path) -> VideoFacts:
    """Reads the facts of a video from its packets. Counts frames that a damaged file has lost. Raises VideoError."""
    return read_timeline(path).facts


class DecordError(VideoError):
    """decord failed after it returned frames, whose numbers may be wrong. `decoded` starts again with PyAV."""


def decode(
    path: Path,
    size: int | None,
    *,
    batch: int = 64,
    deadline: float = 60.0,
    start: int = 0,
    stop: int | None = None,
    decoders: Sequence[str] = DECODERS,
    zero_copy: bool = False,
) -> "Decoding":
    """Decodes frames start to stop of a video, in order, in batches of at most `batch`.

    size: side in pixels of the resized, square frames, or None for the size of the video, upright. deadline: seconds
    without a message after which a decoder is killed. zero_copy: the pixels of a batch are valid only until the next
    batch is requested. Raises VideoError, here or during the iteration, including DecordError.
    """
    need_file(path)  # before the path becomes absolute, which would hide a URL
    task = DecodeTask(str(path.absolute()), size, batch, start, stop)
    decoding = Decoding(path, task, decoders, deadline, zero_copy)
    decoding.start()
    return decoding


def decoded(path: Path, size: int | None, use: "Callable[[Decoding], Result]", **options: Any) -> Result:
    """Returns use(decode(path, size, **options)). Calls `use` again, with PyAV, after a DecordError."""
    try:
        with decode(path, size, **options) as decoding:
            return use(decoding)
    except DecordError:
        with decode(path, size, **{**options, "decoders": ("pyav",)}) as decoding:
            return use(decoding)


@dataclass(frozen=True)
class DecodeTask:
    """What a child process decodes. The fields are those of `decode`.

    first: frames in the first batch; 0: as many as in the others.
    """

    path: str
    size: int | None
    batch: int
    start: int
    stop: int | None
    decoder: str = ""
    first: int = 0


class Decoding(Iterator[FrameBatch]):
    """An iterator over batches of frames. Use it in a `with` block, which ends the child process.

    facts: the facts of the video. decoder: the decoder that returned frames. lost: after the last batch, the numbers of
    the frames that could not be decoded. idle: where the child process comes from and goes to, if given.

    The child process starts at once. The first use of the facts or frames waits for it, as `start` does.
    """

    def __init__(
        self,
        path: Path,
        task: DecodeTask,
        decoders: Sequence[str],
        deadline: float,
        zero_copy: bool = False,
        idle: IdleDecoders | None = None,
    ) -> None:
        self.path = path
        self._task = task
        self._zero_copy, self._must_release = zero_copy, False
        self.lost: tuple[int, ...] = ()
        self._facts: VideoFacts | None = None
        self.decoder = ""
        self._deadline = deadline
        self._next = task.start
        self._gaps: list[int] = []
        self._untried = list(decoders)
        self._idle = idle
        self._child = self._reuse() or self._launch()

    @property
    def facts(self) -> VideoFacts:
        self.start()
        assert self._facts is not None
        return self._facts

    def start(self) -> None:
        """Waits until the video is open. Raises VideoError."""
        if self._facts is None and self._child is not None:
            self._child.release()
            self._receive()  # the first message has the facts

    def __next__(self) -> FrameBatch:
        frames = self.facts.frames
        while self._child is not None:
            kind, payload = self._receive()
            if kind == b"b":
                return self._batch(payload)
            if kind == b"e":
                self._gaps.extend(
                    range(self._next, frames if self._task.stop is None else min(self._task.stop, frames))
                )
                self._give_back()
                self.lost = tuple(self._gaps)
                if self.lost and not self.decoder:
                    raise VideoError(f"{self.path}: none of {len(self.lost)} frames can be decoded", REMEDY)
        raise StopIteration

    def close(self) -> None:
        """Ends the child process. Can be called twice."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_child"):
            self.close()

    def _reuse(self) -> DecoderProcess | None:
        """Gives the task to an idle child process, if there is one."""
        child = self._idle.take() if self._idle is not None else None
        if child is not None:
            child.assign(asdict(replace(self._task, decoder=self._untried[0])))
        return child

    def _give_back(self) -> None:
        """Keeps the child process for another video, unless something went wrong with this one."""
        child, self._child = self._child, None
        assert child is not None
        if self._idle is not None and self.decoder == DECODERS[0] and not self._gaps:
            self._idle.put(child)
        else:
            child.kill()

    def _launch(self) -> DecoderProcess:
        task = replace(self._task, decoder=self._untried.pop(0))
        # DECORD_EOF_RETRY_MAX: decord's default, independent of the user's environment.
        # MALLOC_*: freed memory is returned to the system, so that resident memory shows how far decord prefetches.
        heap = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "131072", "MALLOC_ARENA_MAX": "0"}
        environment = {"DECORD_EOF_RETRY_MAX": "10240", **heap}
        return DecoderProcess("affect.pipeline.ingest.video.decoder_child", asdict(task), environment)

    def _receive(self) -> tuple[bytes, NDArray[np.uint8]]:
        """Kind and payload of the next message, without ticks."""
        if self._must_release and self._child is not None:
            self._child.release()
        self._must_release = False
        try:
            while True:
                assert self._child is not None
                try:
                    kind, payload = self._child.receive(self._deadline)
                    if kind == b"x":
                        raise ProcessDied(payload.tobytes().decode())
                except ProcessDied as death:
                    self._try_next_decoder(death)
                    continue
                if kind == b"w":
                    raise VideoError(*json.loads(payload.tobytes()))
                if kind == b"f":
                    self._facts = VideoFacts(**json.loads(payload.tobytes()))
                if kind != b"t":
                    return kind, payload
        except BaseException:
            self.close()
            raise

    def _try_next_decoder(self, death: ProcessDied) -> None:
        """Launches the next decoder. Raises VideoError if none is left or frames were already returned."""
        self.close()
        if self.decoder or not self._untried:
            failure = DecordError if self.decoder == "decord" else VideoError
            raise failure(f"{self.path}: {death}", REMEDY) from None
        self._child = self._launch()
        self._child.release()

    def _batch(self, payload: NDArray[np.uint8]) -> FrameBatch:
        decoder, frames, height, width = BATCH_HEADER.unpack(payload[: BATCH_HEADER.size].tobytes())
        self.decoder = DECODERS[decoder]
        assert self._child is not None
        self._child.pause_above(MAX_PREFETCH_BYTES)
        pixels = self._child.shared_bytes(3 * frames * height * width).reshape(frames, height, width, 3)
        self._must_release = self._zero_copy
        if not self._zero_copy:
            pixels = pixels.copy()
            self._child.release()
        index, time = payload[BATCH_HEADER.size :].view(np.int64).reshape(2, frames)
        time = time.view(np.float64)
        for number in index.tolist():
            self._gaps.extend(range(self._next, number))
            self._next = number + 1
        return FrameBatch(index, time, pixels)
