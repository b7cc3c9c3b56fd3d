"""Frames as they come, from a camera, a stream or a file at its own pace; of those that come too fast, the newest."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from ..errors import VideoError

OPEN_SECONDS = 15.0
"""A network stream that cannot be opened for so long is given up."""

LONGEST_WAIT = 1.0
"""Seconds: a stream whose clock jumps ahead does not stop for longer."""

Source = int | str | Path
"""A camera's number, a stream's URL, or a file."""


class Arrival(NamedTuple):
    """number: from 0, of the frames that came. time: seconds. picture: uint8 [h, w, 3], RGB."""

    number: int
    time: float
    picture: NDArray[np.uint8]


class Newest(Iterator[tuple[Arrival, int]]):
    """Reads `frames` in a thread of its own and gives the newest there is, with how many older ones were passed over.

    Nothing is queued: a frame that comes before the last one was taken replaces it. `frames` is called with a function
    that waits some seconds and says whether to go on. Use it in a `with`. Raises what `frames` raises, and VideoError
    after `deadline` seconds without a frame.
    """

    def __init__(self, frames: "Callable[[Wait], Iterator[Arrival]]", deadline: float = 60.0) -> None:
        self._frames, self._deadline = frames, deadline
        self._stop, self._news = threading.Event(), threading.Condition()
        self._slot: Arrival | None = None
        self._late, self._over = 0, False
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self._thread.join(2.0)  # a camera that hangs is left behind; the thread ends with the process

    def close(self) -> None:
        """Ends the iteration, from whatever thread or signal handler."""
        self._stop.set()

    def __next__(self) -> tuple[Arrival, int]:
        end = time.monotonic() + self._deadline
        with self._news:
            while self._slot is None and not self._over and not self._stop.is_set():
                self._news.wait(0.1)
                if time.monotonic() > end:
                    raise VideoError(f"no frame came for {self._deadline:g} s", "Check the camera or the stream.")
            if self._stop.is_set() or self._slot is None:
                if self._error is not None:
                    raise self._error
                raise StopIteration
            arrival, late = self._slot, self._late
            self._slot, self._late = None, 0
            return arrival, late

    def _read(self) -> None:
        try:
            for arrival in self._frames(lambda seconds: not self._stop.wait(max(0.0, seconds))):
                with self._news:
                    self._late += self._slot is not None
                    self._slot = arrival
                    self._news.notify()
                if self._stop.is_set():
                    return
        except Exception as error:  # told to whoever waits
            self._error = error
            if not isinstance(error, VideoError):
                raise
        finally:
            with self._news:
                self._over = True
                self._news.notify()


Wait = Callable[[float], bool]


def arrivals(source: Source) -> Callable[[Wait], Iterator[Arrival]]:
    """How to read that source, for Newest: a camera's number, a URL, or a file at the pace of its timestamps.

    Raises VideoError, here or while reading.
    """
    if isinstance(source, int) or (isinstance(source, str) and source.isdigit()):
        return lambda wait: _from_camera(int(source), wait)
    if "://" in str(source):
        return lambda wait: _from_stream(str(source), wait, timeout=OPEN_SECONDS)
    path = Path(source)
    if not path.is_file():
        raise VideoError(f"{path}: there is no such file", "Name a camera's number, a stream's URL, or a video.")
    return lambda wait: _from_stream(str(path.absolute()), wait)


def squeeze(picture: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """The picture as networks get it, uint8 [size, size, 3]: scaled as the decoders scale, so that it is the same."""
    from av import VideoFrame
    from av.video.reformatter import Interpolation

    frame = VideoFrame.from_ndarray(np.ascontiguousarray(picture), "rgb24")
    return np.asarray(frame.reformat(size, size, "rgb24", interpolation=Interpolation.BILINEAR).to_ndarray(), np.uint8)


def _from_camera(number: int, wait: Wait) -> Iterator[Arrival]:
    import cv2

    camera = cv2.VideoCapture(number)
    try:
        if not camera.isOpened():
            raise VideoError(f"camera {number}: cannot be opened", "Check that it is plugged in, free, and permitted.")
        began = time.monotonic()
        count = 0
        while wait(0.0):
            there, picture = camera.read()
            if not there:
                raise VideoError(f"camera {number}: stopped giving pictures", "Plug it in again.")
            yield Arrival(count, time.monotonic() - began, np.asarray(picture[..., ::-1], np.uint8))
            count += 1
    finally:
        camera.release()


def _from_stream(place: str, wait: Wait, timeout: float | None = None) -> Iterator[Arrival]:
    """At the pace of the timestamps, which what is live keeps by itself."""
    import av
    from av.error import FFmpegError

    try:
        container = av.open(place, metadata_errors="ignore", timeout=timeout)
    except (FFmpegError, OSError) as error:
        raise VideoError(f"{place}: cannot be opened ({error.strerror})", "Check the address.") from error
    with container:
        stream = container.streams.best("video")
        if not isinstance(stream, av.VideoStream):
            raise VideoError(f"{place}: has no video stream", "Give one with a picture.")
        began, first, count = time.monotonic(), None, 0
        try:
            for frame in container.decode(stream):
                seconds = frame.time if frame.time is not None else time.monotonic() - began
                first = seconds if first is None else first
                if not wait(min(began + seconds - first - time.monotonic(), LONGEST_WAIT)):
                    return
                picture = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
                yield Arrival(count, seconds - first, np.rot90(picture, round(frame.rotation / 90) % 4))
                count += 1
        except (FFmpegError, OSError) as error:
            if not count:
                remedy = "A file on a server has to be downloaded first where the server only sends it whole."
                raise VideoError(
                    f"{place}: cannot be decoded ({error.strerror})",
                    remedy if "://" in place else "Check it with a player.",
                ) from error
