"""Reads frames live from a camera, a stream, or a file at its own frame rate. Late frames are dropped."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from ...errors import VideoError
from ...processes import need_same_process
from ..walk import fault_of, url_of
from .orientation import orientation_of
from .packets import frames_of
from .timeline import best_video, pixel_aspect_of

OPEN_SECONDS = 15.0
"""Timeout for opening a network stream."""

MAX_WAIT_SECONDS = 1.0
"""Longest wait for a frame's timestamp, in case the timestamps of a stream jump ahead."""

Source = int | str | Path
"""The number of a camera, the URL of a stream, or a file."""


class CapturedFrame(NamedTuple):
    """number: counts the frames of the source from 0. time: seconds. picture: uint8 [h, w, 3], RGB. pixel_aspect: width
    of a displayed pixel divided by its height."""

    number: int
    time: float
    picture: NDArray[np.uint8]
    pixel_aspect: float = 1.0


class LatestFrame(Iterator[tuple[CapturedFrame, int]]):
    """Reads `frames` in a thread and yields the newest frame with the number of frames dropped before it.

    There is no queue: a new frame replaces one that was not read. `frames` is called with a function that waits some
    seconds and returns whether to continue. Use it in a `with` block. Raises the exceptions of `frames`, and VideoError
    after `deadline` seconds without a frame.
    """

    def __init__(self, frames: "Callable[[Wait], Iterator[CapturedFrame]]", deadline: float = 60.0) -> None:
        self._frames, self._deadline = frames, deadline
        self._stop, self._changed = threading.Event(), threading.Condition()
        self._slot: CapturedFrame | None = None
        self._dropped, self._ended = 0, False
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._owner = os.getpid()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self._thread.join(2.0)  # a camera may hang; the thread ends with the process

    def close(self) -> None:
        """Ends the iteration. Can be called from any thread or signal handler."""
        self._stop.set()

    def __next__(self) -> tuple[CapturedFrame, int]:
        need_same_process(self._owner, "the stream")
        end = time.monotonic() + self._deadline
        with self._changed:
            while self._slot is None and not self._ended and not self._stop.is_set():
                self._changed.wait(0.1)
                if time.monotonic() > end:
                    raise VideoError(f"no frame arrived for {self._deadline:g} s", "Check the camera or the stream.")
            if self._stop.is_set() or self._slot is None:
                if self._error is not None:
                    raise self._error
                raise StopIteration
            frame, dropped = self._slot, self._dropped
            self._slot, self._dropped = None, 0
            return frame, dropped

    def _read(self) -> None:
        try:
            for frame in self._frames(lambda seconds: not self._stop.wait(max(0.0, seconds))):
                with self._changed:
                    self._dropped += self._slot is not None
                    self._slot = frame
                    self._changed.notify()
                if self._stop.is_set():
                    return
        except Exception as error:  # raised again in __next__
            self._error = error
            if not isinstance(error, VideoError):
                raise
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify()


Wait = Callable[[float], bool]


def captured_frames(source: Source) -> Callable[[Wait], Iterator[CapturedFrame]]:
    """Returns the `frames` of LatestFrame for a source. A file is read at the rate of its timestamps.

    Raises VideoError, here or while reading.
    """
    if isinstance(source, int) or (isinstance(source, str) and source.isdigit()):
        return lambda wait: _from_camera(int(source), wait)
    url = url_of(source)
    if url is not None:
        return lambda wait: _from_stream(url, wait, timeout=OPEN_SECONDS)
    path = Path(source)
    fault = fault_of(path)
    if fault is not None:
        allowed = "Allowed: the number of a camera, the URL of a stream, or a video file."
        near = fault.remedy if fault.remedy.startswith("Did you mean") else ""
        raise VideoError(f"{path}: {fault.message}", f"{near} {allowed}".strip())
    return lambda wait: _from_stream(str(path.absolute()), wait)


def resize_square(picture: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Scales a frame to uint8 [size, size, 3] with the filter of the decoders, so that the pixels are equal."""
    from av import VideoFrame
    from av.video.reformatter import Interpolation

    frame = VideoFrame.from_ndarray(np.ascontiguousarray(picture), "rgb24")
    return np.asarray(frame.reformat(size, size, "rgb24", interpolation=Interpolation.BILINEAR).to_ndarray(), np.uint8)


def _from_camera(number: int, wait: Wait) -> Iterator[CapturedFrame]:
    import cv2

    camera = cv2.VideoCapture(number)
    try:
        if not camera.isOpened():
            raise VideoError(
                f"camera {number}: cannot be opened",
                "Check the connection and the permissions.",
            )
        began = time.monotonic()
        count = 0
        while wait(0.0):
            ok, picture = camera.read()
            if not ok:
                raise VideoError(f"camera {number}: stopped sending frames", "Connect it again.")
            yield CapturedFrame(count, time.monotonic() - began, np.asarray(picture[..., ::-1], np.uint8))
            count += 1
    finally:
        camera.release()


def _from_stream(source: str, wait: Wait, timeout: float | None = None) -> Iterator[CapturedFrame]:
    """Frames at the rate of their timestamps. A live stream is not delayed by this."""
    import av
    from av.error import FFmpegError

    try:
        container = av.open(source, metadata_errors="ignore", timeout=timeout)
    except (FFmpegError, OSError) as error:
        raise VideoError(f"{source}: cannot be opened ({error.strerror})", "Check the address.") from error
    with container:
        stream = best_video(container)
        if stream is None:
            raise VideoError(f"{source}: has no video", "Give a source with a video stream.")
        began, first, count = time.monotonic(), None, 0
        try:
            for frame in frames_of(container, stream):
                seconds = frame.time if frame.time is not None else time.monotonic() - began
                first = seconds if first is None else first
                if not wait(min(began + seconds - first - time.monotonic(), MAX_WAIT_SECONDS)):
                    return
                picture = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
                orientation = orientation_of(frame)
                aspect = pixel_aspect_of(stream, orientation)
                yield CapturedFrame(count, seconds - first, orientation.apply(picture), aspect)
                count += 1
        except (FFmpegError, OSError) as error:
            if not count:
                remedy = "If the server cannot send parts of the file, download it first."
                raise VideoError(
                    f"{source}: cannot be decoded ({error.strerror})",
                    remedy if "://" in source else "Check whether a video player can play it.",
                ) from error
