"""Other video readers to compare affect with. Each runs in its own process and reads file names from standard input.

    python -m affect.benchmarks.torture.readers READER OUT.npz

`pyav` is the reference: every frame that decodes, with its time. `opencv` and `decord` read as the first examples of
their documentation do, and number the frames by counting.
"""

import os
import select
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

SIDE = 32
"""Pictures are compared at this size, because it averages out the noise of codecs."""


@dataclass(frozen=True)
class ReadResult:
    """The result of a reader for a file.

    outcome: `read`, `refused`, `hung` or `crashed`. time: float64 [n]. picture: uint8 [n, 32, 32, 3].
    """

    outcome: str
    time: np.ndarray
    picture: np.ndarray


class Reader:
    """A reader process. It starts again after a file that hangs or crashes it. Use it in a `with` block."""

    def __init__(self, name: str, folder: Path) -> None:
        self._name, self._out = name, folder / f"{name}.{os.getpid()}.npz"
        self._process: subprocess.Popen[bytes] | None = None

    def read(self, path: Path, seconds: float = 30) -> ReadResult:
        """Reads a file. seconds: the time limit."""
        nothing = np.zeros(0), np.zeros((0, SIDE, SIDE, 3), np.uint8)
        process = self._process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{path}\n".encode())
        process.stdin.flush()
        if not select.select([process.stdout], [], [], seconds)[0]:
            self._stop()
            return ReadResult("hung", *nothing)
        answer = process.stdout.readline().decode().strip()
        if not answer:
            self._stop()
            return ReadResult("crashed", *nothing)
        with np.load(self._out) as result:
            return ReadResult("read" if len(result["time"]) else "refused", result["time"], result["picture"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        self._out.unlink(missing_ok=True)

    def _start(self) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "affect.benchmarks.torture.readers", self._name, str(self._out)]
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )  # fmt: skip

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            with process:
                pass


def thumbnail(picture: np.ndarray) -> np.ndarray:
    """Resizes uint8 [h, w, 3] to uint8 [32, 32, 3]."""
    import cv2

    return np.asarray(cv2.resize(cv2.resize(picture, (64, 64)), (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.uint8)


def by_pyav(path: str) -> Iterator[tuple[float, np.ndarray]]:
    import av
    from av.error import FFmpegError

    with av.open(path, metadata_errors="ignore") as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        try:
            for packet in container.demux(stream):
                try:
                    for frame in packet.decode():
                        if isinstance(frame, av.VideoFrame):
                            time = float(frame.pts * (frame.time_base or 0)) if frame.pts is not None else np.nan
                            yield time, np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
                except FFmpegError:
                    continue
        except (FFmpegError, OSError):
            return


def by_opencv(path: str) -> Iterator[tuple[float, np.ndarray]]:
    import cv2

    video = cv2.VideoCapture(path)
    number = 0
    while True:
        success, picture = video.read()
        if not success:
            return
        yield number, picture[:, :, ::-1]
        number += 1


def by_decord(path: str) -> Iterator[tuple[float, np.ndarray]]:
    import decord

    decord.logging.set_level(decord.logging.FATAL)
    reader: Any = decord.VideoReader(path, num_threads=2)
    for number in range(len(reader)):
        yield number, reader[number].asnumpy()


READERS = {"pyav": by_pyav, "opencv": by_opencv, "decord": by_decord}


def main(name: str, out: str) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print to stdout; only answers may go to the parent
    for line in sys.stdin:
        times, pictures = [], []
        try:
            for time, picture in READERS[name](line.rstrip("\n")):
                times.append(time)
                pictures.append(thumbnail(np.ascontiguousarray(picture)))
        except Exception as error:  # noqa: BLE001  (any exception counts as `refused`)
            print(error, file=sys.stderr)
        shape = (-1, SIDE, SIDE, 3)
        np.savez(out, time=np.array(times), picture=np.array(pictures, np.uint8).reshape(shape))
        print("done", file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:3])
