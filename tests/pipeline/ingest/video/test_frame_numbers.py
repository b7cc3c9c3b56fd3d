"""Frame numbers count the displayed frames, in files with skipped, repeated, cut and concatenated frames.

Each frame shows its number. Decoding with PyAV alone gives the expected number of frames.
"""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from affect.benchmarks.recordings import (
    FRAMES,
    add_empty_chunks,
    chunks_of,
    copy_packets,
    numbered_picture,
    record,
    set_orientation,
    shown_number,
    with_chunks,
)  # fmt: skip
from affect.pipeline.errors import VideoError
from affect.pipeline.features.video_digest import video_digest
from affect.pipeline.ingest.video.decode import Decoding, decoded, probe
from affect.pipeline.ingest.video.reading import reading
from affect.pipeline.ingest.video.timeline import read_timeline
from affect.pipeline.storage.fingerprint import source_digest


def rows(path: Path, **options: Any) -> tuple[list[int], list[int], Decoding]:
    """For each frame, the number that it is given and the number that it shows."""

    def use(decoding: Decoding) -> tuple[list[int], list[int], Decoding]:
        given: list[int] = []
        shown: list[int] = []
        for batch in decoding:
            given += batch.index.tolist()
            shown += [shown_number(picture) for picture in batch.pixels]
        return given, shown, decoding

    return decoded(path, 112, use, **options)


def plain(path: Path) -> tuple[list[int], list[float]]:
    """The numbers shown by frames that PyAV decodes, and their times."""
    with av.open(str(path)) as container:
        frames = [(shown_number(frame.to_ndarray(format="rgb24")), frame.time) for frame in container.decode(video=0)]
    return [number for number, _ in frames], [time for _, time in frames if time is not None]


HOLES = [40 * number + (200 if number >= 20 else 0) + (80 if number >= 40 else 0) for number in range(FRAMES)]
MANY = np.cumsum([0, *[40 if number % 7 else 120 for number in range(FRAMES - 1)]]).tolist()
PHONE = np.cumsum([0, *np.random.default_rng(0).choice([25, 33, 34, 67, 100], FRAMES - 1).tolist()]).tolist()
SCREEN = np.cumsum([0, *[33 if number % 10 else 2500 for number in range(FRAMES - 1)]]).tolist()
KINDS = [
    ("a.mkv", "libx264"), ("a.webm", "libvpx-vp9"), ("a.webm", "libvpx"), ("a.flv", "libx264"), ("a.ts", "libx264"),
    ("a.mp4", "libx264"), ("a.gif", "gif"), ("a.wmv", "wmv2"),
]  # fmt: skip


@pytest.mark.parametrize("times", [HOLES, MANY, PHONE, SCREEN], ids=["holes", "many", "phone", "screen"])
@pytest.mark.parametrize(("name", "codec"), KINDS)
def test_frames_skipped_by_a_camera_are_not_lost_frames(
    tmp_path: Path, name: str, codec: str, times: list[int]
) -> None:
    path = record(tmp_path / name, codec, times)
    given, shown, decoding = rows(path)
    assert given == shown == list(range(FRAMES))
    assert decoding.lost == ()
    tick = 0.0101 if name.endswith("gif") else 0.0011
    np.testing.assert_allclose(
        read_timeline(path).time - read_timeline(path).time[0], np.array(times) / 1000, atol=tick
    )


@pytest.mark.parametrize("index", [True, False], ids=["index", "no-index"])
@pytest.mark.parametrize("before", [[1], [10, 25, 25, 26], [0], [FRAMES]], ids=["second", "middle", "first", "last"])
@pytest.mark.parametrize("codec", ["mpeg4", "mjpeg", "libx264"])
def test_empty_chunks_of_an_avi_are_not_frames(tmp_path: Path, codec: str, before: list[int], index: bool) -> None:
    path = add_empty_chunks(record(tmp_path / "whole.avi", codec, bf="0"), tmp_path / "a.avi", before, index=index)
    given, shown, decoding = rows(path)
    assert given == shown == list(range(FRAMES))
    assert decoding.lost == ()
    if index:  # each chunk lasts as long as one frame
        later = [sum(place <= number for place in before) for number in range(FRAMES)]
        np.testing.assert_allclose(read_timeline(path).time, (np.arange(FRAMES) + later) / 25, atol=1e-6)


