"""Videos into frames, resized as they are decoded, each with its number and its time.

Decoders hang, crash and skip. So decord runs in a child process, `python -m affect.pipeline.ingest.video`, which is
killed when it gives nothing for too long and ends with its parent. decord counts frames; where the packets say that
counting would go wrong, or decord fails, PyAV decodes instead and numbers frames by their timestamps.
"""

import ctypes
import json
import os
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from ..errors import VideoError
from ..records import FrameBatch, VideoFacts
from .child import Child, Gone, Sender
from .salvage import frames_by_pyav
from .timeline import REMEDY, Timeline, read_timeline

DECODERS = ("decord", "pyav")
"""In the order in which they are tried."""

BATCH_BYTES = 64 << 20
"""No batch is larger, however large its pictures."""

THREADS = 2
"""Of decord."""

MEMORY = 3 << 28
"""Bytes that a decoder may hold while it works ahead: decord on its own would hold the whole video, decoded."""

_BATCH = struct.Struct("<qqqq")
"""A batch on the pipe: its decoder, frames, height and width; then int64 numbers and float64 times. The pixels are in
the shared memory."""

Result = TypeVar("Result")


def probe(path: Path) -> VideoFacts:
    """What a video's packets say of it; frames that a damaged file no longer has count too. Raises VideoError."""
    return read_timeline(path).facts


def frame_times(path: Path) -> NDArray[np.float64]:
    """float64 [n], strictly increasing: when each frame that is there is shown, in seconds. Raises VideoError."""
    return read_timeline(path).time


class DecordError(VideoError):
    """decord failed after it had given frames, whose numbers are now in doubt; `decoded` then begins again by PyAV."""


def decode(
    path: Path,
    size: int | None,
    *,
    batch: int = 64,
    deadline: float = 60.0,
    start: int = 0,
    stop: int | None = None,
    decoders: Sequence[str] = DECODERS,
    lent: bool = False,
) -> "Decoding":
    """Decodes frames start to stop of a video, in order, in batches of at most `batch`.

    lent: the pixels of a batch are good until the next one is asked for, which saves copying them.

    size: side in pixels of the square pictures, or None for the video's own size, upright. deadline: seconds without a
    sign of life after which a decoder is killed. Raises VideoError, here or in the iteration; DecordError among them.
    """
    return Decoding(path, size, batch, deadline, start, stop, decoders, lent)


def decoded(path: Path, size: int | None, use: "Callable[[Decoding], Result]", **options: Any) -> Result:
    """What `use` makes of decode(path, size, **options); called once more, with PyAV, where decord misled it."""
    try:
        with decode(path, size, **options) as decoding:
            return use(decoding)
    except DecordError:
        with decode(path, size, **{**options, "decoders": ("pyav",)}) as decoding:
            return use(decoding)


class Decoding(Iterator[FrameBatch]):
    """Frames as they are decoded. After the last, `lost` has the numbers of those that could not be had.

    facts: of the video. decoder: the one that gives the frames. Left early, it has to be closed: use it in a `with`.
    """

    def __init__(
        self,
        path: Path,
        size: int | None,
        batch: int,
        deadline: float,
        start: int,
        stop: int | None,
        decoders: Sequence[str],
        lent: bool,
    ) -> None:
        self.path = path
        self._lent, self._holds = lent, False
        self.lost: tuple[int, ...] = ()
        self.facts: VideoFacts
        self.decoder = ""
        self._task = {"path": str(path.absolute()), "size": size, "batch": batch, "start": start, "stop": stop}
        self._deadline = deadline
        self._next = start
        self._gaps: list[int] = []
        self._left = list(decoders)
        self._child: Child | None = self._launch()
        self._receive()  # The facts come first.
        self._stop = self.facts.frames if stop is None else min(stop, self.facts.frames)

    def __next__(self) -> FrameBatch:
        while self._child is not None:
            kind, payload = self._receive()
            if kind == b"b":
                return self._batch(payload)
            if kind == b"e":
                self.close()
                self._gaps.extend(range(self._next, self._stop))
                self.lost = tuple(self._gaps)
                if self.lost and not self.decoder:
                    raise VideoError(f"{self.path}: none of {len(self.lost)} frames can be decoded", REMEDY)
        raise StopIteration

    def close(self) -> None:
        """Ends the decoder. Safe to call twice."""
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

    def _launch(self) -> Child:
        task = {**self._task, "decoder": self._left.pop(0)}
        # At its end, decord waits for the last frames this many rounds; as shipped, and whatever the user's shell says.
        # What is freed goes back to the system, or memory would not tell how far ahead the decoder is.
        heap = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "131072", "MALLOC_ARENA_MAX": "0"}
        environment = {"DECORD_EOF_RETRY_MAX": "10240", **heap}
        return Child("affect.pipeline.ingest.video", task, environment)

    def _receive(self) -> tuple[bytes, NDArray[np.uint8]]:
        """The next message but for ticks."""
        if self._holds and self._child is not None:
            self._child.give_back()
        self._holds = False
        try:
            while True:
                assert self._child is not None
                try:
                    kind, payload = self._child.receive(self._deadline)
                    if kind == b"x":
                        raise Gone(payload.tobytes().decode())
                except Gone as gone:
                    self._replace(gone)
                    continue
                if kind == b"w":
                    raise VideoError(*json.loads(payload.tobytes()))
                if kind == b"f":
                    self.facts = VideoFacts(**json.loads(payload.tobytes()))
                if kind != b"t":
                    return kind, payload
        except BaseException:
            self.close()
            raise

    def _replace(self, gone: Gone) -> None:
        """Launches the next decoder, if there is one and no frame has been given."""
        self.close()
        if self.decoder or not self._left:
            failure = DecordError if self.decoder == "decord" else VideoError
            raise failure(f"{self.path}: {gone}", REMEDY) from None
        self._child = self._launch()

    def _batch(self, payload: NDArray[np.uint8]) -> FrameBatch:
        decoder, frames, height, width = _BATCH.unpack(payload[: _BATCH.size].tobytes())
        self.decoder = DECODERS[decoder]
        assert self._child is not None
        self._child.pause_above(MEMORY)
        pixels = self._child.lent(3 * frames * height * width).reshape(frames, height, width, 3)
        self._holds = self._lent
        if not self._lent:
            pixels = pixels.copy()
            self._child.give_back()
        index, time = payload[_BATCH.size :].view(np.int64).reshape(2, frames)
        time = time.view(np.float64)
        for number in index.tolist():
            self._gaps.extend(range(self._next, number))
            self._next = number + 1
        return FrameBatch(index, time, pixels)


