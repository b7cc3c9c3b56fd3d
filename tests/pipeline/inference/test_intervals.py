"""Intervals in every output of a calibrated model; without a calibration, the outputs are as before."""

import csv
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import affect
import numpy as np
import pytest
from affect.configs.schema import load
from affect.pipeline.errors import ConfigError
from affect.pipeline.inference.intervals import COVARIATES, MODES, Evidence, absence, covariates
from affect.pipeline.inference.tables import INTERVAL_COLUMNS
from affect.pipeline.learning.calibration import Calibration
from affect.pipeline.learning.fit_calibration import Person, calibrate
from affect.pipeline.learning.model_file import add_calibration
from affect.pipeline.progress import Reporter
from affect.pipeline.stages.predict import PredictOptions, predict


def fake_calibration(people: int = 30) -> Calibration:
    """Wider where the face is less certain and where it is absent."""
    rng = np.random.default_rng(0)
    names = tuple(COVARIATES)
    known = []
    for _ in range(people):
        covariate = rng.normal(size=(60, len(names)))
        scale = 0.1 * np.exp(0.4 * covariate[:, names.index("absent")] - 0.4 * covariate[:, names.index("face")])
        known.append(Person(scale[:, None] * rng.exponential(size=(60, 2)), covariate))
    return calibrate(known, names, tuple(COVARIATES.values()))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_run: Callable[..., Path]) -> tuple[Path, Path]:
    """The same model without and with intervals."""
    plain, calibrated = (tiny_run(tmp_path_factory.mktemp(name)) for name in ("plain", "calibrated"))
    add_calibration(calibrated, dict.fromkeys(MODES, fake_calibration()))
    return plain, calibrated


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory, write_video: Callable[[Path, int], Path]) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "talk.mp4", 40)


def test_a_trace_has_an_interval_around_each_value(runs: tuple[Path, Path], video: Path) -> None:
    settings = ["predict.face_threshold=0"]
    plain, trace = (affect.load(run, settings=settings).predict(video) for run in runs)
    assert plain.interval is None
    assert np.isnan(plain.valence_low).all()
    assert np.array_equal(plain.value, trace.value)
    assert trace.level == 0.9
    for low, value, high in (
        (trace.valence_low, trace.valence, trace.valence_high), (trace.arousal_low, trace.arousal, trace.arousal_high),
    ):  # fmt: skip
        assert ((low < value) & (value < high) & (low >= -1) & (high <= 1)).all()
    wide = affect.load(runs[1], settings=[*settings, "predict.level=0.95"]).predict(video)
    assert wide.interval is not None
    assert trace.interval is not None
    assert (np.ptp(wide.interval, axis=2) >= np.ptp(trace.interval, axis=2)).all()


def test_a_frame_without_a_value_has_no_interval(runs: tuple[Path, Path], video: Path) -> None:
    settings = ["predict.face_threshold=1", "predict.no_face=empty"]
    trace = affect.load(runs[1], settings=settings).predict(video)
    assert trace.interval is not None
    assert np.isnan(trace.interval).all()


@pytest.mark.parametrize("kind", ["csv", "json", "parquet"])
def test_the_tables_have_the_ends_as_last_columns(
    runs: tuple[Path, Path], video: Path, tmp_path: Path, kind: str
) -> None:
    config = load("demo", ["predict.face_threshold=0", "runtime.device=cpu"])
    options = PredictOptions(format=kind, plot=False, emotions=True)
    names = []
    for number, run in enumerate(runs):
        out = tmp_path / str(number)
        predict(config, [video], run, out, Reporter(quiet=True), options)
        names.append([list(row) for row in (first_row(out / f"talk{table}.{kind}") for table in ("", ".clips"))])
    for before, after in zip(*names, strict=True):
        assert after == [*before, *INTERVAL_COLUMNS]


def first_row(path: Path) -> Mapping[str, Any]:
    if path.suffix == ".json":
        return json.loads(path.read_text())[0]
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            return next(csv.DictReader(file))
    import pyarrow.parquet as pq

    return pq.read_table(path).to_pylist()[0]


