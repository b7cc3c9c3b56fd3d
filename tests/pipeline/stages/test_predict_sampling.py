"""predict --fps: the networks see some frames, and every decoded frame keeps its row."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import affect
import av
import numpy as np
import pytest
from affect.cli import app
from affect.configs.schema import Config
from affect.pipeline.errors import ConfigError, InputError
from affect.pipeline.inference.load import settings_for
from affect.pipeline.inference.partial_results import FrameResults
from affect.pipeline.ingest.synthetic.video import SyntheticVideo, draw_video
from affect.pipeline.progress import Reporter
from affect.pipeline.stages.predict import PredictOptions, predict
from affect.pipeline.visualization.clip import read_clip
from affect.pipeline.visualization.clip_page import render_clip
from typer.testing import CliRunner

QUIET = Reporter(quiet=True)
TABLES = PredictOptions(plot=False)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_run: Callable[..., Path]) -> Path:
    return tiny_run(tmp_path_factory.mktemp("run"), "predict.face_threshold=0", "features.batch=25")


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """90 frames of one drawn person, 30 per second."""
    path = tmp_path_factory.mktemp("videos") / "drawn.mp4"
    draw_video(SyntheticVideo(path, 5, 90, 30.0, 1, 96, 96))
    return path


def settings(model: Path, *more: str) -> Config:
    return settings_for(model, more)


def table(path: Path) -> dict[str, np.ndarray]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name] or "nan") for row in rows]) for name in rows[0]}


def test_every_frame_keeps_its_row_and_a_column_says_which_were_seen(model: Path, video: Path, tmp_path: Path) -> None:
    predict(settings(model), [video], model, tmp_path / "all", QUIET, TABLES)
    report = predict(settings(model, "predict.fps=10"), [video], model, tmp_path / "some", QUIET, TABLES)
    full, some = (table(tmp_path / name / "drawn.csv") for name in ("all", "some"))
    assert [*full, "sampled"] == list(some)
    np.testing.assert_array_equal(full["frame"], some["frame"])
    np.testing.assert_array_equal(full["time"], some["time"])
    assert set(some["sampled"]) == {0, 1}
    assert some["sampled"][::3].all()
    assert some["sampled"][-1] == 1
    assert 31 <= some["sampled"].sum() < 60
    seen = some["sampled"] == 1
    for name in ("face", "x0", "y0", "x1", "y1"):
        np.testing.assert_allclose(full[name][seen], some[name][seen], atol=0.11)
    assert np.abs(full["valence"] - some["valence"]).mean() < 0.1 * max(0.1, np.ptp(full["valence"]))
    facts = report.facts["drawn"]
    assert (facts["fps"], facts["sampled"], facts["frames"]) == (10, some["sampled"].sum(), 90)


def test_a_rate_of_all_frames_gives_the_same_values(model: Path, video: Path, tmp_path: Path) -> None:
    predict(settings(model), [video], model, tmp_path / "all", QUIET, TABLES)
    predict(settings(model, "predict.fps=30"), [video], model, tmp_path / "same", QUIET, TABLES)
    full, same = (table(tmp_path / name / "drawn.csv") for name in ("all", "same"))
    assert same.pop("sampled").all()
    for name, values in full.items():
        np.testing.assert_allclose(values, same[name], atol=2e-6, err_msg=name)


def test_results_are_kept_and_made_again_for_another_rate(model: Path, video: Path, tmp_path: Path) -> None:
    def made(*more: str) -> bool:
        return bool(predict(settings(model, *more), [video], model, tmp_path, QUIET, TABLES).made)

    assert [made("predict.fps=10"), made("predict.fps=10"), made("predict.fps=5")] == [True, False, True]
    assert [made(), made("predict.fps=null")] == [True, False]
    assert "sampled" not in table(tmp_path / "drawn.csv")


def test_partial_results_have_each_frame_once_and_in_order(model: Path, video: Path, tmp_path: Path) -> None:
    parts: list[FrameResults] = []
    predict(settings(model, "predict.fps=4"), [video], model, tmp_path, QUIET, TABLES, on_frames=parts.append)
    assert np.concatenate([part.index for part in parts]).tolist() == list(range(90))
    valence = np.concatenate([part.value for part in parts])[:, 0]
    np.testing.assert_allclose(valence, table(tmp_path / "drawn.csv")["valence"], atol=2e-6)


def test_a_cut_is_seen_on_both_sides(model: Path, tmp_path: Path) -> None:
    path, cut = tmp_path / "cut.mp4", 37
    draw = np.random.default_rng(3)
    scenes = [draw.integers(low, low + 60, (6, 6, 3), dtype=np.uint8).repeat(16, 0).repeat(16, 1) for low in (0, 180)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=30)
        stream.width = stream.height = 96
        stream.pix_fmt = "yuv420p"
        for number in range(80):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(scenes[number >= cut], format="rgb24")))
        container.mux(stream.encode(None))
    predict(settings(model, "predict.fps=2"), [path], model, tmp_path / "out", QUIET, TABLES)
    sampled = table(tmp_path / "out" / "cut.csv")["sampled"]
    assert sampled[cut] == 1
    assert sampled.sum() < 20


def test_uneven_times_formats_people_and_emotions(model: Path, video_with_sound: Path, tmp_path: Path) -> None:
    options = PredictOptions(emotions=True, people=2, format="json", plot=False)
    predict(settings(model, "predict.fps=8"), [video_with_sound], model, tmp_path, QUIET, options)
    rows = json.loads((tmp_path / "talk.json").read_text(encoding="utf-8"))
    assert len(rows) % 40 == 0
    assert [row["frame"] for row in rows if row.get("person", 0) == 0] == list(range(40))
    first = [row for row in rows if row.get("person", 0) == 0]
    time = np.array([row["time"] for row in first if row["sampled"]])
    assert np.diff(time).max() < 0.125 + 2 * 0.08
    assert all(sum(row[name] for name in affect_emotions(row)) == pytest.approx(1, abs=1e-4) for row in rows)


def affect_emotions(row: dict[str, float]) -> list[str]:
    other = {"frame", "time", "person", "face", "valence", "arousal", "x0", "y0", "x1", "y1", "sampled"}
    return [name for name in row if name not in other]


def test_the_option_the_api_and_the_setting_agree(model: Path, video: Path, tmp_path: Path) -> None:
    command = ["predict", str(video), "--model", str(model), "--out", str(tmp_path), "--fps", "6", "--no-plot", "-q"]
    assert CliRunner().invoke(app, command).exit_code == 0
    trace = affect.load(model).predict(video, fps=6)
    assert trace.sampled is not None
    assert trace.save(tmp_path / "api.csv").read_bytes() == (tmp_path / "drawn.csv").read_bytes()
    assert f"({trace.sampled.sum()} of them sampled)" in trace._repr_html_()
    by_setting = affect.load(model, settings="predict.fps=6").predict_people(video, 1)[0]
    np.testing.assert_array_equal(by_setting.valence, trace.valence)
    assert affect.load(model).predict(video).sampled is None


def test_a_rate_below_one_is_refused_with_the_remedy(model: Path, video: Path) -> None:
    with pytest.raises(InputError, match="at least 1"):
        affect.load(model).predict(video, fps=0)
    with pytest.raises(ConfigError, match=r"predict\.fps"):
        settings(model, "predict.fps=0.5")
    assert CliRunner().invoke(app, ["predict", str(video), "--fps", "0"]).exit_code == 2


def test_the_page_says_how_many_frames_the_model_has_seen(model: Path, video: Path, tmp_path: Path) -> None:
    predict(settings(model, "predict.fps=10"), [video], model, tmp_path, QUIET, TABLES)
    count = int(table(tmp_path / "drawn.csv")["sampled"].sum())
    page = render_clip(read_clip(tmp_path, "drawn", 0.5))
    assert "frames seen by the model" in page
    assert f">{count}<" in page


def test_a_real_video_keeps_its_values_with_fewer_than_half_of_the_frames(real: Path, full_resnet: None) -> None:
    video = real / "tears-to-laughter.mp4"
    model = affect.load()
    full, some = model.predict(video), model.predict(video, fps=10)
    assert some.sampled is not None
    assert len(some) == len(full) == 472
    assert some.sampled.mean() < 0.5
    assert np.abs(full.valence - some.valence).mean() < 0.03
    assert np.abs(full.arousal - some.arousal).mean() < 0.03
    assert np.abs(full.box - some.box).mean() < 3
