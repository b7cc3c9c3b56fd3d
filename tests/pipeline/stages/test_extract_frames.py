"""Each annotated video becomes one shard, the same whoever makes it, and is made once."""

import json
from pathlib import Path

import av
import numpy as np
import pytest
from affect.configs.schema import Config, dump, load
from affect.pipeline.progress import Reporter
from affect.pipeline.records import StageReport, Work
from affect.pipeline.stages.extract_frames import extract_frames
from affect.pipeline.stages.verify import verify
from affect.pipeline.storage.shard import FrameShard
from affect.tests.child import run
from affect.tests.data_folders import write_training_data
from affect.tests.programs.libraries import run_stage

LENGTHS = {"short": 12, "long": 150, "odd": 67}


def write_video(path: Path, frames: int) -> None:
    """A video whose frame k is k grey levels bright."""
    with av.open(str(path), "w", options={"movflags": "faststart"}) as out:
        stream = out.add_stream("libx264", rate=30, options={"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        stream.codec_context.gop_size = 15
        for number in range(frames):
            out.mux(
                stream.encode(av.VideoFrame.from_ndarray(np.full((96, 128, 3), 20 + number, np.uint8), format="rgb24"))
            )
        out.mux(stream.encode(None))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    root = write_training_data(tmp_path / "data", LENGTHS, write_video)
    write_video(root / "videos" / "unwanted.mp4", 5)
    return root


def config(workers: int = 0, size: int = 48) -> Config:
    return load("demo", [f"runtime.workers={workers}", f"frames.size={size}"])


def extract(data: Path, work: Path, workers: int = 0, size: int = 48) -> StageReport:
    return extract_frames(config(workers, size), data, Work(work), Reporter(quiet=True))


def shards(work: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (work / "frames").iterdir()}


def test_every_frame_of_every_annotated_video_is_there(data: Path, tmp_path: Path) -> None:
    report = extract(data, tmp_path / "work")
    assert report.made == ("long", "odd", "short")
    assert report.failed == report.kept == ()
    assert report.output == tmp_path / "work" / "frames"
    assert report.facts["frames"] == sum(LENGTHS.values())
    assert set(shards(tmp_path / "work")) == {f"{name}.h5" for name in LENGTHS}
    for name, frames in LENGTHS.items():
        with FrameShard(Work(tmp_path / "work").frames(name)) as shard:
            np.testing.assert_array_equal(shard.read("index"), np.arange(frames))
            np.testing.assert_allclose(shard.read("pts"), np.arange(frames) / 30, atol=1e-6)
            assert shard.attributes["lost"] == []
            assert (shard.attributes["width"], shard.attributes["height"]) == (128, 96)
            assert (shard.source, shard.settings["size"]) == (f"{name}.mp4", 48)
            pictures = shard.frames(np.arange(frames))
            assert pictures.shape == (frames, 3, 48, 48)
            brightness = pictures.float().mean((1, 2, 3)).numpy()
            np.testing.assert_allclose(brightness, 20 + np.arange(frames), atol=2)


def test_shards_are_the_same_for_any_number_of_workers(data: Path, tmp_path: Path) -> None:
    made = []
    for workers in (0, 2):
        extract(data, tmp_path / str(workers), workers)
        made.append(shards(tmp_path / str(workers)))
    assert made[0] == made[1]


def test_a_second_run_writes_nothing(data: Path, tmp_path: Path) -> None:
    extract(data, tmp_path / "work", 2)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "work" / "frames").iterdir()}
    (tmp_path / "config.yaml").write_text(dump(config(workers=2)))
    done = run(run_stage, "extract_frames", tmp_path / "config.yaml", data, tmp_path / "work")
    assert done.stderr == ""
    report = json.loads(done.stdout)
    assert (report["kept"], report["made"]) == (["long", "odd", "short"], [])
    assert report["facts"]["frames"] == sum(LENGTHS.values())
    assert not {"torch", "distributed", "av", "decord", "cv2"} & set(report["libraries"])
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_only_what_changed_is_made_again(data: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    extract(data, work)
    write_video(data / "videos" / "short.mp4", 14)
    assert extract(data, work).made == ("short",)
    (work / "frames" / "odd.h5").unlink()
    (work / "frames" / "long.h5").write_bytes(b"")
    assert extract(data, work).made == ("long", "odd")
    assert extract(data, work, size=64).made == ("long", "odd", "short")
    assert extract(data, work, size=64).made == ()


def test_a_damaged_shard_that_verify_removed_is_made_again(data: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    extract(data, work)
    path = work / "frames" / "odd.h5"
    sound = path.read_bytes()
    with FrameShard(path) as shard:
        place = sound.find(shard.jpegs([40])[0].tobytes())
    path.write_bytes(sound[: place + 9] + b"\x77" + sound[place + 10 :])
    assert extract(data, work).made == (), "the damage is inside the pictures"
    report = verify(config(), Work(work), Reporter(quiet=True), remove=True)
    assert [problem.name for problem in report.failed] == ["frames/odd.h5"]
    assert extract(data, work).made == ("odd",)
    assert path.read_bytes() == sound


@pytest.mark.parametrize("workers", [0, 2])
def test_a_failed_video_is_listed_and_the_others_are_done(data: Path, tmp_path: Path, workers: int) -> None:
    work = tmp_path / "work"
    extract(data, work)
    for name in ("odd", "short"):
        (data / "videos" / f"{name}.mp4").write_bytes(b"not a video at all" * 99)
    report = extract(data, work, workers)
    assert report.kept == ("long",)
    assert [(problem.kind, problem.name) for problem in report.failed] == [("damaged", "odd"), ("damaged", "short")]
    assert all("cannot be read as a video" in problem.message and problem.remedy for problem in report.failed)
    # Its frames were those of another file.
    assert set(shards(work)) == {"long.h5"}


def test_a_truncated_video_is_used_up_to_its_end(data: Path, tmp_path: Path) -> None:
    path = data / "videos" / "long.mp4"
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    report = extract(data, tmp_path / "work")
    assert report.failed == ()
    (note,) = report.facts["notes"]
    assert note["name"] == "long"
    assert "of 150 frames cannot be decoded, the first is" in note["message"]
    with FrameShard(Work(tmp_path / "work").frames("long")) as shard:
        index, lost = shard.read("index").tolist(), shard.attributes["lost"]
        assert sorted(index + lost) == list(range(150))
        brightness = shard.frames(np.arange(len(shard))).float().mean((1, 2, 3)).numpy()
        np.testing.assert_allclose(brightness, 20 + np.array(index), atol=2)
    assert extract(data, tmp_path / "work").facts["notes"] == [note]


def test_files_of_a_killed_run_are_removed(data: Path, tmp_path: Path, ended_process: int) -> None:
    extract(data, tmp_path / "work")
    leftover = tmp_path / "work" / "frames" / f".long.h5.{ended_process}.tmp"
    leftover.write_bytes(b"half a shard")
    extract(data, tmp_path / "work")
    assert not leftover.exists()


def test_progress_has_one_line_per_video(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    extract_frames(config(), data, Work(tmp_path / "work"), Reporter())
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.splitlines()[0] == "extract-frames 1/3  long: 150 frames"
    assert len(output.err.splitlines()) == 3