def test_a_truncated_avi_with_empty_chunks_lists_its_lost_frames(tmp_path: Path) -> None:
    path = add_empty_chunks(record(tmp_path / "whole.avi", "mjpeg"), tmp_path / "a.avi", [5, 10])
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    given, shown, decoding = rows(path)
    assert given == shown == list(range(len(given)))
    assert 25 < len(given) < 50
    assert sorted([*given, *decoding.lost]) == list(range(FRAMES))


def test_a_frame_count_too_large_in_the_header_is_not_a_loss(tmp_path: Path) -> None:
    path = record(tmp_path / "a.avi", "mjpeg")
    data = bytearray(path.read_bytes())
    place = data.index(b"strh") + 40
    data[place : place + 4] = (5000).to_bytes(4, "little")
    path.write_bytes(data)
    given, shown, decoding = rows(path)
    assert given == shown == list(range(FRAMES))
    assert decoding.lost == ()


EMPTY_PICTURE = b"\0\0\1\xb6" + bytes((0b01010001, 0b11001111))
"""An MPEG-4 frame at 25 per second: predicted, marker, 5 bits of time, marker, not coded, stuffing."""


@pytest.mark.parametrize("suffix", [".avi", ".mp4", ".mkv"])
def test_empty_mpeg4_frames_are_not_frames(tmp_path: Path, suffix: str) -> None:
    source, path = record(tmp_path / "a.avi", "mpeg4"), tmp_path / f"repeats{suffix}"
    with av.open(str(source)) as old, av.open(str(path), "w") as out:
        track = old.streams.video[0]
        stream, time = out.add_stream_from_template(track), 0
        for number, packet in enumerate(packet for packet in old.demux(track) if packet.size):
            contents = [bytes(packet), *[EMPTY_PICTURE] * (number in (10, 20, 21))]
            for content in contents:
                new = av.Packet(content)
                new.pts = new.dts = time
                new.time_base, new.stream, time = Fraction(1, 25), stream, time + 1
                new.is_keyframe = packet.is_keyframe and content is contents[0]
                out.mux(new)
    given, shown, decoding = rows(path)
    assert shown == plain(path)[0] == list(range(FRAMES))
    assert given == list(range(FRAMES))
    assert decoding.lost == ()
    later = [sum(place < number for place in (10, 20, 21)) for number in range(FRAMES)]
    np.testing.assert_allclose(read_timeline(path).time, (np.arange(FRAMES) + later) / 25, atol=1e-3)
    assert reading(path) > 1


def test_two_frames_in_one_chunk_are_two_frames(tmp_path: Path) -> None:
    """DivX packs two frames into one chunk, followed by a chunk with an empty frame."""
    path = record(tmp_path / "a.avi", "mpeg4", bf="1")
    chunks = chunks_of(path.read_bytes())
    packed: list[tuple[bytes, bytes]] = []
    for name, content in chunks:
        is_b = content[content.index(b"\0\0\1\xb6") + 4] >> 6 == 2
        if is_b:
            packed[-1] = (name, packed[-1][1] + content)
        packed.append((name, EMPTY_PICTURE if is_b else content))
    assert len(packed) == len(chunks)
    name, content = packed[0]
    packed[0] = (name, content.replace(b"\0\0\1\xb6", b"\0\0\1\xb2DivX503b1393p\0\0\1\xb6", 1))
    path.write_bytes(with_chunks(path.read_bytes(), packed))
    given, shown, decoding = rows(path)
    assert shown == plain(path)[0]
    assert given == list(range(len(shown)))
    assert len(shown) >= FRAMES - 1
    assert len(decoding.lost) <= 1


@pytest.mark.parametrize(
    ("name", "codec"), [("a.ts", "libx264"), ("a.mkv", "libx264"), ("a.webm", "libvpx"), ("a.mpg", "mpeg2video")]
)
def test_concatenated_files_are_read_one_after_the_other(tmp_path: Path, name: str, codec: str) -> None:
    one = record(tmp_path / name, codec).read_bytes()
    path = tmp_path / f"joined{Path(name).suffix}"
    path.write_bytes(one + one)
    given, shown, decoding = rows(path)
    assert shown == plain(path)[0] == [*range(FRAMES), *range(FRAMES)]
    assert given == list(range(2 * FRAMES))
    assert decoding.lost == ()
    np.testing.assert_allclose(np.diff(read_timeline(path).time), 1 / 25, atol=1.1e-3)
    assert decoding.facts.seconds == pytest.approx(2 * FRAMES / 25, abs=0.05)


