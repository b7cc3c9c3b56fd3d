"""A video whose faces are unlike the training data is marked wherever its values are shown; others are not."""

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import affect
import cv2
import numpy as np
import pytest
import torch
from affect.configs.schema import Config, load
from affect.pipeline.inference.offline import trace_video
from affect.pipeline.inference.predictor import Predictor
from affect.pipeline.ingest.video.decode import decoded
from affect.pipeline.learning.model_file import add_reference, read_reference
from affect.pipeline.learning.reference import Reference, describe, fit_reference
from affect.pipeline.progress import Reporter
from affect.pipeline.records import Work
from affect.pipeline.stages.cache_features import cache_features
from affect.pipeline.stages.live import live
from affect.pipeline.stages.predict import PredictOptions, predict
from affect.pipeline.stages.train import train
from affect.pipeline.visualization.clip_page import player_pages

QUIET = Reporter(quiet=True)
PEOPLE = 30
TinyRun = Callable[..., Path]


def rows_of(model: Path, config: Config, videos: Iterable[Path]) -> list[torch.Tensor]:
    """The descriptions of the frames of each video."""
    predictor, found = Predictor(model, config), []
    for video in videos:

        def read(decoding: object) -> torch.Tensor:
            parts = [
                predictor.encode(torch.from_numpy(batch.pixels.copy()).permute(0, 3, 1, 2))
                for batch in decoding  # type: ignore[attr-defined]
            ]
            return torch.cat([describe(part.texture, part.feature) for part in parts])

        found.append(decoded(video, predictor.size, read, batch=32, deadline=60))
    return found


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, tiny_run: TinyRun) -> Config:
    run = tiny_run(tmp_path_factory.mktemp("settings"), "predict.face_threshold=0")
    return load(str(run / "config.yaml"))


@pytest.fixture(scope="module")
def video(demo_data: Path) -> Path:
    return min(demo_data.rglob("videos/**/*.mp4"), key=lambda path: (path.stat().st_size, path))


@pytest.fixture(scope="module")
def models(config: Config, video: Path, tmp_path_factory: pytest.TempPathFactory, tiny_run: TinyRun) -> dict[str, Path]:
    """A model whose training people look like the video, one whose people do not, and one without a reference."""
    runs = {
        name: tiny_run(tmp_path_factory.mktemp(name), "predict.face_threshold=0") for name in ("like", "unlike", "none")
    }
    frames = rows_of(runs["none"], config, [video])[0]
    generator = torch.Generator().manual_seed(0)

    def people(middle: torch.Tensor) -> Reference:
        noise = [0.01 * torch.randn(12, frames.shape[1], generator=generator) for _ in range(PEOPLE)]
        found = fit_reference([middle[torch.arange(12) % len(middle)] + it for it in noise])
        assert found is not None
        return found

    add_reference(runs["like"], people(frames))
    add_reference(runs["unlike"], people(frames.flip(1)))
    return runs


