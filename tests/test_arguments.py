"""Invalid sources and numbers are refused at once, with the allowed values. Nothing waits forever."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import affect
import numpy as np
import pytest
from affect.cli import app
from affect.configs.schema import load
from affect.pipeline.app.server import ServerOptions, serve
from affect.pipeline.errors import ConfigError, InputError, VideoError, WorkError
from affect.pipeline.progress import Reporter
from affect.pipeline.stages.detect_boxes import detect_boxes
from affect.pipeline.stages.live import live
from affect.tests.child import run as run_program
from affect.tests.programs.commands import without_temporary_folder
from typer.testing import CliRunner

WriteVideo = Callable[[Path, int], Path]
NAN, INF = float("nan"), float("inf")
PICTURE = np.zeros((48, 64, 3), np.uint8)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_run: Callable[..., Path]) -> Path:
    return tiny_run(tmp_path_factory.mktemp("run"), "head.bidirectional=false")


@pytest.fixture(scope="module")
def model(run: Path) -> affect.Model:
    return affect.load(run)


@pytest.mark.parametrize("rate", [0, 0.0, -25, NAN, INF, -INF, None, "25", True])
def test_a_stream_of_pictures_needs_a_rate_above_0(model: affect.Model, rate: Any) -> None:
    """Said by the call itself, before a picture is asked for."""
    with pytest.raises(InputError, match=r"rate is .*above 0"):
        model.stream([PICTURE], rate=rate)


def test_any_numeric_type_is_accepted_as_rate(model: affect.Model) -> None:
    rates: tuple[Any, ...] = (25, 0.1, np.float32(29.97), np.int64(5))
    for rate in rates:
        assert len(list(model.stream([PICTURE, PICTURE], rate=rate))) == 2


@pytest.mark.parametrize("source", [-1, True, None, b"talk.mp4", 3.5, np.bool_(1)])
def test_a_stream_needs_a_source(model: affect.Model, source: Any) -> None:
    with pytest.raises(InputError):
        model.stream(source)


@pytest.mark.parametrize("shape", [(0, 0, 3), (0, 64, 3), (48, 0, 3), (48, 64), (48, 64, 4), (3,)])
def test_pictures_of_no_size_or_other_channels_are_refused(model: affect.Model, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="Give RGB pictures"):
        list(model.stream([np.zeros(shape, np.uint8)]))


@pytest.mark.parametrize("people", [0, -1, 5, 1.5, NAN, "2", None])
def test_people_must_be_1_to_4(model: affect.Model, people: Any) -> None:
    with pytest.raises(InputError, match="1 to 4"):
        model.predict_people("talk.mp4", people=people)


def test_a_single_override_may_be_a_string(run: Path) -> None:
    assert affect.load(run, settings="predict.no_face=empty").config.predict.no_face == "empty"


@pytest.mark.parametrize(
    "source", ["https://host/talk.mp4", "rtsp://host/live", "-", "/dev/stdin", "/dev/null", "pipe"]
)
def test_predict_in_python_refuses_a_source_that_is_not_a_file(
    model: affect.Model, tmp_path: Path, source: str
) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(VideoError, match=r"Give a file|give the file"):
        model.predict(tmp_path / "pipe" if source == "pipe" else source)


def test_live_refuses_a_pipe(model: affect.Model, run: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(VideoError, match="is a pipe"):
        live(model.config, tmp_path / "pipe.mp4", run, Reporter(quiet=True))


@pytest.mark.parametrize("seconds", [NAN, -1, -INF])
def test_live_refuses_invalid_seconds(model: affect.Model, run: Path, seconds: float) -> None:
    with pytest.raises(InputError, match="at least 0"):
        live(model.config, "talk.mp4", run, Reporter(quiet=True), seconds=seconds)


def test_the_live_command_refuses_invalid_seconds(run: Path, write_video: WriteVideo, tmp_path: Path) -> None:
    video = write_video(tmp_path / "talk.mp4", 3)
    done = CliRunner().invoke(app, ["live", str(video), "--model", str(run), "--seconds", "nan", "--json"])
    assert (done.exit_code, done.stdout) == (2, "")
    assert "--seconds" in done.stderr


@pytest.mark.parametrize("value", ["nan", ".nan", "inf", ".inf", "-.inf", "1e999"])
@pytest.mark.parametrize(
    "key", ["runtime.decode_seconds", "detect_boxes.gap_seconds", "train.learning_rate", "train.noise"]
)
def test_infinite_and_nan_settings_are_refused(key: str, value: str) -> None:
    with pytest.raises(ConfigError, match=key.split(".")[1]):
        load("demo", [f"{key}={value}"])


def test_negative_seeds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"runtime\.seed"):
        load("demo", ["runtime.seed=-1"])
    done = CliRunner().invoke(app, ["demo-data", str(tmp_path / "demo"), "--seed", "-1"])
    assert done.exit_code == 2
    assert not (tmp_path / "demo").exists()


def test_predict_needs_no_temporary_folder(run: Path, write_video: WriteVideo, tmp_path: Path) -> None:
    video = write_video(tmp_path / "talk.mp4", 12)
    out = tmp_path / "out"
    done = run_program(without_temporary_folder, "predict", video, "--model", run, "--out", out, "--no-plot")
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    assert len((out / "talk.csv").read_text().splitlines()) == 13


def test_the_app_without_a_temporary_folder_prints_a_remedy(
    run: Path, monkeypatch: pytest.MonkeyPatch, model: affect.Model
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere/tmp")
    with pytest.raises(WorkError, match="TMPDIR"):
        serve(model.config, run, ServerOptions("127.0.0.1", 0, 2**20), Reporter(quiet=True))


def test_doctor_reports_a_missing_temporary_folder(tmp_path: Path) -> None:
    done = run_program(without_temporary_folder, "doctor", "--work", tmp_path)
    assert "Traceback" not in done.stderr
    assert "TMPDIR" in done.stdout.replace("\n", "")


def test_detect_boxes_accepts_folders_and_lists_missing_paths(write_video: WriteVideo, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_video(tmp_path / folder / "talk.mp4", 3)
    given = [tmp_path / "a", tmp_path / "b/talk.mp4", tmp_path / "nope.mp4", tmp_path / "https:/host/x.mp4"]
    config = load("demo", ["runtime.workers=0"])
    report = detect_boxes(config, Reporter(quiet=True), videos=given, out=tmp_path / "out")
    named = {Path(problem.name).name: problem for problem in report.failed}
    assert named["nope.mp4"].kind == "missing"
    assert set(report.facts) == {"talk", "talk-2"}
    assert all(problem.remedy for problem in report.failed)
