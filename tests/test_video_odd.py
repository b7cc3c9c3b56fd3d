"""Odd videos, each with its outcome: what is shown comes with its number, what cannot be is refused in one line."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
import pytest
from affect.pipeline.errors import VideoError
from affect.pipeline.ingest import child
from affect.pipeline.ingest.numbering import Packet, by_chunks, by_rhythm
from affect.pipeline.ingest.video import decode, decoded, frame_times, probe

FRAMES = 24


def draw(number: int, width: int, height: int) -> np.ndarray:
    """A picture that says its number in five bars."""
    picture = np.full((height, width, 3), 40, np.uint8)
    for bit in range(5):
        if number >> bit & 1:
            picture[:, bit * width // 5 : (bit + 1) * width // 5] = 220
    return picture


def said(picture: np.ndarray) -> int:
    width = picture.shape[1]
    middles = [int((bit + 0.5) * width / 5) for bit in range(5)]
    return sum(int(picture[:, x - 2 : x + 3].mean() > 128) << bit for bit, x in enumerate(middles))


def film(path: Path, codec: str, pixels: str = "yuv420p", width: int = 96, height: int = 64, **options: str) -> Path:
    with av.open(str(path), "w") as out:
        stream = cast(av.VideoStream, out.add_stream(codec, rate=25, options=options))
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        stream.codec_context.gop_size = 12
        for number in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(draw(number, width, height), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def seen(path: Path, size: int | None = 100) -> tuple[list[int], list[int]]:
    """The numbers given and the numbers shown."""

    def use(decoding: object) -> tuple[list[int], list[int]]:
        batches = list(decoding)  # type: ignore[call-overload]
        given = [number for batch in batches for number in batch.index.tolist()]
        return given, [said(picture) for batch in batches for picture in batch.pixels]

    return decoded(path, size, use)


QUIET = {"x265-params": "log-level=none"}
ODD = [
    ("ten-bit.mp4", "libx264", "yuv420p10le", 96, 64, {}),
    ("ten-bit-hevc.mp4", "libx265", "yuv420p10le", 96, 64, QUIET),
    ("444.mp4", "libx264", "yuv444p", 96, 64, {}),
    ("odd-size.mp4", "libx264", "yuv444p", 97, 63, {}),
    ("narrow.mp4", "libx264", "yuv420p", 320, 16, {}),
    ("interlaced.mp4", "libx264", "yuv420p", 96, 64, {"flags": "+ilme+ildct"}),
    ("b-frames.mp4", "libx264", "yuv420p", 96, 64, {"bf": "3", "b-pyramid": "normal"}),
    ("open-gop.mkv", "libx264", "yuv420p", 96, 64, {"x264-params": "open-gop=1", "bf": "2"}),
    ("av1.mp4", "libsvtav1", "yuv420p", 96, 64, {"preset": "8", "crf": "10"}),
    ("grey.avi", "ffv1", "gray", 96, 64, {}),
    ("odd-size.webm", "libvpx-vp9", "yuv420p", 97, 63, {"crf": "10", "b": "0"}),
    ("ten-bit.webm", "libsvtav1", "yuv420p10le", 96, 64, {"preset": "8", "crf": "10"}),
    ("av1.webm", "libsvtav1", "yuv420p", 96, 64, {"preset": "8", "crf": "10"}),
    ("interlaced.mkv", "mpeg2video", "yuv420p", 96, 64, {"flags": "+ilme+ildct", "b": "2M"}),
    ("hevc.mkv", "libx265", "yuv420p", 96, 64, QUIET),
    ("editing.mov", "prores_ks", "yuv422p10le", 96, 64, {}),
    ("screen.mov", "png", "rgb24", 96, 64, {}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "codec", "pixels", "width", "height", "options"), ODD)
def test_odd_videos_come_frame_by_frame(
    tmp_path: Path, name: str, codec: str, pixels: str, width: int, height: int, options: dict[str, str]
) -> None:
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no {codec}")
    path = film(tmp_path / name, codec, pixels, width, height, **options)
    given, shown = seen(path)
    assert given == shown == list(range(FRAMES))
    assert (probe(path).width, probe(path).height) == (width, height)


@pytest.mark.parametrize(("real", "called"), [("a.webm", "a.mp4"), ("a.mp4", "a.avi"), ("a.avi", "a.mov")])
def test_the_content_counts_and_not_the_extension(tmp_path: Path, real: str, called: str) -> None:
    codec = {"webm": "libvpx-vp9", "mp4": "libx264", "avi": "mpeg4"}[real.rpartition(".")[2]]
    path = film(tmp_path / real, codec).rename(tmp_path / called)
    given, shown = seen(path)
    assert given == shown == list(range(FRAMES))


def test_what_an_edit_list_hides_is_not_counted(tmp_path: Path) -> None:
    whole = film(tmp_path / "whole.mp4", "libx264", bf="0")
    cut = tmp_path / "cut.mp4"
    with av.open(str(whole)) as source, av.open(str(cut), "w") as out:
        track = source.streams.video[0]
        stream = out.add_stream_from_template(track)
        for packet in source.demux(track):
            if packet.dts is not None:
                assert packet.pts is not None
                assert packet.time_base is not None
                shift = round(5 / 25 / packet.time_base)  # the first five frames lie before the beginning
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, stream
                out.mux(packet)
    given, shown = seen(cut)
    assert given == list(range(len(given)))
    # Some demuxers show what lies before the beginning, and then count it: either way numbers follow the pictures.
    assert shown in (list(range(5, FRAMES)), list(range(FRAMES)))
    assert probe(cut).frames == len(given)


def test_a_film_that_begins_late_keeps_its_frames_and_says_when(tmp_path: Path) -> None:
    """An edit list may begin with nothing: the first frame is shown after two seconds."""
    path = tmp_path / "late.mp4"
    with av.open(str(path), "w", options={"use_editlist": "1"}) as out:
        stream = cast(av.VideoStream, out.add_stream("libx264", rate=25, options={"bf": "0"}))
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for number in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(draw(number, 96, 64), format="rgb24")
            frame.pts, frame.time_base = number + 50, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    given, shown = seen(path)
    assert given == shown == list(range(FRAMES))
    times = frame_times(path)
    np.testing.assert_allclose(np.diff(times), 1 / 25, atol=1e-6)
    assert times[0] in (0, pytest.approx(2.0, abs=1e-3)), "from the first frame, or from the film's beginning"


def test_a_film_in_fragments_is_whole(tmp_path: Path) -> None:
    """As streams are recorded: no index, and the header does not know how many frames will come."""
    path = tmp_path / "fragments.mp4"
    with av.open(str(path), "w", options={"movflags": "frag_keyframe+empty_moov+default_base_moof"}) as out:
        stream = cast(av.VideoStream, out.add_stream("libx264", rate=25))
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.gop_size = 6
        for number in range(FRAMES):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(draw(number, 96, 64), format="rgb24")))
        out.mux(stream.encode(None))
    given, shown = seen(path)
    assert given == shown == list(range(FRAMES))
    assert probe(path).frames == FRAMES


@pytest.mark.parametrize(("width", "height"), [(30_000, 30_000), (30_000, 5_000)])
def test_a_picture_that_would_fill_the_memory_is_refused_before_it_is_decoded(
    tmp_path: Path, width: int, height: int
) -> None:
    path = tmp_path / "bomb.avi"
    film(path, "rawvideo", "gray")
    data = path.read_bytes()
    place = data.find(b"strf") + 8 + 4  # the width and height of BITMAPINFOHEADER
    path.write_bytes(data[:place] + width.to_bytes(4, "little") + height.to_bytes(4, "little") + data[place + 8 :])
    for door in (probe, lambda path: decode(path, 64)):
        with pytest.raises(VideoError, match=r"pictures are 30000 x 5000, expected|has no frame") as caught:
            door(path)
        assert "ffmpeg" in caught.value.remedy


def test_a_decoder_that_takes_too_much_memory_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "LIMIT", 1 << 20)
    with pytest.raises(VideoError, match=r"took more than .* GiB of memory and was killed"):
        decode(film(tmp_path / "a.mp4", "libx264"), 64, decoders=("pyav",))


def packets(stamps: Sequence[int]) -> np.ndarray:
    return np.array(stamps, np.int64)


def test_frames_lost_without_a_trace_in_an_even_rhythm_keep_their_place() -> None:
    even = [round(number * 1000 / 29.97) for number in range(200)]
    hole = [stamp for number, stamp in enumerate(even) if not 50 <= number < 73 and number != 120]
    slot, total = by_rhythm(packets(hole))
    assert total == 200
    assert slot.tolist() == [number for number in range(200) if not 50 <= number < 73 and number != 120]


def test_an_uneven_rhythm_is_counted() -> None:
    steps = np.random.default_rng(0).integers(10, 120, 90)
    assert by_rhythm(np.cumsum(steps))[0].tolist() == list(range(90))
    halved = np.cumsum(np.where(np.arange(90) % 3, 40, 80))  # every third frame shown twice as long
    assert by_rhythm(halved)[0].tolist() == list(range(90))


def test_what_follows_a_break_in_an_avi_is_not_numbered(tmp_path: Path) -> None:
    path = tmp_path / "a.avi"
    path.write_bytes(b"".join(b"00dc" + (8).to_bytes(4, "little") + bytes(8) for _ in range(10)))
    found = [Packet(None, number, 16 * number + 8, 8, False, False) for number in range(10)]
    slot, total = by_chunks(path, found[:4] + found[5:], [], 10)
    assert (slot.tolist(), total) == ([0, 1, 2, 3], 10)  # a chunk that the demuxer passed over
    path.write_bytes(path.read_bytes()[:64] + b"\x00\xff" * 8 + path.read_bytes()[80:])
    slot, total = by_chunks(path, found[:4] + found[5:], [], 10)
    assert (slot.tolist(), total) == ([0, 1, 2, 3], 10)