def test_start_and_stop_select_frames_of_a_concatenated_file(tmp_path: Path) -> None:
    one = record(tmp_path / "a.ts").read_bytes()
    path = tmp_path / "joined.ts"
    path.write_bytes(one + one)
    given, shown, _ = decoded(path, 112, lambda it: _listed(it), start=55, stop=70)
    assert given == list(range(55, 70))
    assert shown == [*range(55, 60), *range(10)]


def _listed(decoding: Decoding) -> tuple[list[int], list[int], Decoding]:
    batches = list(decoding)
    given = [number for batch in batches for number in batch.index.tolist()]
    return given, [shown_number(picture) for batch in batches for picture in batch.pixels], decoding


def test_a_pause_between_concatenated_files_is_not_lost_frames(tmp_path: Path) -> None:
    one = record(tmp_path / "a.ts")
    later = copy_packets(one, tmp_path / "b.ts", shift=Fraction(20))
    path = tmp_path / "joined.ts"
    path.write_bytes(one.read_bytes() + later.read_bytes())
    given, shown, decoding = rows(path)
    assert shown == [*range(FRAMES), *range(FRAMES)]
    assert given == list(range(2 * FRAMES))
    assert decoding.lost == ()
    assert read_timeline(path).time[FRAMES] > 15


def test_timestamps_that_overflow_continue(tmp_path: Path) -> None:
    path = copy_packets(record(tmp_path / "a.ts"), tmp_path / "wrap.ts", shift=Fraction(2**33, 90_000) - 4)
    given, shown, _ = rows(path)
    assert given == shown == list(range(FRAMES))
    np.testing.assert_allclose(np.diff(read_timeline(path).time), 1 / 25, atol=1e-4)


def test_one_decreasing_timestamp_does_not_move_its_frame(tmp_path: Path) -> None:
    path = record(tmp_path / "a.flv", bf="0")
    data, place, seen = bytearray(path.read_bytes()), 13, 0
    while place + 11 <= len(data):
        if data[place] == 9:
            seen += 1
            if seen == 30:
                time = int.from_bytes(data[place + 4 : place + 7], "big")
                data[place + 4 : place + 7] = (time - 85).to_bytes(3, "big")
        place += 15 + int.from_bytes(data[place + 1 : place + 4], "big")
    path.write_bytes(data)
    given, shown, decoding = rows(path)
    assert given == shown == list(range(FRAMES))
    assert decoding.lost == ()
    assert (np.diff(read_timeline(path).time) > 0).all()


@pytest.mark.parametrize("suffix", [".ts", ".mkv", ".mp4"])
@pytest.mark.parametrize("first", [5, 12])
def test_frames_before_the_first_keyframe_are_not_counted(tmp_path: Path, suffix: str, first: int) -> None:
    whole = record(tmp_path / f"a{suffix}", bf="2", **{"x264-params": "open-gop=1"})  # pyright: ignore[reportArgumentType]
    path = copy_packets(whole, tmp_path / f"cut{suffix}", first)
    given, shown, decoding = rows(path)
    expected, times = plain(path)
    assert expected[0] > 0
    assert shown == expected
    assert given == list(range(len(expected)))
    assert decoding.lost == ()
    np.testing.assert_allclose(np.diff(read_timeline(path).time), np.diff(times), atol=1e-4)


@pytest.mark.parametrize("first", [5, 17])
@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_a_start_hidden_by_an_edit_list_is_not_counted(tmp_path: Path, codec: str, first: int) -> None:
    path = copy_packets(record(tmp_path / "a.mp4", codec), tmp_path / "cut.mp4", shift=-Fraction(first, 25))
    given, shown, decoding = rows(path)
    assert shown == plain(path)[0]
    assert given == list(range(len(shown)))
    assert decoding.lost == ()
    assert probe(path).frames == len(shown)


