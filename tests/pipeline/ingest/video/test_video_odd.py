"""Unusual videos: frames have the right numbers, or the video is refused."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
import pytest
from affect.pipeline.errors import VideoError
from affect.pipeline.ingest.video import decoder_process
from affect.pipeline.ingest.video.decode import decode, decoded, probe
from affect.pipeline.ingest.video.frame_index import Packet, by_chunks, by_time
from affect.pipeline.ingest.video.timeline import read_timeline

FRAMES = 24


def draw(number: int, width: int, height: int) -> np.ndarray:
    """A frame that encodes its number in five bars."""
    picture = np.full((height, width, 3), 40, np.uint8)
    for bit in range(5):
        if number >> bit & 1:
            picture[:, bit * width // 5 : (bit + 1) * width // 5] = 220
    return picture


def shown_number(picture: np.ndarray) -> int:
    width = picture.shape[1]
    middles = [int((bit + 0.5) * width / 5) for bit in range(5)]
    return sum(int(picture[:, x - 2 : x + 3].mean() > 128) << bit for bit, x in enumerate(middles))


def write_video(
    path: Path, codec: str, pixels: str = "yuv420p", width: int = 96, height: int = 64, **options: str
) -> Path:
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
    """The numbers that frames are given, and the numbers that they show."""

    def use(decoding: object) -> tuple[list[int], list[int]]:
        batches = list(decoding)  # type: ignore[call-overload]
        given = [number for batch in batches for number in batch.index.tolist()]
        return given, [shown_number(picture) for batch in batches for picture in batch.pixels]

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
def test_unusual_videos_are_decoded_frame_by_frame(
    tmp_path: Path, name: str, codec: str, pixels: str, width: int, height: int, options: dict[str, str]
) -> None:
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no {codec}")
    path = write_video(tmp_path / name, codec, pixels, width, height, **options)
    given, shown = seen(path)
    assert given == shown == list(range(FRAMES))
    assert (probe(path).width, probe(path).height) == (width, height)


@pytest.mark.parametrize(("real", "called"), [("a.webm", "a.mp4"), ("a.mp4", "a.avi"), ("a.avi", "a.mov")])
def test_the_content_determines_the_format_not_the_suffix(tmp_path: Path, real: str, called: str) -> None:
    codec = {"webm": "libvpx-vp9", "mp4": "libx264", "avi": "mpeg4"}[real.rpartition(".")[2]]
    path = write_video(tmp_path / real, codec).rename(tmp_path / called)
    given, shown = seen(path)
    assert given == shown == list(range(FRAMES))


def test_frames_hidden_by_an_edit_list_are_not_counted(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mp4", "libx264", bf="0")
    cut = tmp_path / "cut.mp4"
    with av.open(str(whole)) as source, av.open(str(cut), "w") as out:
        track = source.streams.video[0]
        stream = out.add_stream_from_template(track)
        for packet in source.demux(track):
            if packet.dts is not None:
                assert packet.pts is not None
                assert packet.time_base is not None
                shift = round(5 / 25 / packet.time_base)  # the first five frames are before the start
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, stream
                out.mux(packet)
    given, shown = seen(cut)
    assert given == list(range(len(given)))
    # Some versions of the demuxer show the frames before the start and count them.
    assert shown in (list(range(5, FRAMES)), list(range(FRAMES)))
    assert probe(cut).frames == len(given)


def test_a_video_that_starts_late_has_all_its_frames_and_times(tmp_path: Path) -> None:
    """An edit list can start with an empty edit: the first frame is shown after two seconds."""
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
    times = read_timeline(path).time
    np.testing.assert_allclose(np.diff(times), 1 / 25, atol=1e-6)
    assert times[0] in (0, pytest.approx(2.0, abs=1e-3)), "from the first frame, or from the start of the file"


def test_a_fragmented_mp4_is_decoded_completely(tmp_path: Path) -> None:
    """A recorded stream has no index, and no number of frames in its header."""
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
def test_huge_frames_are_refused_before_decoding(tmp_path: Path, width: int, height: int) -> None:
    path = tmp_path / "bomb.avi"
    write_video(path, "rawvideo", "gray")
    data = path.read_bytes()
    place = data.find(b"strf") + 8 + 4  # the width and height of BITMAPINFOHEADER
    path.write_bytes(data[:place] + width.to_bytes(4, "little") + height.to_bytes(4, "little") + data[place + 8 :])
    for reader in (probe, lambda path: decode(path, 64)):
        with pytest.raises(VideoError, match=r"frames are 30000 x 5000, expected|has no decodable frame") as caught:
            reader(path)
        assert "ffmpeg" in caught.value.remedy


def test_a_decoder_that_uses_too_much_memory_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder_process, "MAX_MEMORY_BYTES", 1 << 20)
    with pytest.raises(VideoError, match=r"used more than .* GiB of memory and was killed"):
        decode(write_video(tmp_path / "a.mp4", "libx264"), 64, decoders=("pyav",))


def packets(stamps: Sequence[int]) -> np.ndarray:
    return np.array(stamps, np.int64)


def at(stamps: np.ndarray, *holes: int) -> np.ndarray:
    """Breaks before the frames at these times, bool [n - 1]."""
    return np.isin(stamps[1:], holes)


def test_lost_frames_are_counted_if_the_time_steps_are_equal() -> None:
    even = [round(number * 1000 / 29.97) for number in range(200)]
    left = [number for number in range(200) if not 50 <= number < 73 and number != 120]
    stamps = packets([even[number] for number in left])
    slot, total = by_time(stamps, at(stamps, even[73], even[121]))
    assert total == 200
    assert slot.tolist() == left


def test_gaps_in_time_without_a_break_are_not_lost_frames() -> None:
    stamps = packets([40 * number for number in range(200) if not 50 <= number < 73 and number != 120])
    slot, total = by_time(stamps, at(stamps))
    assert (slot.tolist(), total) == (list(range(176)), 176)
    slot, total = by_time(stamps, at(stamps, 40 * 121))
    assert (slot.tolist(), total) == ([*range(97), *range(98, 177)], 177)


def test_frames_after_a_break_with_unequal_time_steps_have_no_number() -> None:
    steps = np.random.default_rng(0).integers(10, 120, 90)
    stamps = np.cumsum(steps)
    assert by_time(stamps, at(stamps))[0].tolist() == list(range(90))
    stamps[50:] += 3000
    slot, total = by_time(stamps, at(stamps, stamps[50]))
    assert (slot.tolist(), total) == (list(range(50)), 90)


def test_avi_frames_are_numbered_by_chunk_up_to_a_break(tmp_path: Path) -> None:
    path = tmp_path / "a.avi"
    path.write_bytes(b"".join(b"00dc" + (8).to_bytes(4, "little") + bytes(8) for _ in range(10)))
    found = [Packet(None, number, 16 * number + 8, 8, False, False) for number in range(10)]
    slot, total = by_chunks(path, found[:4] + found[5:], [], 10)
    assert (slot.tolist(), total) == ([0, 1, 2, 3, 5, 6, 7, 8, 9], 10)
    path.write_bytes(path.read_bytes()[:64] + b"\x00\xff" * 8 + path.read_bytes()[80:])
    slot, total = by_chunks(path, found[:4] + found[5:], [], 10)
    assert (slot.tolist(), total) == ([0, 1, 2, 3], 10)
