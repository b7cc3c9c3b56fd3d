"""predict over several videos: plots and pages are written beside the networks, and nothing else changes."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from affect.configs.schema import load
from affect.pipeline.progress import Reporter
from affect.pipeline.stages.predict import predict
from affect.tests.waiting import wait_until

NAMES = ("a", "b", "c")
SUFFIXES = (".csv", ".clips.csv", ".png", ".facts.json", ".html")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_run: Callable[..., Path]) -> Path:
    return tiny_run(tmp_path_factory.mktemp("run"), "predict.face_threshold=0")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory, write_video: Callable[[Path, int], Path]) -> Path:
    """A folder of three videos and a damaged one, which is second in order."""
    folder = tmp_path_factory.mktemp("videos")
    for number, name in enumerate(NAMES):
        write_video(folder / f"{name}.mp4", 20 + number)
    (folder / "aa.mp4").write_bytes((folder / "a.mp4").read_bytes()[:900])
    return folder


def command(videos: Path, model: Path, out: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "affect", "predict", str(videos), "--model", str(model), "--out", str(out), *more]


def test_a_folder_gets_the_files_that_each_video_gets_alone(videos: Path, model: Path, tmp_path: Path) -> None:
    together, alone = tmp_path / "together", tmp_path / "alone"
    done = subprocess.run(command(videos, model, together, "--report", "--json"), capture_output=True, text=True)
    assert done.returncode == 3, done.stderr
    reports = json.loads(done.stdout)
    assert [report["made"] for report in reports] == [list(NAMES), list(NAMES)]
    assert [problem["name"] for problem in reports[0]["failed"]] == ["aa"]
    for name in NAMES:
        predict(load(str(model / "config.yaml")), [videos / f"{name}.mp4"], model, alone, Reporter(quiet=True))
        for suffix in (".csv", ".clips.csv", ".png"):
            assert (together / f"{name}{suffix}").read_bytes() == (alone / f"{name}{suffix}").read_bytes()
    expected = {f"{name}{suffix}" for name in NAMES for suffix in SUFFIXES}
    assert {path.name for path in together.iterdir()} == {*expected, "failures.json"}
    told = [line for line in done.stderr.splitlines() if " frames/s" in line]
    assert [line.split(":")[0].split()[-1] for line in told] == list(NAMES)


def test_a_plot_that_cannot_be_written_is_listed_with_its_video(videos: Path, model: Path, tmp_path: Path) -> None:
    (tmp_path / "b.png" / "in-the-way").mkdir(parents=True)
    pages: dict[str, list] = {}
    paths = [videos / f"{name}.mp4" for name in NAMES]
    config = load(str(model / "config.yaml"))
    report = predict(config, paths, model, tmp_path, Reporter(quiet=True), pages=pages)
    assert report.made == NAMES
    assert [problem.name for problem in report.failed] == ["b"]
    assert "tables are written, but not the plot" in report.failed[0].message
    assert pages == {"a": [], "b": [], "c": []}
    assert (tmp_path / "c.png").is_file()
    again = predict(config, paths, model, tmp_path, Reporter(quiet=True))
    assert (again.kept, again.made) == (("a", "c"), ("b",))


def test_ctrl_c_leaves_only_complete_outputs(
    model: Path, tmp_path: Path, write_video: Callable[[Path, int], Path]
) -> None:
    folder, out = tmp_path / "videos", tmp_path / "out"
    folder.mkdir()
    for number in range(40):
        write_video(folder / f"v{number:02}.mp4", 20)
    process = subprocess.Popen(
        command(folder, model, out), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    wait_until(lambda: list(out.glob("*.facts.json")), process)
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in stderr
    finished = {path.name.removesuffix(".facts.json") for path in out.glob("*.facts.json")}
    assert 0 < len(finished) < 40
    assert all((out / f"{name}{suffix}").is_file() for name in finished for suffix in SUFFIXES[:4])
    assert not [path.name for path in out.iterdir() if path.name.startswith(".")]
