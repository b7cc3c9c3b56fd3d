"""Intact videos to damage: drawn ones in several containers, and the first frames of real and demo videos."""

from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import cv2
import numpy as np
from affect.pipeline.ingest.walk import VIDEO_SUFFIXES

REAL = Path(__file__).resolve().parents[3] / "shared" / "data"
FRAMES, DEMO = 64, 5
CODECS = {
    "mp4-h264.mp4": "libx264", "mov-hevc.mov": "libx265", "mkv-h264.mkv": "libx264", "webm-vp9.webm": "libvpx-vp9",
    "avi-mpeg4.avi": "mpeg4", "avi-mjpeg.avi": "mjpeg", "ts-h264.ts": "libx264", "webm-vp8.webm": "libvpx",
}  # fmt: skip


def gather(folder: Path, demo: Path | None) -> list[Path]:
    """Collects the intact videos in a folder, each with about `FRAMES` frames. demo: a data set to take some from."""
    folder.mkdir(parents=True, exist_ok=True)
    found = [write_video(folder / name, codec) for name, codec in CODECS.items()]
    for path in sorted(REAL.glob("*.m[po][4v]")) if REAL.is_dir() else ():
        found.append(copy_beginning(path, folder / f"real-{path.name}"))
    if demo:
        videos = [path for path in (demo / "videos").rglob("*.*") if path.suffix in VIDEO_SUFFIXES]
        for path in sorted(videos, key=lambda path: (path.stat().st_size, path.name))[:DEMO]:
            found.append(copy_beginning(path, folder / f"demo-{path.name}"))
    return found


def write_video(path: Path, codec: str) -> Path:
    """Writes a video of a moving ball on a background of changing colour. No two frames are alike."""
    with av.open(str(path), "w") as out:
        stream = cast(av.VideoStream, out.add_stream(codec, rate=25))
        stream.width, stream.height = 160, 96
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.gop_size = 12
        # With one thread, each call writes the same bytes.
        stream.codec_context.thread_count = 1
        stream.options = {"x265-params": "log-level=none:pools=none"} if codec == "libx265" else {}
        for number in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def picture(number: int) -> np.ndarray:
    """The picture of a frame, uint8 [96, 160, 3], RGB."""
    canvas = np.empty((96, 160, 3), np.uint8)
    canvas[:] = [int(128 + 100 * np.sin(number / period)) for period in (7, 11, 17)]
    for bit in range(7):  # bars show the frame number in binary
        canvas[72:, bit * 23 : bit * 23 + 20] = 255 * (number >> bit & 1)
    centre = int(80 + 60 * np.cos(number / 9)), int(36 + 20 * np.sin(number / 5))
    return np.asarray(cv2.circle(canvas, centre, 14, (250, 240, 60), -1), np.uint8)


def copy_beginning(path: Path, out: Path) -> Path:
    """Copies the packets of the first frames of a video."""
    with av.open(str(path)) as source, av.open(str(out), "w") as copy:
        track = source.streams.video[0]
        stream = copy.add_stream_from_template(track)
        for number, packet in enumerate(source.demux(track)):
            if number >= FRAMES or packet.dts is None:
                break
            packet.stream = stream
            copy.mux(packet)
    return out