def _serve(sender: Sender, path: Path, size: int | None, batch: int, start: int, stop: int | None, by: str) -> None:
    """The child's work: the facts, the batches, and an end."""
    timeline = read_timeline(path, sender.tick)
    facts = timeline.facts
    sender.send(b"f", json.dumps(asdict(facts)).encode())
    batch = min(batch, max(1, BATCH_BYTES // (3 * (size * size if size else facts.width * facts.height))))
    stop = facts.frames if stop is None else min(stop, facts.frames)
    done = start >= stop
    if not done and by == "decord" and timeline.plain:
        done = _by_decord(sender, path, timeline, size, batch, start, stop)
    numbers: list[int] = []
    pictures: list[NDArray[np.uint8]] = []
    for number, picture in () if done else frames_by_pyav(path, timeline, size, start, stop, sender.tick):
        numbers.append(number)
        pictures.append(picture)
        if len(numbers) == batch:
            _send_batch(sender, "pyav", timeline, numbers, np.stack(pictures))
            numbers, pictures = [], []
    if numbers:
        _send_batch(sender, "pyav", timeline, numbers, np.stack(pictures))
    sender.send(b"e")


def _by_decord(
    sender: Sender, path: Path, timeline: Timeline, size: int | None, batch: int, start: int, stop: int
) -> bool:
    """Sends the frames if decord can decode them, and says whether it could. Failing midway ends the child."""
    import decord

    decord.logging.set_level(decord.logging.FATAL)
    side = size or -1
    sent = False
    try:
        # The least share above none: decord may not pass off its neighbour as a frame that it could not decode.
        reader = decord.VideoReader(
            str(path), decord.cpu(0), width=side, height=side, num_threads=THREADS, fault_tol=cast(int, 1e-9)
        )
        for first in range(start, stop, batch) if _agrees(reader, timeline) else ():
            numbers = list(range(first, min(first + batch, stop)))
            pixels = reader.get_batch(numbers)
            _send_batch(sender, "decord", timeline, numbers, _view(pixels))
            sent = True
    except (decord.DECORDError, decord.DECORDLimitReachedError, RuntimeError, OSError, IndexError) as error:
        if sent:
            reason = str(error).strip().split("\n")[0].rpartition(": ")[2].rstrip(".")
            sender.send(b"x", f"decord failed after it gave frames ({reason})".encode())
            os._exit(0)
    return sent


def _agrees(reader: Any, timeline: Timeline) -> bool:
    """Whether decord lists the same frames as the packets, at the same times up to a shift and its float32."""
    if len(reader) != timeline.facts.frames:
        return False
    theirs = np.asarray(reader.get_frame_timestamp(np.arange(len(reader))), np.float64)[:, 0]
    if not timeline.stamped and (theirs < -1e9).any():
        return True  # The container has no presentation timestamps, and decord makes none up.
    ours = timeline.time
    return bool(np.allclose(theirs - theirs[0], ours - ours[0], rtol=1e-6, atol=2e-3))


def _view(pixels: Any) -> NDArray[np.uint8]:
    """The pixels of decord's array where they lie, without the copy that asnumpy() makes; as long as the array is."""
    start = ctypes.cast(pixels.handle.contents.data, ctypes.POINTER(ctypes.c_uint8))
    return np.ctypeslib.as_array(start, tuple(pixels.shape))


def _send_batch(sender: Sender, by: str, timeline: Timeline, numbers: list[int], pixels: NDArray[np.uint8]) -> None:
    index = np.array(numbers, np.int64)
    times = timeline.time[np.searchsorted(timeline.number, index)]
    sender.lend(b"b", _BATCH.pack(DECODERS.index(by), *pixels.shape[:3]), index, times, large=pixels)


def main(task: dict[str, Any], shared: int) -> None:
    """The child process."""
    sender = Sender(shared)
    try:
        by = task.pop("decoder")
        _serve(sender, Path(task.pop("path")), **task, by=by)
    except VideoError as error:
        sender.send(b"w", json.dumps([error.problem, error.remedy]).encode())
    # decord's threads do not always come to an end by themselves.
    os._exit(0)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), int(sys.argv[2]))