def test_another_level_or_calibration_makes_the_outputs_again(
    runs: tuple[Path, Path], video: Path, tmp_path: Path
) -> None:
    def made(run: Path, *settings: str) -> bool:
        config = load("demo", ["runtime.device=cpu", *settings])
        return bool(predict(config, [video], run, tmp_path, Reporter(quiet=True), PredictOptions(plot=False)).made)

    assert made(runs[1])
    assert not made(runs[1])
    assert made(runs[1], "predict.level=0.8")
    assert made(runs[0])  # the same weights without intervals
    assert not made(runs[0], "predict.level=0.5")


def test_too_few_people_for_the_level_are_said_and_give_the_whole_range(
    tmp_path: Path, tiny_run: Callable[..., Path], video: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "few").mkdir()
    run = tiny_run(tmp_path / "few")
    add_calibration(run, dict.fromkeys(MODES, fake_calibration(8)))
    config = load("demo", ["predict.face_threshold=0", "runtime.device=cpu"])
    predict(config, [video], run, tmp_path / "out", Reporter(), PredictOptions(plot=False))
    assert "at least 9 people, and the model has 8" in " ".join(capsys.readouterr().err.split())
    row = first_row(tmp_path / "out" / "talk.csv")
    assert [float(row[name]) for name in INTERVAL_COLUMNS] == [-1, 1, -1, 1]


def test_streams_and_pictures_have_intervals(runs: tuple[Path, Path]) -> None:
    rng = np.random.default_rng(1)
    frames = rng.integers(0, 256, (6, 48, 64, 3), dtype=np.uint8)
    plain, model = (affect.load(run, settings="predict.face_threshold=0") for run in runs)
    for one in model.stream(frames):
        assert -1 <= one.valence_low < one.valence < one.valence_high <= 1
        assert -1 <= one.arousal_low < one.arousal < one.arousal_high <= 1
    assert all(math.isnan(one.valence_low) for one in plain.stream(frames))
    found = model.predict_image(frames[0])
    assert found.interval is not None
    (low, high), _ = found.interval
    assert low < found.valence < high
    assert plain.predict_image(frames[0]).interval is None


def test_the_mean_of_models_has_an_interval_only_if_all_have_one(runs: tuple[Path, Path], video: Path) -> None:
    from affect.pipeline.inference.offline import trace_one
    from affect.pipeline.inference.predictor import Predictor

    config = load("demo", ["predict.face_threshold=0", "runtime.device=cpu"])
    traces = [
        trace_one(Predictor(models, config), video, Reporter(quiet=True))[0]
        for models in ([runs[1]], [runs[1], runs[1].parent / runs[1].name / "model.safetensors"], list(runs))
    ]
    assert traces[0].interval is not None
    assert traces[1].interval is not None
    assert np.allclose(traces[0].interval, traces[1].interval, atol=1e-6)
    assert traces[2].interval is None


def test_the_level_is_limited() -> None:
    with pytest.raises(ConfigError, match=r"predict\.level"):
        load("demo", ["predict.level=0.999"])


def evidence(**changed: object) -> Evidence:
    n = 40
    columns = {
        "time": np.arange(n) / 25, "face": np.full(n, 0.95), "seen": np.ones(n, bool), "height": np.full(n, 60.0),
        "doubt": np.full(n, 0.3), "deviation": np.full(n, 1.0),
    }  # fmt: skip
    return Evidence(**{**columns, **changed})


@pytest.mark.parametrize("causal", [False, True])
def test_covariates_of_a_stream_ignore_later_frames(causal: bool) -> None:
    value = np.zeros((40, 2))
    later = np.where(np.arange(40) < 20, 0.95, 0.1)
    before, after = (covariates(it, value, causal=causal)[:20] for it in (evidence(), evidence(face=later)))
    assert np.array_equal(before, after) == causal


def test_the_time_since_the_last_face_grows() -> None:
    seconds = 1 / 25
    seen = np.ones(40, bool)
    seen[10:20] = False
    since = absence(np.arange(40) / 25, seen, causal=True)
    near = absence(np.arange(40) / 25, seen, causal=False)
    assert since[:10].max() == since[20:].max() == 0
    assert since[19] == pytest.approx(10 * seconds)
    assert near[19] == pytest.approx(seconds)


def test_rows_do_not_depend_on_how_often_a_frame_is_given() -> None:
    """A calibration is applied row by row, so rows can be interpolated."""
    found = fake_calibration()
    rows = covariates(evidence(), np.zeros((40, 2)), causal=False)
    assert np.array_equal(found.half_width(rows, 0.9)[::3], found.half_width(rows[::3], 0.9))
