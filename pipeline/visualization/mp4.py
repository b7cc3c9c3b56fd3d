"""Writes an H.264 video frame by frame in constant memory, with the sound of another file."""

import contextlib
import errno
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Self, cast

import av
import numpy as np
from av.error import FFmpegError
from numpy.typing import NDArray

from ..errors import VideoError
from ..ingest.video.packets import packets_of
from ..storage.atomic import Replacement, unwritable
from .sound import aac_rate, resampled

if TYPE_CHECKING:
    from av import AudioStream, Packet
    from av.container import InputContainer, OutputContainer

    Sound = Iterator[tuple[float, Packet]]

TICK = Fraction(1, 90000)
COPIED = ("aac", "mp3", "ac3", "eac3", "alac", "opus")
"""Audio codecs that are copied into the MP4. Other sound is encoded as AAC."""

_FILE_ERRORS = (
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG, errno.EACCES, errno.ENOENT, errno.ENOTDIR,
    errno.EISDIR, errno.ENAMETOOLONG, errno.EILSEQ, errno.EMFILE, errno.ENFILE,
)  # fmt: skip
"""Error numbers of the file system. Other errors come from the encoder."""


class Mp4:
    """Use it in a `with`: the file appears at its end, and not at all after an error. width, height: even, in pixels.

    sound: a file whose best audio stream is added, or None. silent: why sound is missing or incomplete, else empty.
    Raises WorkError, and VideoError if pictures cannot be encoded.
    """

    def __init__(self, path: Path, width: int, height: int, rate: float, sound: Path | None = None) -> None:
        self.path, self.silent = path, ""
        self._size = f"{width} x {height}"
        self._last = -1
        self._waiting: tuple[float, Packet] | None = None
        with self._translated_errors():
            self._file = Replacement(path)
            temporary = str(self._file.temporary.absolute())  # in a relative path, FFmpeg reads "a:" as a protocol
            fps = Fraction(min(max(rate, 1.0), 240.0)).limit_denominator(1001)
            # MP4 refuses some sound in codecs that it supports, for example MP3 below 16 kHz.
            options = {"preset": "veryfast", "crf": "20"}
            for add_sound in (_copy_sound, _encode_sound, None) if sound else (None,):
                self._out = av.open(temporary, "w", format="mp4", options={"movflags": "faststart"})
                try:
                    self._stream = self._out.add_stream("libx264", rate=fps, options=options)
                    self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
                    self._stream.codec_context.time_base = TICK
                    self._sound: Sound = add_sound(sound, self._out) if add_sound and sound else iter(())
                    self._out.start_encoding()
                    break
                except (FFmpegError, ValueError) as error:
                    with contextlib.suppress(FFmpegError, OSError):
                        self._out.close()
                    if add_sound is None or _is_file_error(error):
                        self._file.discard()
                        raise
                    self.silent = str(error) if add_sound is _encode_sound else ""

    def add(self, picture: NDArray[np.uint8], seconds: float) -> None:
        """Adds a frame, uint8 [h, w, 3] RGB. seconds: its time, later than that of the frame before."""
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), "rgb24")
        self._last = max(round(seconds / TICK), self._last + 1)
        frame.pts, frame.time_base = self._last, TICK
        with self._translated_errors():
            self._write_sound(seconds)
            self._out.mux(self._stream.encode(frame))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                with self._translated_errors():
                    self._write_sound(float("inf"))
                    self._out.mux(self._stream.encode())
                    self._out.close()
                    self._file.commit()
        finally:
            with contextlib.suppress(FFmpegError, OSError):
                self._out.close()
            self._file.discard()

    def _write_sound(self, until: float) -> None:
        """Writes the sound until that second, so that the file interleaves picture and sound."""
        try:
            while True:
                self._waiting = self._waiting or next(self._sound, None)
                if self._waiting is None or self._waiting[0] > until:
                    return
                self._out.mux(self._waiting[1])
                self._waiting = None
        except (FFmpegError, ValueError) as error:
            if _is_file_error(error):
                raise
            self._sound, self._waiting, self.silent = iter(()), None, str(error)

    @contextlib.contextmanager
    def _translated_errors(self) -> Iterator[None]:
        try:
            yield
        except (FFmpegError, OSError) as error:
            if isinstance(error, FFmpegError) and not _is_file_error(error):
                reason = error.strerror or error
                raise VideoError(
                    f"{self.path}: frames of {self._size} pixels cannot be encoded as H.264 ({reason})",
                    "Scale the video with ffmpeg, or leave out the overlay.",
                ) from error
            raise unwritable(self.path, error, "another folder") from error


def _is_file_error(error: Exception) -> bool:
    return isinstance(error, OSError | FFmpegError) and error.errno in _FILE_ERRORS


def _open_sound(path: Path) -> "tuple[InputContainer, AudioStream, float] | None":
    """The file, its best audio stream and its start time in seconds; None without sound."""
    try:
        source = av.open(str(path.absolute()), metadata_errors="ignore")
    except (FFmpegError, OSError):
        return None
    found = source.streams.best("audio")
    if not isinstance(found, av.AudioStream) or not found.codec_context.sample_rate:
        source.close()
        return None
    return source, found, (source.start_time or 0) / av.time_base


def _copy_sound(path: Path, out: "OutputContainer") -> "Sound":
    """Adds a stream for the sound of `path` to `out`. Yields the time of each packet in seconds, and the packet."""
    opened = _open_sound(path)
    if opened is None:
        return iter(())
    source, found, start = opened
    if found.codec_context.name not in COPIED:
        return _encode_sound(path, out)
    return _copied(source, found, out.add_stream_from_template(found), start)


def _encode_sound(path: Path, out: "OutputContainer") -> "Sound":
    """Like `_copy_sound`, but encodes the sound as AAC."""
    opened = _open_sound(path)
    if opened is None:
        return iter(())
    source, found, start = opened
    new = cast("AudioStream", out.add_stream("aac", rate=aac_rate(found.codec_context.sample_rate)))
    new.codec_context.layout = "stereo" if (found.codec_context.channels or 1) > 1 else "mono"
    return _transcoded(source, found, new, start)


def _copied(source: "InputContainer", old: av.AudioStream, new: av.AudioStream, start: float) -> "Sound":
    base = float(old.time_base or 1)
    due = None
    with source, contextlib.suppress(FFmpegError):
        for packet in packets_of(source, old):
            if packet.dts is None or packet.pts is None:
                continue
            begin = packet.dts - round(start / base)
            offset = packet.pts - packet.dts
            if due is not None and begin < due[0]:  # times in an MP4 must rise
                begin = due[1]
            due = begin + 1, begin + max(packet.duration or 0, 1)
            packet.pts, packet.dts = begin + offset, begin
            seconds, packet.stream = packet.pts * base, new
            yield seconds, packet


def _transcoded(source: "InputContainer", old: av.AudioStream, new: av.AudioStream, start: float) -> "Sound":
    context = new.codec_context
    tick = 1 / context.sample_rate
    with source:
        for frame in resampled(source, old, rate=context.sample_rate, layout=context.layout.name, start=start):
            yield from ((float(packet.pts or 0) * tick, packet) for packet in new.encode(frame))
        yield from ((float(packet.pts or 0) * tick, packet) for packet in new.encode(None))