def damaged(path: Path, size: int, filler: Callable[[int], bytes] = bytes) -> Path:
    """Overwrites the packets 26 to 30 and the bytes between them."""
    with av.open(str(path)) as container:
        place = [packet.pos for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    start, stop = (place[26] or 0) - size, (place[31] or 0) - size
    data[start:stop] = filler(stop - start)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(("suffix", "size"), [(".mkv", 12), (".ts", 0), (".flv", 20)])
def test_lost_frames_of_a_damaged_file_keep_their_numbers(tmp_path: Path, suffix: str, size: int) -> None:
    path = damaged(record(tmp_path / f"a{suffix}", bf="0"), size)
    given, shown, decoding = rows(path)
    sound = [(a, b) for a, b in zip(given, shown, strict=True) if a < 24 or a >= 48]
    assert len(sound) >= 30
    assert all(a == b for a, b in sound)
    assert sorted([*given, *decoding.lost]) == list(range(FRAMES))
    assert set(range(27, 30)) <= set(decoding.lost)


def test_frames_after_damage_with_unequal_time_steps_have_no_number(tmp_path: Path) -> None:
    path = damaged(record(tmp_path / "a.mkv", times=PHONE, bf="0"), 12)
    given, shown, decoding = rows(path)
    assert given[:25] == shown[:25] == list(range(25))
    assert 25 <= len(given) <= 26
    assert len(decoding.lost) >= 15


def test_only_files_that_an_older_release_read_wrongly_are_out_of_date(tmp_path: Path) -> None:
    """Earlier releases gave wrong numbers or orientations for some of these files."""
    for path in (
        record(tmp_path / "a.mp4"),
        record(tmp_path / "a.avi", "mpeg4"),
        record(tmp_path / "a.mov"),
    ):
        assert reading(path) == 1
        assert video_digest(path) == source_digest(path)
    mirrored = set_orientation(tmp_path / "a.mp4", tmp_path / "mirrored.mp4", (-1, 0, 0, 1))
    changed = [
        add_empty_chunks(tmp_path / "a.avi", tmp_path / "empty.avi", [3]),
        record(tmp_path / "a.mkv"),
        mirrored,
    ]
    changed += [
        add_empty_chunks(tmp_path / "a.avi", tmp_path / "bare.avi", [3], index=False),
        record(tmp_path / "a.ts"),
    ]
    for path in changed:
        assert reading(path) > 1
        assert video_digest(path) != source_digest(path)


@pytest.mark.parametrize("content", [b"", b"RIFF", b"RIFF....AVI ", b"....ftyp" + bytes(3), b"\0\0\0\x0amoov\0\0" * 40])
def test_any_content_has_a_digest(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    assert len(video_digest(path)) == 64


def test_frames_of_a_bare_stream_have_the_times_of_its_rate(tmp_path: Path) -> None:
    path = record(tmp_path / "a.h264")
    given, shown, _ = rows(path)
    assert given == shown == list(range(FRAMES))
    np.testing.assert_allclose(read_timeline(path).time, np.arange(FRAMES) / 25, atol=1e-6)


def rewritten(source: Path, path: Path, change: Callable[[int, av.Packet], None]) -> Path:
    """The packets, each changed by its number in the order of the file."""
    with av.open(str(source)) as old, av.open(str(path), "w") as out:
        track = old.streams.video[0]
        stream = out.add_stream_from_template(track)
        for place, packet in enumerate(old.demux(track)):
            if packet.dts is not None:
                change(place, packet)
                packet.stream = stream
                out.mux(packet)
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".ts"])
def test_frames_whose_presentation_times_are_those_of_decoding_are_counted(tmp_path: Path, suffix: str) -> None:
    def forget(place: int, packet: av.Packet) -> None:
        packet.pts = packet.dts = 512 * place

    path = rewritten(record(tmp_path / "a.mp4", bf="2"), tmp_path / f"b{suffix}", forget)
    given, shown, decoding = rows(path, decoders=("pyav",))
    assert given == shown == list(range(FRAMES))
    assert decoding.lost == ()
    np.testing.assert_allclose(read_timeline(path).time, np.arange(FRAMES) / 25, atol=1e-3)


