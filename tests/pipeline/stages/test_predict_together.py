"""Several `affect predict` into one folder at once: they share the work, and no file is of two videos."""

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from affect.configs.schema import load
from affect.pipeline.inference.outputs import claimed, recorded
from affect.pipeline.progress import Reporter
from affect.pipeline.stages.predict import PredictOptions, predict

Process = subprocess.Popen[str]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_run: Callable[..., Path]) -> Path:
    return tiny_run(tmp_path_factory.mktemp("run"), "predict.face_threshold=0")


def begin(model: Path, out: Path, *videos: Path) -> Process:
    words = ["predict", *videos, "--model", model, "--out", out, "--no-plot", "--json"]
    return subprocess.Popen(
        [sys.executable, "-m", "affect", *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def end(process: Process) -> dict[str, list[str]]:
    stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr
    return json.loads(stdout)


def rows(path: Path) -> int:
    with path.open(newline="", encoding="utf-8") as file:
        return len(list(csv.DictReader(file)))


def test_two_that_do_the_same_videos_do_each_once(
    model: Path, tmp_path: Path, write_video: Callable[[Path, int], Path]
) -> None:
    lengths = {f"v{number}": 20 + number for number in range(4)}
    videos = [write_video(tmp_path / f"{name}.mp4", frames) for name, frames in lengths.items()]
    out = tmp_path / "out"
    reports = [end(process) for process in [begin(model, out, *videos) for _ in range(2)]]
    assert sorted(reports[0]["made"] + reports[1]["made"]) == sorted(lengths)
    assert all(sorted(report["made"] + report["kept"]) == sorted(lengths) for report in reports)
    assert {name: rows(out / f"{name}.csv") for name in lengths} == lengths
    assert not [path.name for path in out.iterdir() if path.name.startswith(".")]


def test_videos_of_one_name_get_files_of_their_own(
    model: Path, tmp_path: Path, write_video: Callable[[Path, int], Path]
) -> None:
    out, lengths = tmp_path / "out", {}
    for number, folder in enumerate("ab"):
        (tmp_path / folder).mkdir()
        lengths[write_video(tmp_path / folder / "talk.mp4", 20 + number)] = 20 + number
    for report in [end(process) for process in [begin(model, out, video) for video in lengths]]:
        assert len(report["made"]) == 1
    names = ("talk", "talk-2")
    seen = {Path(json.loads((out / f"{name}.facts.json").read_text())["source"]): name for name in names}
    assert {video: rows(out / f"{seen[video.resolve()]}.csv") for video in lengths} == lengths


def test_a_name_used_by_another_video_in_the_meantime_is_not_reused(
    model: Path, tmp_path: Path, write_video: Callable[[Path, int], Path]
) -> None:
    out, first, second = tmp_path / "out", tmp_path / "a" / "talk.mp4", tmp_path / "b" / "talk.mp4"
    for path in (first, second):
        path.parent.mkdir()
    write_video(first, 20)
    shutil.copy(first, second)
    predict(load(str(model / "config.yaml")), [first], model, out, Reporter(quiet=True), PredictOptions(plot=False))
    with claimed(out, "talk", second, wait=False) as name:
        assert name == "talk-2"
    known = recorded(out, "talk")
    assert known is not None
    assert known.source == first.resolve()
    assert known.environment["device"] == "cpu"
    assert known.environment["av"]
