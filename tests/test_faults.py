"""Faults during a long run: Ctrl-C, a killed worker or scheduler, a full disk, an unwritable folder.

Each time, the command ends or continues as documented, finished files are intact, and no process is left.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from affect.benchmarks.torture.kills import processes_naming
from affect.cli import app
from affect.pipeline.storage.shard import FRAMES, Shard
from affect.tests.child import command as program
from affect.tests.programs.clusters import serve_scheduler
from affect.tests.waiting import wait_until
from typer.testing import CliRunner, Result

SETTINGS = (
    "frames.size=64", "stn.localiser=none", "stn.view=32", "stn.crop=32", "backbone.weights=scratch",
    "adapt.epochs=0", "runtime.device=cpu", "runtime.precision=fp32",
)  # fmt: skip
VIDEOS = [f"v{number}" for number in range(6)]
Process = subprocess.Popen[str]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, write_video: Callable[[Path, int], Path]) -> Path:
    """Six videos of some seconds."""
    root = tmp_path_factory.mktemp("faults") / "data"
    (root / "videos").mkdir(parents=True)
    for number, name in enumerate(VIDEOS):
        frames = 300 + number
        write_video(root / "videos" / f"{name}.mp4", frames)
        annotation = root / "VA_Set" / ("Validation_Set" if number == 5 else "Train_Set") / f"{name}.txt"
        annotation.parent.mkdir(parents=True, exist_ok=True)
        annotation.write_text("valence,arousal\n" + "0.25,-0.5\n" * frames)
    return root


def command(stage: str, data: Path, work: Path, *more: str) -> list[str]:
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    return [sys.executable, "-m", "affect", stage, "--data", str(data), "--work", str(work), *settings, *more]


def begin(*words: str | Path) -> Process:
    return subprocess.Popen(
        [str(word) for word in words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def affect(stage: str, data: Path, work: Path, *more: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command(stage, data, work, *more), capture_output=True, text=True)


def finished(work: Path) -> list[str]:
    """The frame shards that are there, each of which has to be whole."""
    names = sorted(path.stem for path in (work / "frames").glob("[!.]*.h5"))
    for name in names:
        with Shard(work / "frames" / f"{name}.h5", FRAMES) as shard:
            shard.verify()
    return names


def in_work(work: Path) -> bool:
    """Whether a shard is being written."""
    return any((work / "frames").glob(".*.tmp"))


def session_of(leader: int) -> list[int]:
    """The processes that a command began, by their session; decoders have one of their own."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session = path.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(session) == leader and state != "Z":
            found.append(int(path.parent.name))
    return found


def decoders_of(data: Path) -> list[int]:
    return processes_naming("affect.pipeline.ingest.video.decoder_child", str(data))


def wait_until_gone(leader: int, data: Path) -> None:
    """Returns when no process of a command and no decoder of its videos is left."""
    wait_until(lambda: not session_of(leader) and not decoders_of(data))


@pytest.mark.parametrize("workers", ["0", "2"])
@pytest.mark.parametrize("to", ["group", "process"])
def test_ctrl_c_ends_a_stage_and_leaves_no_process(data: Path, tmp_path: Path, workers: str, to: str) -> None:
    work = tmp_path / "work"
    assert affect("audit", data, work).returncode == 0
    process = begin(*command("extract-frames", data, work, "--workers", workers))
    with process:
        wait_until(lambda: in_work(work), process)
        os.killpg(process.pid, signal.SIGINT) if to == "group" else process.send_signal(signal.SIGINT)
        _, stderr = process.communicate()
    assert process.returncode == 130, stderr
    assert stderr.splitlines()[-1].startswith("interrupted: finished work is kept")
    assert "Traceback" not in stderr
    wait_until_gone(process.pid, data)
    done = finished(work)
    assert affect("extract-frames", data, work, "--workers", "0").returncode == 0
    assert finished(work) == VIDEOS
    assert set(done) < set(VIDEOS)