def test_frames_of_which_some_have_no_timestamp_are_counted(tmp_path: Path) -> None:
    """As where a transport stream puts several frames into one packet of its own."""
    path = record(tmp_path / "a.ts", bf="2")
    data = bytearray(path.read_bytes())
    starts = [at for at in range(0, len(data), 188) if data[at + 1] & 0x40 and data[at + 1 : at + 3] == b"\x41\x00"]
    for at in starts[7:40:11]:
        head = at + 4 + (1 + data[at + 4] if data[at + 3] & 0x20 else 0)
        assert data[head : head + 4] == b"\0\0\1\xe0"
        data[head + 7] = 0  # neither PTS nor DTS
    path.write_bytes(data)
    with av.open(str(path)) as container:
        assert any(packet.pts is None for packet in container.demux(video=0) if packet.size)
    given, shown, decoding = rows(path)
    assert given == shown == list(range(FRAMES))
    assert decoding.lost == ()
    np.testing.assert_allclose(read_timeline(path).time, np.arange(FRAMES) / 25, atol=1e-3)


@pytest.mark.parametrize("share", [70, 80, 90])
def test_an_avi_that_ends_in_half_a_frame_keeps_the_others(tmp_path: Path, share: int) -> None:
    whole = record(tmp_path / "a.avi", bf="3").read_bytes()
    path = tmp_path / "b.avi"
    path.write_bytes(whole[: len(whole) * share // 100])
    given, shown, decoding = rows(path)
    assert given == list(range(len(given)))
    assert shown[:-3] == given[:-3], "of the last ones, those between may be behind the cut"
    assert 10 < len(given) < FRAMES
    assert decoding.lost == tuple(range(len(given), FRAMES))


@pytest.mark.parametrize("suffix", [".ts", ".m2ts"])
def test_a_joined_file_that_continues_in_another_stream_is_refused(tmp_path: Path, suffix: str) -> None:
    first = record(tmp_path / f"a{suffix}")
    other = copy_packets(first, tmp_path / "b.ts")
    data = first.read_bytes()
    stride, sync = (192, 4) if suffix == ".m2ts" else (188, 0)
    with av.open(str(first)) as container:
        own = container.streams.video[0].id
    moved = bytearray(data)
    for at in range(sync, len(moved), stride):
        pid = int.from_bytes(moved[at + 1 : at + 3], "big")
        if pid & 0x1FFF == own:
            moved[at + 1 : at + 3] = (pid + 1).to_bytes(2, "big")
    path = tmp_path / f"joined{suffix}"
    path.write_bytes(data + bytes(moved))
    with pytest.raises(VideoError, match="continues in another stream"):
        probe(path)
    assert probe(first).frames == probe(other).frames == FRAMES


def test_of_two_programs_in_a_transport_stream_the_first_is_read(tmp_path: Path) -> None:
    """The first is read, however much longer the other goes on."""
    path = tmp_path / "two.ts"
    with av.open(str(path), "w") as out:
        streams = [out.add_stream("libx264", rate=25) for _ in range(2)]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = 112, 64, "yuv420p"
        for number in range(2 * FRAMES):
            for stream in streams[number >= FRAMES :]:
                frame = av.VideoFrame.from_ndarray(numbered_picture(number), format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, 25)
                out.mux(stream.encode(frame))
        for stream in streams:
            out.mux(stream.encode(None))
    given, shown, _ = rows(path)
    assert given == shown == list(range(FRAMES))


def test_a_stream_that_begins_in_the_middle_of_a_file_does_not_end_it(tmp_path: Path) -> None:
    first, second = record(tmp_path / "a.ts"), tmp_path / "b.ts"
    with av.open(str(first)) as old, av.open(str(second), "w") as out:
        track = old.streams.video[0]
        stream, sound = out.add_stream_from_template(track), out.add_stream("mp2", rate=48_000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 2 * 48_000), np.int16), format="s16", layout="stereo")
        silence.rate = 48_000
        out.mux(sound.encode(silence) + sound.encode(None))
        for packet in old.demux(track):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    path = tmp_path / "joined.ts"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    given, shown, _ = rows(path)
    assert given == list(range(2 * FRAMES))
    assert shown == 2 * list(range(FRAMES))
