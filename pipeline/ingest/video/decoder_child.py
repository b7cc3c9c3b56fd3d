"""The child process that decodes a video by decord or PyAV and sends its frames to `decode`."""

import ctypes
import json
import os
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ...errors import VideoError
from .decode import BATCH_HEADER, DECODERS, DecodeTask
from .frame_sender import FrameSender
from .pyav_decoder import frames_by_pyav
from .timeline import Timeline, read_timeline

MAX_BATCH_BYTES = 64 << 20
"""Largest batch. Batches of large frames have fewer frames."""

DECORD_THREADS = 2

MAX_AHEAD_BYTES = 1 << 26
"""Frames of a prepared video that are decoded before they are used. Of a longer video, none are."""


def _serve(sender: FrameSender, task: DecodeTask) -> None:
    """Runs in the child process: sends the facts, the batches and an end message."""
    path, size, start = Path(task.path), task.size, task.start
    timeline = read_timeline(path, sender.tick)
    facts = timeline.facts
    sender.send(b"f", json.dumps(asdict(facts)).encode())
    batch = min(task.batch, max(1, MAX_BATCH_BYTES // (3 * (size * size if size else facts.width * facts.height))))
    first = min(task.first or batch, batch)
    stop = facts.frames if task.stop is None else min(task.stop, facts.frames)
    if task.size and (stop - start) * 3 * task.size**2 > MAX_AHEAD_BYTES:
        sender.wait_until_used()  # decord decodes ahead without a limit
    done = start >= stop
    if not done and task.decoder == "decord" and timeline.plain:
        done = _send_by_decord(sender, timeline, replace(task, batch=batch, first=first), range(start, stop))
    limit = first
    numbers: list[int] = []
    pictures: list[NDArray[np.uint8]] = []
    for number, picture in () if done else frames_by_pyav(path, timeline, size, start, stop, sender.tick):
        numbers.append(number)
        pictures.append(picture)
        if len(numbers) == limit:
            _send_batch(sender, "pyav", timeline, numbers, np.stack(pictures))
            numbers, pictures, limit = [], [], batch
    if numbers:
        _send_batch(sender, "pyav", timeline, numbers, np.stack(pictures))
    sender.send(b"e")


def _send_by_decord(sender: FrameSender, timeline: Timeline, task: DecodeTask, frames: range) -> bool:
    """Sends these frames. Returns False if decord cannot decode the video. A later failure ends the child process."""
    import decord

    decord.logging.set_level(decord.logging.FATAL)
    side = task.size or -1
    sent = False
    try:
        # Almost zero tolerance: otherwise decord repeats a neighbour in place of a frame that it cannot decode.
        reader = decord.VideoReader(
            task.path, decord.cpu(0), width=side, height=side, num_threads=DECORD_THREADS, fault_tol=cast(int, 1e-9)
        )
        done, limit = 0, task.first
        while done < len(frames) and (sent or _agrees(reader, timeline)):
            numbers = list(frames[done : done + limit])
            done, limit = done + limit, task.batch
            pixels = reader.get_batch(numbers)
            _send_batch(sender, "decord", timeline, numbers, _view(pixels))
            sent = True
    except (decord.DECORDError, decord.DECORDLimitReachedError, RuntimeError, OSError, IndexError) as error:
        if sent:
            reason = str(error).strip().split("\n")[0].rpartition(": ")[2].rstrip(".")
            sender.send(b"x", f"decord failed after it returned frames ({reason})".encode())
            os._exit(0)
    return sent


def _agrees(reader: Any, timeline: Timeline) -> bool:
    """Whether decord lists the same frames as the packets, with the same times up to an offset and rounding."""
    if len(reader) != timeline.facts.frames:
        return False
    decord_time = np.asarray(reader.get_frame_timestamp(np.arange(len(reader))), np.float64)[:, 0]
    if not timeline.stamped and (decord_time < -1e9).any():
        return True  # no presentation timestamps in the container, and none in decord
    time = timeline.time
    return bool(np.allclose(decord_time - decord_time[0], time - time[0], rtol=1e-6, atol=2e-3))


def _view(pixels: Any) -> NDArray[np.uint8]:
    """A view of decord's array without the copy of asnumpy(). Valid as long as the array exists."""
    start = ctypes.cast(pixels.handle.contents.data, ctypes.POINTER(ctypes.c_uint8))
    return np.ctypeslib.as_array(start, tuple(pixels.shape))


def _send_batch(
    sender: FrameSender, decoder: str, timeline: Timeline, numbers: list[int], pixels: NDArray[np.uint8]
) -> None:
    index = np.array(numbers, np.int64)
    times = timeline.time[np.searchsorted(timeline.number, index)]
    sender.send_shared(b"b", BATCH_HEADER.pack(DECODERS.index(decoder), *pixels.shape[:3]), index, times, large=pixels)


def main(task: dict[str, Any], shared: int, parent: int) -> None:
    """Entry point of the child process."""
    sender = FrameSender(shared, parent)
    try:
        while True:
            _serve(sender, DecodeTask(**task))
            task = sender.next_task()
    except VideoError as error:
        sender.send(b"w", json.dumps([error.problem, error.remedy]).encode())
    # The threads of decord do not always end.
    os._exit(0)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