def test_a_killed_worker_loses_no_result(data: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    assert affect("audit", data, work).returncode == 0
    process = begin(*command("extract-frames", data, work, "--workers", "2"))
    with process:
        wait_until(lambda: in_work(work), process)
        (name, *_) = (path.name for path in (work / "frames").glob(".*.tmp"))
        os.kill(int(name.split(".")[-2]), signal.SIGKILL)
        _, stderr = process.communicate()
    assert process.returncode == 0, stderr
    assert finished(work) == VIDEOS
    wait_until_gone(process.pid, data)


@pytest.mark.slow
def test_a_video_that_kills_every_worker_is_listed_and_the_others_are_done(data: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    assert affect("audit", data, work).returncode == 0
    process = begin(*command("extract-frames", data, work, "--workers", "2"))
    killed: set[int] = set()

    def kill() -> bool:
        for path in (work / "frames").glob(".v3.h5.*.tmp"):
            pid = int(path.name.split(".")[-2])
            if pid not in killed:
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
        return len(killed) == 3

    with process:
        wait_until(kill, process)
        _, stderr = process.communicate()
    assert process.returncode == 3, stderr
    assert "damaged  v3: its worker process died 3 times" in stderr
    assert finished(work) == [name for name in VIDEOS if name != "v3"]
    assert affect("extract-frames", data, work, "--workers", "0").returncode == 0
    assert finished(work) == VIDEOS


def test_a_killed_scheduler_ends_the_stage_with_a_message(data: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    assert affect("audit", data, work).returncode == 0
    scheduler = begin(*program(serve_scheduler))
    assert scheduler.stdout is not None
    with scheduler:
        address = scheduler.stdout.readline().strip()
        process = begin(*command("extract-frames", data, work, "--scheduler", address))
        with process:
            wait_until(lambda: finished(work), process)
            os.killpg(scheduler.pid, signal.SIGKILL)
            _, stderr = process.communicate()
    assert process.returncode == 1, stderr
    assert "Traceback" not in stderr
    assert stderr.splitlines()[-1].startswith("error: the connection to the Dask scheduler at")
    done = finished(work)
    assert done
    assert affect("extract-frames", data, work, "--workers", "0").returncode == 0
    assert finished(work) == VIDEOS


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """The mount point of a file system of its own; skips where none can be had."""
    place = tmp_path / "small"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512m", "tmpfs", place], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("no file system of our own can be mounted here")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def remount(place: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", place], check=True)


def leave_free(place: Path, size: int) -> Path:
    """Fills the file system up to so many bytes."""
    facts = os.statvfs(place)
    filler = place / "filler"
    filler.write_bytes(bytes(max(0, facts.f_bavail * facts.f_frsize - size)))
    return filler


def assert_one_error(code: int, stderr: str, reason: str) -> None:
    """One line of error that names the reason and a remedy."""
    assert code == 1, stderr
    assert "Traceback" not in stderr
    (line,) = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert reason in line
    assert "choose another" in line.lower() or "free" in line.lower()


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_full_disk_is_reported_and_finished_shards_are_intact(data: Path, small: Path, workers: str) -> None:
    work = small / "work"
    assert affect("audit", data, work).returncode == 0
    filler = leave_free(small, 2 << 20)  # a shard is of about 0.9 MB
    first = affect("extract-frames", data, work, "--workers", workers)
    assert_one_error(first.returncode, first.stderr, "No space left on device")
    done = finished(work)
    assert 0 < len(done) < len(VIDEOS)
    before = {name: (work / "frames" / f"{name}.h5").stat().st_mtime_ns for name in done}
    filler.unlink()
    assert affect("extract-frames", data, work, "--workers", "0").returncode == 0
    assert finished(work) == VIDEOS
    assert {name: (work / "frames" / f"{name}.h5").stat().st_mtime_ns for name in done} == before
    assert not in_work(work)


STAGES = ("audit", "extract-frames", "cache-features", "train", "evaluate", "predict")
OUTPUT = {
    "audit": "audit.json", "extract-frames": "frames", "cache-features": "features", "train": "train/default",
    "evaluate": "train/default/evaluation-validation.json", "predict": "out",
}  # fmt: skip


@pytest.fixture(scope="module")
def finished_work(tmp_path_factory: pytest.TempPathFactory, write_data: Callable[[Path], Path]) -> tuple[Path, Path]:
    """A data folder of four videos of a second, and a work folder in which all stages ran."""
    root = tmp_path_factory.mktemp("finished")
    data = write_data(root / "data")
    for stage in STAGES:
        result = run_stage(stage, data, root / "work")
        assert result.exit_code == 0, result.stderr
    return data, root / "work"


def run_stage(stage: str, data: Path, work: Path) -> Result:
    words = command(stage, data, work)[3:]
    if stage == "predict":
        model, out = work / "train" / "default", work / "out"
        words = ["predict", str(data / "videos" / "v.mp4"), "--model", str(model), "--out", str(out)]
    if "--work" in words:
        words += ["--set", "runtime.workers=0", "--set", "train.epochs=1", "--set", "clip.length=16"]
    return CliRunner().invoke(app, words)


@pytest.mark.parametrize("free", [0, 4096, 3 << 20])
@pytest.mark.parametrize("stage", STAGES)
def test_a_full_disk_stops_every_stage_with_a_message_and_the_stage_resumes(
    finished_work: tuple[Path, Path], small: Path, stage: str, free: int
) -> None:
    data, work = finished_work[0], Path(shutil.copytree(finished_work[1], small / "work"))
    output = work / OUTPUT[stage]
    shutil.rmtree(output) if output.is_dir() else output.unlink()
    filler = leave_free(small, free)
    first = run_stage(stage, data, work)
    if first.exit_code or free < 1 << 20:
        assert_one_error(first.exit_code, first.stderr, "No space left on device")
    filler.unlink()
    second = run_stage(stage, data, work)
    assert second.exit_code == 0, second.stderr
    assert output.exists()
    assert not list(small.rglob(".*")), "nothing half-written, no lock"


@pytest.mark.parametrize("stage", STAGES)
def test_an_unwritable_folder_is_reported(finished_work: tuple[Path, Path], small: Path, stage: str) -> None:
    data, work = finished_work[0], Path(shutil.copytree(finished_work[1], small / "work"))
    (work / "out" / "v.csv").unlink()
    (work / "train" / "default" / "evaluation-validation.json").unlink()
    before = {path: path.read_bytes() for path in work.rglob("*.h5")}
    remount(small, "ro")
    done = run_stage(stage, data, work)
    assert_one_error(done.exit_code, done.stderr, "Read-only file system")
    assert {path: path.read_bytes() for path in work.rglob("*.h5")} == before


def test_predict_reports_finished_videos_of_an_unwritable_folder(finished_work: tuple[Path, Path], small: Path) -> None:
    work = Path(shutil.copytree(finished_work[1], small / "work"))
    remount(small, "ro")
    done = run_stage("predict", finished_work[0], work)
    assert done.exit_code == 0, done.stderr
    assert "1 kept" in done.stderr