def test_predict_says_in_one_line_that_a_video_is_beyond_the_training_data(
    models: dict[str, Path], config: Config, video: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, model in models.items():
        report = predict(config, [video], model, tmp_path / name, QUIET, PredictOptions(plot=False))
        facts = report.facts[video.stem]
        lines = [line for line in capfd.readouterr().err.splitlines() if "unlike the training data" in line]
        assert len(lines) == (name == "unlike")
        if name == "none":
            assert "beyond_training" not in facts
            continue
        assert facts["beyond_training"] == (name == "unlike")
        assert (facts["training_percentile"] == 100) == (name == "unlike")
        stored = json.loads((tmp_path / name / f"{video.stem}.facts.json").read_text())["facts"]
        assert stored["training_distance"] == facts["training_distance"]
        # A second call keeps the files, and still says it.
        assert predict(config, [video], model, tmp_path / name, QUIET, PredictOptions(plot=False)).kept
        assert capfd.readouterr().err.count("unlike the training data") == (name == "unlike")


def test_the_page_of_a_video_repeats_the_warning(
    models: dict[str, Path], config: Config, video: Path, tmp_path: Path
) -> None:
    for name in ("like", "unlike"):
        predict(config, [video], models[name], tmp_path / name, QUIET, PredictOptions(plot=False))
        assert player_pages(config, [video.stem], tmp_path / name, QUIET).made
        page = (tmp_path / name / f"{video.stem}.html").read_text()
        assert ("Caution: the faces are unlike the training data" in page) == (name == "unlike")


def test_pictures_are_judged_together(
    models: dict[str, Path], config: Config, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for number, path in enumerate(paths):
        cv2.imwrite(str(path), np.random.default_rng(number).integers(0, 256, (80, 80, 3), np.uint8))
    report = predict(config, paths, models["unlike"], tmp_path / "out", QUIET)
    assert report.facts["pictures"]["beyond_training"]
    assert capfd.readouterr().err.count("pictures: the faces are unlike the training data") == 1


def test_live_warns_once(
    models: dict[str, Path], config: Config, video: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "long.avi"
    out = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 50, (80, 80))
    for number in range(200):
        out.write(np.random.default_rng(number).integers(0, 256, (80, 80, 3), np.uint8))
    out.release()
    live(config, path, models["unlike"], QUIET, as_json=True, emit=lambda _: None)
    assert capfd.readouterr().err.count("unlike the training data") == 1
    live(config, path, models["none"], QUIET, as_json=True, emit=lambda _: None)
    assert "unlike the training data" not in capfd.readouterr().err


def test_a_trace_in_python_has_the_distance_of_each_frame(models: dict[str, Path], config: Config, video: Path) -> None:
    trace = affect.load(models["unlike"]).predict(video)
    assert trace.distance is not None
    assert trace.distance.shape == trace.frame.shape
    assert trace.unlike is not None
    assert trace.unlike.beyond
    assert trace.unlike.distance == pytest.approx(float(np.median(trace.distance)))
    assert affect.load(models["none"]).predict(video).unlike is None
    assert trace_video(Predictor(models["none"], config), video, QUIET)[0].distance is None


@pytest.fixture(scope="module")
def cached(demo_data: Path, demo_frames: Path, tiny_config: Config, tmp_path_factory: pytest.TempPathFactory) -> Work:
    work = Work(shutil.copytree(demo_frames, tmp_path_factory.mktemp("reference") / "work"))
    cache_features(whole(tiny_config), demo_data, work, QUIET)
    return work


def whole(tiny_config: Config) -> Config:
    changes = {
        "stn": {"localiser": "none"}, "backbone": {"weights": "scratch"}, "adapt": {"epochs": 0},
        "train": {"epochs": 1}, "runtime": {"device": "cpu", "precision": "fp32", "workers": 0},
    }  # fmt: skip
    return Config.model_validate(
        {
            name: {**value, **changes.get(name, {})} if isinstance(value, dict) else value
            for name, value in tiny_config.model_dump().items()
        }
    )


@pytest.mark.parametrize("end_to_end", [False, True])
def test_train_fits_the_reference_to_its_training_people(
    demo_data: Path, cached: Work, tiny_config: Config, monkeypatch: pytest.MonkeyPatch, *, end_to_end: bool
) -> None:
    config, name = whole(tiny_config), f"run_{end_to_end}"
    monkeypatch.setattr("affect.pipeline.learning.reference.MIN_PEOPLE", 4)
    train(config, demo_data, cached, QUIET, run=name, end_to_end=end_to_end)
    reference = read_reference(cached.run(name))
    people = json.loads((cached.run(name) / "run.json").read_text())["train"]
    assert reference is not None
    assert reference.people == len(people)
    assert f"with {len(people)} people that were left out" in (cached.run(name) / "README.md").read_text()


def test_without_enough_people_or_their_frames_there_is_no_reference(
    demo_data: Path, cached: Work, tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = whole(tiny_config)
    train(config, demo_data, cached, QUIET, run="few")
    assert read_reference(cached.run("few")) is None
    assert "has no reference" in (cached.run("few") / "README.md").read_text()
    monkeypatch.setattr("affect.pipeline.learning.reference.MIN_PEOPLE", 4)
    without = Work(shutil.copytree(cached.root, tmp_path / "work"))
    shutil.rmtree(without.root / "frames")
    train(config, demo_data, without, QUIET, run="bare")
    assert read_reference(without.run("bare")) is None
