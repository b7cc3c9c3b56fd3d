"""Videos are decoded upright and displayed with the right shape: display matrices, non-square pixels, covers."""

import itertools
import json
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from affect.pipeline.errors import VideoError
from affect.pipeline.inference.trace import TraceData
from affect.pipeline.ingest.video.decode import decode, decoded, probe
from affect.pipeline.ingest.video.live import captured_frames
from affect.pipeline.ingest.video.thumbnails import frames_at
from affect.pipeline.progress import Reporter
from affect.pipeline.visualization.clip import as_json, read_clip, with_web_video
from affect.pipeline.visualization.overlay_video import render_frame, write_overlay_video
from affect.pipeline.visualization.web_video import make_web_video

W, H = 128, 64
ONE = 1 << 16
CORNERS = np.array([[(220, 30, 30), (30, 200, 30)], [(30, 30, 220), (230, 230, 230)]], np.uint8)
"""Top left, top right; bottom left, bottom right."""


def drawn(width: int = W, height: int = H) -> np.ndarray:
    return cv2.resize(CORNERS, (width, height), interpolation=cv2.INTER_NEAREST)


def write_video(path: Path, aspect: Fraction | None = None, frames: int = 12, width: int = W, height: int = H) -> Path:
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"crf": "10"})
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(drawn(width, height), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def with_matrix(path: Path, a: int, b: int, c: int, d: int) -> Path:
    """Writes the display matrix of the only track of an MP4."""
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 4 + 40
    x, y = W * (a < 0) + H * (c < 0), W * (b < 0) + H * (d < 0)
    data[place : place + 36] = struct.pack(">9i", a * ONE, b * ONE, 0, c * ONE, d * ONE, 0, x * ONE, y * ONE, 1 << 30)
    path.write_bytes(data)
    return path


MATRICES = [(a, 0, 0, d) for a, d in itertools.product((1, -1), repeat=2)]
MATRICES += [(0, b, c, 0) for b, c in itertools.product((1, -1), repeat=2)]


def moved(a: int, b: int, c: int, d: int) -> np.ndarray:
    """The four corners after the matrix, which moves the pixel (x, y) to (a x + c y, b x + d y)."""
    out = np.zeros_like(CORNERS)
    for y, x in itertools.product((0, 1), repeat=2):
        across, down = a * (2 * x - 1) + c * (2 * y - 1), b * (2 * x - 1) + d * (2 * y - 1)
        out[(down + 1) // 2, (across + 1) // 2] = CORNERS[y, x]
    return out


def corners(picture: np.ndarray) -> np.ndarray:
    h, w = picture.shape[:2]
    return np.array(
        [[picture[h // 4, w // 4], picture[h // 4, -w // 4]], [picture[-h // 4, w // 4], picture[-h // 4, -w // 4]]]
    )


@pytest.mark.parametrize("matrix", MATRICES)
def test_each_of_the_eight_orientations_is_upright(tmp_path: Path, matrix: tuple[int, int, int, int]) -> None:
    path = with_matrix(write_video(tmp_path / "a.mp4"), *matrix)
    expected = moved(*matrix).astype(int)
    facts = probe(path)
    assert (facts.width, facts.height) == ((W, H) if matrix[0] else (H, W))
    first = decoded(path, None, lambda decoding: next(decoding).pixels[0].copy())
    squeezed = decoded(path, 64, lambda decoding: next(decoding).pixels[0].copy())
    seen = frames_at(path, [0.2])[0]
    live = next(captured_frames(path)(lambda _: True)).picture
    assert seen is not None
    for picture in (first, seen.picture, live):
        assert picture.shape == (facts.height, facts.width, 3)
    for picture in (first, squeezed, seen.picture, live):
        np.testing.assert_allclose(corners(picture), expected, atol=25)


def prediction(folder: Path, path: Path, box: tuple[float, float, float, float]) -> TraceData:
    """The files that `predict` writes for a video with one fixed face box."""
    facts = probe(path)
    time = np.arange(facts.frames) / 25
    row = f"0.9,0.5,-0.5,{','.join(map(str, box))}\n"
    rows = "".join(f"{number},{seconds:.4f},{row}" for number, seconds in enumerate(time))
    (folder / "v.csv").write_text(f"frame,time,face,valence,arousal,x0,y0,x1,y1\n{rows}")
    (folder / "v.facts.json").write_text(json.dumps({"source": str(path), "facts": {}}))
    n = facts.frames
    return TraceData(
        "v", path, np.arange(n), time, np.full(n, 0.9, np.float32), np.ones(n, bool), np.full(n, 0.5), np.full(n, -0.5),
        np.tile(np.array(box, np.float32), (n, 1)),
    )  # fmt: skip


@pytest.mark.parametrize(("aspect", "shape"), [(Fraction(16, 9), (320, 180)), (Fraction(9, 16), (180, 320))])
def test_a_video_with_non_square_pixels_has_its_displayed_shape_everywhere(
    tmp_path: Path, aspect: Fraction, shape: tuple[int, int]
) -> None:
    path = write_video(tmp_path / "wide.mp4", aspect, width=180, height=180)
    facts = probe(path)
    assert (facts.width, facts.height) == (180, 180), "boxes are in stored pixels"
    assert facts.shape == shape
    trace = prediction(tmp_path, path, (90, 45, 135, 90))
    write_overlay_video(tmp_path / "overlay.mp4", [trace], Reporter(quiet=True), "overlay")
    overlay = probe(tmp_path / "overlay.mp4")
    assert (overlay.width, overlay.height, overlay.pixel_aspect) == (*shape, 1)
    picture = render_frame([trace], 0.1)
    assert picture.shape == (shape[1], shape[0], 3)
    np.testing.assert_allclose(picture[8, [8, -8]], CORNERS[0], atol=25)
    # The upper left corner of the box is at half the width and a quarter of the height of the frame.
    spot = picture[shape[1] // 4 - 3 : shape[1] // 4 + 4, shape[0] // 2 - 3 : shape[0] // 2 + 4].astype(int)
    plain = cv2.resize(drawn(180, 180), shape)[
        shape[1] // 4 - 3 : shape[1] // 4 + 4, shape[0] // 2 - 3 : shape[0] // 2 + 4
    ]
    assert np.abs(spot - plain).max() > 80
    page = as_json(with_web_video(read_clip(tmp_path, "v", 0.5), 1_000_000, Reporter(quiet=True)))
    assert (page["width"], page["height"]) == shape
    assert page["rows"]["box"][0] == [shape[0] // 2, shape[1] // 4, shape[0] * 3 // 4, shape[1] // 2]
    data = make_web_video(path, 1_000_000).data
    (tmp_path / "page.mp4").write_bytes(data)
    assert probe(tmp_path / "page.mp4").shape == shape
    (seen,) = frames_at(path, [0.1])
    assert seen is not None
    assert seen.pixel_aspect == pytest.approx(float(aspect))
    assert next(captured_frames(path)(lambda _: True)).pixel_aspect == pytest.approx(float(aspect))


def test_a_rotated_video_has_the_inverse_pixel_aspect(tmp_path: Path) -> None:
    path = with_matrix(write_video(tmp_path / "a.mp4", Fraction(1, 2)), 0, 1, -1, 0)
    facts = probe(path)
    assert (facts.width, facts.height, facts.pixel_aspect) == (H, W, 2)
    assert facts.shape == (2 * H, W)


def test_an_invalid_pixel_aspect_is_ignored(tmp_path: Path) -> None:
    assert probe(write_video(tmp_path / "a.mp4", Fraction(255, 1))).shape == (W, H)


def cover(path: Path) -> bytes:
    with av.open(str(path), "w", format="image2") as out:
        stream = out.add_stream("mjpeg", rate=1)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = W, H, "yuvj420p"
        out.mux(stream.encode(av.VideoFrame.from_ndarray(drawn(), format="rgb24")))
        out.mux(stream.encode(None))
    return path.read_bytes()


def song(path: Path) -> Path:
    """An MP3 file with a cover image in an ID3 tag."""
    bare = path.with_name("bare.mp3")
    with av.open(str(bare), "w", options={"id3v2_version": "0", "write_id3v1": "0"}) as out:
        stream = out.add_stream("libmp3lame", rate=44_100)
        assert isinstance(stream, av.AudioStream)
        stream.codec_context.layout = "mono"
        for start in range(0, 44_100, 1152):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1152), np.int16), format="s16", layout="mono")
            frame.sample_rate, frame.pts = 44_100, start
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    body = b"\0image/jpeg\0\x03\0" + cover(path.with_name("cover.jpg"))
    size = len(body) + 10
    head = b"ID3\x03\0\0" + bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))
    path.write_bytes(head + b"APIC" + len(body).to_bytes(4, "big") + b"\0\0" + body + bare.read_bytes())
    return path


def test_sound_with_a_cover_image_is_not_a_video(tmp_path: Path) -> None:
    path = song(tmp_path / "song.mp3")
    readers: list[Callable[[], object]] = [
        lambda: probe(path), lambda: decode(path, 64), lambda: next(captured_frames(path)(lambda _: True))
    ]  # fmt: skip
    with av.open(str(path)) as container:
        assert container.streams.video, "the cover"
    for reader in readers:
        with pytest.raises(VideoError, match="has no video") as caught:
            reader()
        assert caught.value.remedy
