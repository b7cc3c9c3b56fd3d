"""Sound videos to be damaged: the beginnings of real ones, the demo's, and films in every container."""

from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import cv2
import numpy as np
from affect.pipeline.ingest.catalog import VIDEO_SUFFIXES

REAL = Path(__file__).resolve().parents[3] / "shared" / "data"
FRAMES, DEMO = 64, 5
FILMS = {
    "mp4-h264.mp4": "libx264", "mov-hevc.mov": "libx265", "mkv-h264.mkv": "libx264", "webm-vp9.webm": "libvpx-vp9",
    "avi-mpeg4.avi": "mpeg4", "avi-mjpeg.avi": "mjpeg", "ts-h264.ts": "libx264", "webm-vp8.webm": "libvpx",
}  # fmt: skip


def gather(folder: Path, demo: Path | None) -> list[Path]:
    """Puts the sound videos into a folder, each of about `FRAMES` frames. demo: a demo set, whose are taken as well."""
    folder.mkdir(parents=True, exist_ok=True)
    found = [film(folder / name, codec) for name, codec in FILMS.items()]
    for path in sorted(REAL.glob("*.m[po][4v]")) if REAL.is_dir() else ():
        found.append(beginning(path, folder / f"real-{path.name}"))
    if demo:
        videos = [path for path in (demo / "videos").rglob("*.*") if path.suffix in VIDEO_SUFFIXES]
        for path in sorted(videos, key=lambda path: (path.stat().st_size, path.name))[:DEMO]:
            found.append(beginning(path, folder / f"demo-{path.name}"))
    return found


def film(path: Path, codec: str) -> Path:
    """A video in which no two frames are alike: a ball on its way over a background that turns its colour."""
    with av.open(str(path), "w") as out:
        stream = cast(av.VideoStream, out.add_stream(codec, rate=25))
        stream.width, stream.height = 160, 96
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.gop_size = 12
        # One thread, so that the same call makes the same file.
        stream.codec_context.thread_count = 1
        stream.options = {"x265-params": "log-level=none:pools=none"} if codec == "libx265" else {}
        for number in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def picture(number: int) -> np.ndarray:
    """uint8 [96, 160, 3], RGB."""
    canvas = np.empty((96, 160, 3), np.uint8)
    canvas[:] = [int(128 + 100 * np.sin(number / period)) for period in (7, 11, 17)]
    for bit in range(7):  # its number in bars, which tells neighbours apart
        canvas[72:, bit * 23 : bit * 23 + 20] = 255 * (number >> bit & 1)
    centre = int(80 + 60 * np.cos(number / 9)), int(36 + 20 * np.sin(number / 5))
    return np.asarray(cv2.circle(canvas, centre, 14, (250, 240, 60), -1), np.uint8)


def beginning(path: Path, out: Path) -> Path:
    """The first frames of a real video, its packets as they are."""
    with av.open(str(path)) as source, av.open(str(out), "w") as copy:
        track = source.streams.video[0]
        stream = copy.add_stream_from_template(track)
        for number, packet in enumerate(source.demux(track)):
            if number >= FRAMES or packet.dts is None:
                break
            packet.stream = stream
            copy.mux(packet)
    return out
