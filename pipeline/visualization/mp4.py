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
from .sound import SoundLoss, aac_rate, open_sound, resampled

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

    sound: a file whose best audio stream is added, or None.
    Raises WorkError, and VideoError if pictures cannot be encoded.
    """

    def __init__(self, path: Path, width: int, height: int, rate: float, sound: Path | None = None) -> None:
        self.path, self._loss = path, SoundLoss()
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
                    self._sound: Sound = add_sound(sound, self._out, self._loss) if add_sound and sound else iter(())
                    self._out.start_encoding()
                    break
                except (FFmpegError, ValueError) as error:
                    with contextlib.suppress(FFmpegError, OSError):
                        self._out.close()
                    if add_sound is None or _is_file_error(error):
                        self._file.discard()
                        raise
                    if add_sound is _encode_sound:
                        self._loss.add(error)

    @property
    def silent(self) -> str:
        """Why sound is missing or incomplete, else empty."""
        return self._loss.reason

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
            self._sound, self._waiting = iter(()), None
            self._loss.add(error)

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


def _copy_sound(path: Path, out: "OutputContainer", loss: SoundLoss) -> "Sound":
    """Adds a stream for the sound of `path` to `out`. Yields the time of each packet in seconds, and the packet."""
    opened = open_sound(path, loss)
    if opened is None:
        return iter(())
    source, found = opened
    if found.codec_context.name not in COPIED:
        source.close()
        return _encode_sound(path, out, loss)
    return _copied(source, found, out.add_stream_from_template(found), loss)


def _encode_sound(path: Path, out: "OutputContainer", loss: SoundLoss) -> "Sound":
    """Like `_copy_sound`, but encodes the sound as AAC."""
    opened = open_sound(path, loss)
    if opened is None:
        return iter(())
    source, found = opened
    new = cast("AudioStream", out.add_stream("aac", rate=aac_rate(found.codec_context.sample_rate)))
    new.codec_context.layout = "stereo" if (found.codec_context.channels or 1) > 1 else "mono"
    return _transcoded(source, found, new, loss)


def _start_of(source: "InputContainer") -> float:
    """The start of a file on its clock, in seconds."""
    return (source.start_time or 0) / av.time_base


def _copied(source: "InputContainer", old: av.AudioStream, new: av.AudioStream, loss: SoundLoss) -> "Sound":
    base = float(old.time_base or 1)
    start = round(_start_of(source) / base)
    due = None
    with source:
        for packet in _readable(source, old, loss):
            if packet.dts is None or packet.pts is None:
                continue
            begin = packet.dts - start
            offset = packet.pts - packet.dts
            if due is not None and begin < due[0]:  # times in an MP4 must rise
                begin = due[1]
            due = begin + 1, begin + max(packet.duration or 0, 1)
            packet.pts, packet.dts = begin + offset, begin
            seconds, packet.stream = packet.pts * base, new
            yield seconds, packet


def _readable(source: "InputContainer", stream: av.AudioStream, loss: SoundLoss) -> "Iterator[Packet]":
    """The packets before damage, if there is any."""
    try:
        yield from packets_of(source, stream)
    except FFmpegError as error:
        loss.add(error)


def _transcoded(source: "InputContainer", old: av.AudioStream, new: av.AudioStream, loss: SoundLoss) -> "Sound":
    rate, layout = new.codec_context.sample_rate, new.codec_context.layout.name
    with source:
        for frame in resampled(source, old, loss, rate=rate, layout=layout, start=_start_of(source)):
            yield from ((float(packet.pts or 0) / rate, packet) for packet in new.encode(frame))
        yield from ((float(packet.pts or 0) / rate, packet) for packet in new.encode(None))
