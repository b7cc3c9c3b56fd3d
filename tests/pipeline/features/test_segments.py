"""Segments: a long video is decoded in parts, and its shard is the same as without the split."""

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from affect.benchmarks.recordings import overwrite_packet
from affect.configs.schema import load
from affect.pipeline.features import segments
from affect.pipeline.progress import Reporter
from affect.pipeline.records import StageReport, Work
from affect.pipeline.stages import extract_frames as stage
from affect.pipeline.storage.shard import FrameShard
from affect.tests.data_folders import write_training_data

FRAMES = {"long": 260, "short": 12}


def write_video(path: Path, frames: int, codec: str = "libx264") -> None:
    """Moving noise, with keyframes every 35 frames and B-frames, which are decoded in another order than shown."""
    noise = np.random.default_rng(3).integers(0, 255, (96, 128 + frames, 3), np.uint8)
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=30, options={"crf": "18"} if codec == "libx264" else {})
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        stream.codec_context.gop_size = 35
        for number in range(frames):
            picture = np.ascontiguousarray(noise[:, number : number + 128])
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode(None))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_training_data(tmp_path / "data", FRAMES, write_video)


@pytest.fixture
def short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "MIN_FRAMES", 40)


def extract(data: Path, work: Path, workers: int = 2, size: int = 64) -> StageReport:
    config = load("demo", [f"runtime.workers={workers}", f"frames.size={size}"])
    return stage.extract_frames(config, data, Work(work), Reporter(quiet=True))


def rows(work: Path, name: str = "long") -> dict[str, Any]:
    with FrameShard(Work(work).frames(name)) as shard:
        return {name: shard.read(name) for name in shard.names} | {"lost": shard.attributes["lost"]}


def decoder(work: Path) -> str:
    with FrameShard(Work(work).frames("long")) as shard:
        return shard.attributes["decoder"]


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for name, values in one.items():
        np.testing.assert_array_equal(values, other[name], err_msg=name)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int | None]]:
    """Runs the tasks of two workers in this process. Returns the (start, stop) of each decoding."""
    decoded: list[tuple[int, int | None]] = []
    run, decode = stage.run_tasks, stage.decode

    def recording_decode(*args: Any, **options: Any) -> Any:
        decoded.append((options["start"], options["stop"]))
        return decode(*args, **options)

    monkeypatch.setattr(stage, "run_tasks", lambda *args, **options: run(*args, **{**options, "workers": 0}))
    monkeypatch.setattr(stage, "decode", recording_decode)
    return decoded


@pytest.mark.usefixtures("short_segments")
def test_a_split_video_has_the_same_frames_as_a_whole_one(data: Path, tmp_path: Path) -> None:
    assert extract(data, tmp_path / "whole", workers=0).made == ("long", "short")
    report = extract(data, tmp_path / "split")
    assert (report.made, report.failed) == (("long", "short"), ())
    assert (decoder(tmp_path / "whole"), decoder(tmp_path / "split")) == ("decord", "pyav")
    assert_same(rows(tmp_path / "whole"), rows(tmp_path / "split"))
    assert {path.name for path in (tmp_path / "split" / "frames").iterdir()} == {"long.h5", "short.h5"}
    assert extract(data, tmp_path / "split").kept == ("long", "short")


@pytest.mark.usefixtures("short_segments")
def test_a_video_is_decoded_as_one_if_a_segment_loses_frames(
    data: Path, tmp_path: Path, decoded: list[tuple[int, int]]
) -> None:
    path = data / "videos" / "long.mp4"
    overwrite_packet(path, 150)
    extract(data, tmp_path / "whole", workers=0)
    report = extract(data, tmp_path / "split")
    assert len(decoded) == 4
    assert report.made == ("long", "short")
    assert rows(tmp_path / "split")["lost"]
    assert_same(rows(tmp_path / "whole"), rows(tmp_path / "split"))
    assert not (tmp_path / "split" / "frames" / ".pieces").exists()


@pytest.mark.usefixtures("short_segments")
def test_segments_of_an_interrupted_run_are_not_decoded_again(
    data: Path, tmp_path: Path, decoded: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    write, written = stage._write, []  # pyright: ignore[reportPrivateUsage]

    def stopped(item: stage.Extraction, *rest: Any) -> int:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(item.piece)
        return write(item, *rest)

    monkeypatch.setattr(stage, "_write", stopped)
    with pytest.raises(KeyboardInterrupt):
        extract(data, tmp_path / "work")
    segment_folder = tmp_path / "work" / "frames" / ".pieces"
    assert len(list(segment_folder.iterdir())) == 2
    (segment_folder / "other.0-99.h5").write_bytes(b"segment of a removed video")
    decoded.clear()
    monkeypatch.setattr(stage, "_write", write)
    extract(data, tmp_path / "work")
    assert sorted(decoded) == [(130, 195), (195, 260)]
    assert not segment_folder.exists()
    extract(data, tmp_path / "whole", workers=0)
    assert_same(rows(tmp_path / "whole"), rows(tmp_path / "work"))


@pytest.mark.usefixtures("short_segments")
def test_segments_made_with_other_settings_are_not_used(
    data: Path, tmp_path: Path, decoded: list[tuple[int, int]]
) -> None:
    work = tmp_path / "work"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "_join", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            extract(data, work)
    decoded.clear()
    extract(data, work, size=96)
    assert len(decoded) == 4
    assert rows(work)["jpeg"].size
    with FrameShard(Work(work).frames("long")) as shard:
        assert shard.frames([259]).shape == (1, 3, 96, 96)


def _interrupt(*_: object) -> int:
    raise KeyboardInterrupt


@pytest.mark.usefixtures("short_segments")
def test_a_damaged_segment_is_not_joined(
    data: Path, tmp_path: Path, decoded: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    join = stage.join

    def join_damaged(writer: Any, paths: list[Path]) -> int:
        content = bytearray(paths[1].read_bytes())
        content[len(content) // 2] ^= 1
        paths[1].write_bytes(content)
        return join(writer, paths)

    monkeypatch.setattr(stage, "join", join_damaged)
    assert extract(data, tmp_path / "split").made == ("long", "short")
    assert decoder(tmp_path / "split") == "decord"
    extract(data, tmp_path / "whole", workers=0)
    assert_same(rows(tmp_path / "whole"), rows(tmp_path / "split"))


@pytest.fixture
def long(tmp_path: Path) -> Path:
    write_video(tmp_path / "long.mp4", 200)
    return tmp_path / "long.mp4"


@pytest.mark.usefixtures("short_segments")
def test_only_long_videos_with_timestamps_are_split(long: Path, tmp_path: Path) -> None:
    def edges(size: int, total: int, workers: int, video: Path = long) -> list[tuple[int, int]]:
        return [(segment.start, segment.stop) for segment in segments.split(video, size, total, workers)]

    assert edges(100, 100, 1) == [], "only one worker"
    assert edges(50, 100, 2) == [], "not longer than the share of each worker"
    assert edges(30, 100, 2) == []
    assert edges(60, 100, 2) == [(0, 66), (66, 133), (133, 200)]
    assert edges(100, 100, 2) == [(0, 50), (50, 100), (100, 150), (150, 200)]
    assert len(edges(100, 100, 64)) == 5, "no segment has fewer than 40 frames"
    write_video(tmp_path / "old.avi", 200, "mpeg4")
    assert edges(100, 100, 2, tmp_path / "old.avi") == [], "an AVI has no presentation times"
    assert edges(100, 100, 2, tmp_path / "gone.mp4") == [], "the stage says so"
