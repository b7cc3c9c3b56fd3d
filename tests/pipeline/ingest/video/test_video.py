"""Frames have the right numbers in every container, also with variable rate or damage. Each frame shows its number."""

import gc
import itertools
import os
import signal
import subprocess
from collections.abc import Callable, Generator, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from affect.benchmarks.recordings import overwrite_packet
from affect.pipeline.errors import VideoError
from affect.pipeline.ingest.video import decode as decode_module
from affect.pipeline.ingest.video import pyav_decoder
from affect.pipeline.ingest.video.decode import Decoding, DecordError, decode, decoded, probe
from affect.pipeline.ingest.video.pyav_decoder import frames_by_pyav
from affect.pipeline.ingest.video.timeline import read_timeline
from affect.tests.child import command, output
from affect.tests.programs.decoding import hold_decoder
from affect.tests.programs.libraries import decode as decode_alone
from affect.tests.waiting import wait_for_exit

WIDTH, HEIGHT = 160, 96
COLOURS = ((220, 30, 30), (30, 200, 30), (30, 30, 220))


def draw(number: int) -> np.ndarray:
    """A frame that encodes its number in ten bars below three patches of colour."""
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for bit in range(10):
        if number >> bit & 1:
            picture[HEIGHT // 2 :, bit * WIDTH // 10 : (bit + 1) * WIDTH // 10] = 255
    for place, colour in enumerate(COLOURS):
        picture[: HEIGHT // 2, place * WIDTH // 3 : (place + 1) * WIDTH // 3] = colour
    return picture


def read(picture: np.ndarray) -> int:
    h, w = picture.shape[:2]
    bars = [
        picture[int(h * 0.6) : int(h * 0.9), int((bit + 0.3) * w / 10) : int((bit + 0.7) * w / 10)] for bit in range(10)
    ]
    return sum((bar.mean() > 128) << bit for bit, bar in enumerate(bars))


def write_video(
    path: Path, codec: str = "libx264", frames: int = 90, pts: list[int] | None = None, turn: int = 0
) -> Path:
    """A video of numbered frames, 25 a second or at `pts` milliseconds."""
    options = {"movflags": "faststart"} if path.suffix in (".mp4", ".mov") else {}
    with av.open(str(path), "w", options=options) as out:
        stream = out.add_stream(codec, rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height = WIDTH, HEIGHT
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.gop_size = 12
        if turn:
            stream.set_display_rotation(turn)
        if pts:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(draw(number), format="rgb24")
            frame.pts = pts[number] if pts else number
            if pts:
                frame.time_base = Fraction(1, 1000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def numbers_of(path: Path, size: int | None = 160, **options: int) -> tuple[list[int], list[int], Decoding]:
    """For each frame, the number that it is given and the number that it shows."""

    def use(decoding: Decoding) -> tuple[list[int], list[int], Decoding]:
        given: list[int] = []
        shown: list[int] = []
        for batch in decoding:
            given += batch.index.tolist()
            shown += [read(picture) for picture in batch.pixels]
        return given, shown, decoding

    return decoded(path, size, use, **options)


KINDS = [
    ("a.mp4", "libx264"), ("a.mp4", "mpeg4"), ("a.mov", "libx265"), ("a.mkv", "libx264"), ("a.webm", "libvpx-vp9"),
    ("a.webm", "libvpx"), ("a.avi", "mpeg4"), ("a.avi", "mjpeg"), ("a.avi", "libx264"), ("a.ts", "libx264"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "codec"), KINDS)
def test_every_frame_has_its_own_number(tmp_path: Path, name: str, codec: str) -> None:
    path = write_video(tmp_path / name, codec)
    given, shown, decoding = numbers_of(path, batch=32)
    assert given == shown == list(range(90))
    assert decoding.lost == ()
    assert probe(path) == decoding.facts
    assert (decoding.facts.frames, decoding.facts.width, decoding.facts.height) == (90, WIDTH, HEIGHT)
    assert decoding.facts.seconds == pytest.approx(3.6, abs=0.01)


def test_times_are_presentation_times_at_a_variable_frame_rate(tmp_path: Path) -> None:
    steps = np.random.default_rng(0).integers(10, 120, 90)
    path = write_video(tmp_path / "vfr.mp4", pts=[0, *np.cumsum(steps)[:-1].tolist()])
    with decode(path, 64, batch=7) as decoding:
        batches = list(decoding)
    times = np.concatenate([batch.time for batch in batches])
    assert [len(batch) for batch in batches] == [7] * 12 + [6]
    np.testing.assert_allclose(np.diff(times), steps[:-1] / 1000, atol=1e-6)
    np.testing.assert_array_equal(times, read_timeline(path).time)
    assert times[0] == 0


def test_colours_are_red_green_blue(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=2)
    for decoders in (("decord",), ("pyav",)):
        with decode(path, None, decoders=decoders) as decoding:
            picture = next(decoding).pixels[0]
        assert picture.shape == (HEIGHT, WIDTH, 3)
        for place, colour in enumerate(COLOURS):
            patch = picture[8:40, place * WIDTH // 3 + 8 : (place + 1) * WIDTH // 3 - 8]
            np.testing.assert_allclose(patch.mean((0, 1)), colour, atol=12)


@pytest.mark.parametrize("turn", [90, 180, -90])
def test_rotated_videos_are_decoded_upright(tmp_path: Path, turn: int) -> None:
    path = write_video(tmp_path / "phone.mp4", frames=4, turn=turn)
    with decode(path, None) as decoding:
        picture = next(decoding).pixels[3]
    facts = probe(path)
    assert picture.shape == (facts.height, facts.width, 3)
    assert facts.height == (HEIGHT if turn == 180 else WIDTH)
    assert read(np.rot90(picture, -turn // 90)) == 3


@pytest.mark.parametrize(("start", "stop"), [(0, 5), (37, 61), (89, None), (50, 1000), (90, None), (20, 20)])
@pytest.mark.parametrize("decoder", ["decord", "pyav"])
def test_start_and_stop_select_frames(tmp_path: Path, start: int, stop: int | None, decoder: str) -> None:
    path = write_video(tmp_path / "a.mp4")
    with decode(path, 160, start=start, stop=stop, decoders=(decoder,)) as decoding:
        frames = [
            (number, read(picture))
            for batch in decoding
            for number, picture in zip(batch.index, batch.pixels, strict=True)
        ]
    assert frames == [(number, number) for number in range(90)[start:stop]]
    assert decoding.lost == ()


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm", ".avi"])
def test_both_decoders_give_the_same_pixels(tmp_path: Path, suffix: str) -> None:
    codec = {".webm": "libvpx-vp9", ".avi": "mpeg4"}.get(suffix, "libx264")
    path, pictures = write_video(tmp_path / f"a{suffix}", codec, frames=40), []
    for decoder in ("decord", "pyav"):
        with decode(path, 160, decoders=(decoder,)) as decoding:
            pictures.append(np.concatenate([batch.pixels for batch in decoding]))
        assert decoding.decoder == decoder
    np.testing.assert_array_equal(*pictures)


def test_pyav_starts_at_a_keyframe_near_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.mp4", frames=90)
    ticks: list[int] = []
    timeline = read_timeline(path)
    given = [number for number, _ in frames_by_pyav(path, timeline, 160, 80, 90, lambda: ticks.append(1))]
    assert given == list(range(80, 90))
    assert len(ticks) < 45, "number of packets read"
    # If the demuxer starts too late, it seeks further back.
    monkeypatch.setattr(pyav_decoder, "_frames", _late(pyav_decoder._frames))  # pyright: ignore[reportPrivateUsage]
    assert [number for number, _ in frames_by_pyav(path, timeline, 160, 80, 90, lambda: None)] == given
    assert [number for number, _ in frames_by_pyav(path, timeline, 160, 3, 9, lambda: None)] == list(range(3, 9))


def _late(frames: Callable[..., Iterator[av.VideoFrame]]) -> Callable[..., Generator[av.VideoFrame]]:
    def begin(
        path: Path, tick: Callable[[], None], seek: int | None = None, restamped: np.ndarray | None = None
    ) -> Generator[av.VideoFrame]:
        found = frames(path, tick, seek, restamped)
        if seek is not None:
            list(itertools.islice(found, 30))
        yield from found

    return begin


def test_a_truncated_video_gives_its_frames_and_lists_the_lost_ones(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mp4").read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(whole[: len(whole) * 2 // 3])
    given, shown, decoding = numbers_of(path)
    assert given == shown
    assert 20 < len(given) < 80
    assert sorted([*given, *decoding.lost]) == list(range(90))
    assert probe(path).frames == 90


@pytest.mark.parametrize("suffix", [".avi", ".mp4"])
def test_damage_inside_a_video_shifts_no_frame_number(tmp_path: Path, suffix: str) -> None:
    path = write_video(tmp_path / f"a{suffix}", "mjpeg" if suffix == ".avi" else "libx264", frames=120)
    with av.open(str(path)) as container:
        hole = [packet for packet in container.demux(video=0) if packet.size][60:67]
    data = bytearray(path.read_bytes())
    for packet in hole:
        assert packet.pos is not None
        data[packet.pos - 8 : packet.pos + packet.size] = bytes(packet.size + 8)
    path.write_bytes(data)
    given, shown, decoding = numbers_of(path)
    assert decoding.lost
    assert sorted([*given, *decoding.lost]) == list(range(120))
    # Frames that refer to overwritten ones may be wrong, but not those of other groups.
    sound = [(a, b) for a, b in zip(given, shown, strict=True) if a < 58 or a >= 72]
    assert len(sound) == 106
    assert all(a == b for a, b in sound)


def test_if_decord_fails_midway_all_frames_are_decoded_again_with_pyav(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=120)
    overwrite_packet(path, 72)
    with pytest.raises(DecordError, match="failed after it returned frames"), decode(path, 64, batch=8) as decoding:
        list(decoding)
    given, shown, decoding = numbers_of(path, batch=8)
    assert decoding.decoder == "pyav"
    assert given[:60] == shown[:60] == list(range(60))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def garbage(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(50_000))


def headless(path: Path) -> None:
    whole = write_video(path.with_suffix(".mkv")).read_bytes()
    path.write_bytes(whole[len(whole) // 2 :])


def folder(path: Path) -> None:
    path.mkdir()


def pipe(path: Path) -> None:
    os.mkfifo(path)


def sound(path: Path) -> None:
    with av.open(str(path), "w") as out:
        stream = out.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


@pytest.mark.parametrize("make", [empty, garbage, headless, folder, pipe, sound, lambda path: None])
def test_a_file_that_is_not_a_video_is_refused_with_a_remedy(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "x.mp4"
    make(path)
    for reader in (probe, read_timeline, lambda path: decode(path, 64)):
        with pytest.raises(VideoError, match=r"x\.mp4") as caught:
            reader(path)
        assert caught.value.remedy


def children() -> list[int]:
    listed = subprocess.run(
        ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(os.getpid())], capture_output=True, text=True
    )
    return [int(line.split()[0]) for line in listed.stdout.splitlines() if "video.decoder_child" in line]


def test_a_decoder_that_hangs_is_killed_and_reported(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=900)
    with decode(path, 1024, batch=8, deadline=8) as decoding:
        next(decoding)
        (child,) = children()
        os.kill(child, signal.SIGSTOP)
        with pytest.raises(DecordError, match="returned nothing for 8 s and was killed"):
            list(decoding)
    assert not children()


def test_a_decoder_that_crashes_is_reported(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=900)
    with decode(path, 1024, batch=8, decoders=("pyav",)) as decoding:
        next(decoding)
        os.kill(children()[0], signal.SIGSEGV)
        with pytest.raises(VideoError, match=r"stopped unexpectedly \(SIGSEGV\)") as caught:
            list(decoding)
    assert not isinstance(caught.value, DecordError)
    assert not children()


def is_paused(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("T")


def test_a_decoder_that_prefetches_too_much_is_paused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_module, "MAX_PREFETCH_BYTES", 0)
    path = write_video(tmp_path / "a.mp4", frames=300)
    with decode(path, 160, batch=32) as decoding:
        numbers: list[int] = []
        paused = 0
        for batch in decoding:
            numbers += [read(picture) for picture in batch.pixels]
            paused += all(is_paused(child) for child in children())
    assert numbers == list(range(300))
    assert paused >= 5


def test_zero_copy_pixels_are_valid_until_the_next_batch(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=100)
    kept = list(decode(path, 160, batch=16))
    seen: list[int] = []
    with decode(path, 160, batch=16, zero_copy=True) as decoding:
        for shared, own in zip(decoding, kept, strict=True):
            seen += [read(picture) for picture in shared.pixels]
            np.testing.assert_array_equal(shared.pixels, own.pixels)
            np.testing.assert_array_equal(shared.time, own.time)
    assert seen == list(range(100)) == [read(picture) for batch in kept for picture in batch.pixels]


def test_closing_early_leaves_no_process(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=300)
    with decode(path, 512, batch=4) as decoding:
        next(decoding)
        assert children()
    assert not children()
    decoding = decode(path, 512, batch=4)
    del decoding
    gc.collect()
    assert not children()


@pytest.mark.parametrize("memory", [0, 1 << 40])
def test_the_decoder_ends_with_its_parent(tmp_path: Path, memory: int) -> None:
    path = write_video(tmp_path / "a.mp4", frames=900)
    with subprocess.Popen(command(hold_decoder, path, memory), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        decoder = int(parent.stdout.readline())
        parent.kill()
        wait_for_exit(decoder)


def test_decoding_imports_neither_torch_nor_decord(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", frames=2)
    frames, libraries = output(decode_alone, tmp_path / "a.mp4").splitlines()
    assert frames == "2"
    assert not {"torch", "decord"} & set(libraries.split())


REAL = Path(__file__).parents[4].parent / "shared" / "data"


@pytest.mark.parametrize(
    ("name", "frames", "size"), [("tears-to-laughter.mp4", 472, (640, 360)), ("titles-then-face.mov", 169, (960, 540))]
)
def test_real_videos_are_equal_with_both_decoders(name: str, frames: int, size: tuple[int, int]) -> None:
    if not (REAL / name).is_file():
        pytest.skip("the videos are not available")
    pictures: dict[str, np.ndarray] = {}
    for decoder in ("decord", "pyav"):
        with decode(REAL / name, 128, decoders=(decoder,)) as decoding:
            batches = list(decoding)
        assert decoding.decoder == decoder
        assert (decoding.facts.width, decoding.facts.height) == size
        np.testing.assert_array_equal(np.concatenate([batch.index for batch in batches]), np.arange(frames))
        pictures[decoder] = np.concatenate([batch.pixels for batch in batches])
        with decode(REAL / name, 128, start=100, stop=140, decoders=(decoder,)) as decoding:
            part = np.concatenate([batch.pixels for batch in decoding])
        np.testing.assert_array_equal(part, pictures[decoder][100:140])
    np.testing.assert_array_equal(pictures["decord"], pictures["pyav"])
