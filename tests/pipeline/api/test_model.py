"""The Python API: the same values as the command, streams that use no later frames, a cheap `import affect`."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import affect
import numpy as np
import pytest
from affect.pipeline.errors import InputError, MissingStageError, VideoError
from affect.pipeline.inference.load import settings_for
from affect.pipeline.inference.tables import FORMATS, clip_file, frame_columns, frame_file
from affect.pipeline.inference.trace import summary_lines
from affect.pipeline.ingest.video.decode import decode
from affect.pipeline.progress import Reporter
from affect.pipeline.stages.predict import PredictOptions, predict
from affect.tests.child import output
from affect.tests.programs.libraries import import_affect


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_run: Callable[..., Path]) -> Path:
    return tiny_run(tmp_path_factory.mktemp("run"), "predict.face_threshold=0")


@pytest.fixture(scope="module")
def model(run: Path) -> affect.Model:
    return affect.load(run)


@pytest.fixture(scope="module")
def trace(model: affect.Model, video_with_sound: Path) -> affect.Trace:
    return model.predict(video_with_sound, emotions=True)


def test_import_affect_imports_no_heavy_library() -> None:
    version, libraries = output(import_affect).splitlines()
    assert version == affect.__version__
    assert not {"torch", "numpy", "av"} & set(libraries.split())
    assert set(affect.__all__) <= set(dir(affect))


@pytest.mark.parametrize("policy", ["hold", "interpolate", "empty"])
def test_predict_gives_the_bytes_of_the_command(run: Path, video_with_sound: Path, tmp_path: Path, policy: str) -> None:
    """In every format, and with every setting of predict.no_face."""
    face = affect.load(run).predict(video_with_sound).face
    overrides = [f"predict.no_face={policy}", f"predict.face_threshold={float(np.median(face))}"]
    found = affect.load(run, settings=overrides).predict(video_with_sound)
    predict(settings_for(run, overrides), [video_with_sound], run, tmp_path / "out", Reporter(quiet=True))
    assert 0 < found.seen.sum() < len(found)
    assert found.save(tmp_path / "a.csv").read_bytes() == (tmp_path / "out" / "talk.csv").read_bytes()
    assert np.isnan(found.valence).any() == (policy == "empty")
    rows = json.loads(found.save(tmp_path / "a.json").read_text())
    assert [row["valence"] is None for row in rows] == np.isnan(found.valence).tolist()
    table = pytest.importorskip("pyarrow.parquet").read_table(found.save(tmp_path / "a.parquet"))
    assert table["arousal"].null_count == np.isnan(found.arousal).sum()
    assert (table["frame"].to_numpy() == found.frame).all()


def test_predict_writes_the_requested_files_and_keeps_those_with_the_same_values(
    run: Path, video_with_sound: Path, tmp_path: Path
) -> None:
    config = settings_for(run)

    def run_predict(**options: bool | str) -> tuple[int, set[str]]:
        report = predict(config, [video_with_sound], run, tmp_path, Reporter(quiet=True), PredictOptions(**options))  # pyright: ignore[reportArgumentType]
        return len(report.made), {path.name.removeprefix("talk") for path in tmp_path.iterdir()}

    tables = {".json", ".clips.json", ".facts.json"}
    assert run_predict(format="json", plot=False) == (1, tables)
    assert run_predict(format="json", plot=False) == (0, tables)
    more = tables | {".csv", ".clips.csv", ".png", ".overlay.mp4"}
    assert run_predict(overlay=True) == (1, more), "files with the same values are kept"
    assert run_predict(format="json") == (0, more)
    config = settings_for(run, ["predict.no_face=empty"])
    assert run_predict() == (1, {".csv", ".clips.csv", ".png", ".facts.json"}), "files with other values are removed"


def test_a_trace_has_a_row_per_frame(trace: affect.Trace, video_with_sound: Path) -> None:
    with decode(video_with_sound, 32) as decoding:
        frames = sum(len(batch) for batch in decoding)
    assert len(trace) == frames == len(trace.time) == len(trace.valence) == len(trace.box)
    frame = trace.to_dataframe()
    assert list(frame.columns)[:5] == ["frame", "time", "face", "valence", "arousal"]
    assert "happiness" in frame.columns
    np.testing.assert_array_equal(frame["arousal"], trace.arousal)
    assert trace.summary()["frames"] == frames
    assert "talk" in repr(trace)


def test_a_trace_has_html_a_plot_and_a_summary(trace: affect.Trace, tmp_path: Path) -> None:
    page = trace._repr_html_()
    assert "data:image/png;base64," in page
    assert "talk" in page
    assert trace.save(tmp_path / "talk.png").read_bytes().startswith(b"\x89PNG")
    assert trace.plot().axes
    summary = "\n".join(summary_lines([trace]))
    assert "valence  mean" in summary
    assert "highest at" in summary


def test_impossible_requests_raise_an_error_with_the_allowed_values(
    model: affect.Model, trace: affect.Trace, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"\.csv, \.json, \.parquet"):
        trace.save(tmp_path / "talk.xls")
    with pytest.raises(VideoError, match="does not exist"):
        model.predict(tmp_path / "nope.mp4")
    with pytest.raises(MissingStageError, match="a run folder"):
        affect.load(tmp_path)
    with pytest.raises(InputError, match="1 to 4"):
        model.predict_people("talk.mp4", people=9)


def test_a_missing_package_is_an_error_that_names_it(
    trace: affect.Trace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("pandas", "pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=r"pip install pyarrow"):
        trace.save(tmp_path / "talk.parquet")
    with pytest.raises(InputError, match=r"pip install pandas"):
        trace.to_dataframe()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("both_ways", ["true", "false"])
def test_a_stream_depends_only_on_earlier_frames(
    tmp_path: Path, tiny_run: Callable[..., Path], video_with_sound: Path, both_ways: str
) -> None:
    model = affect.load(tiny_run(tmp_path, f"head.bidirectional={both_ways}", "predict.face_threshold=0"))
    assert model.causal == (both_ways == "false")
    moments = list(model.stream(video_with_sound))
    trace = model.predict(video_with_sound)
    assert [it.frame for it in moments] == trace.frame.tolist()
    assert [it.time for it in moments] == trace.time.tolist()
    np.testing.assert_allclose([it.face for it in moments], trace.face, atol=1e-5)
    np.testing.assert_allclose([it.box for it in moments], trace.box, atol=1e-2)
    assert all(-1 <= it.valence <= 1 and -1 <= it.arousal <= 1 for it in moments)
    with decode(video_with_sound, None) as decoding:
        pictures = np.concatenate([batch.pixels for batch in decoding])
    first = list(model.stream(pictures[:25], rate=25))
    again = list(model.stream(iter(pictures), rate=25))
    assert first == again[:25], "later pictures do not change earlier moments"
    assert [it.time for it in first[:3]] == [0.0, 0.04, 0.08]
    # The decoder scales before the conversion to RGB, `stream` after it. The rounding differs, so the random network
    # may choose another one of two boxes with nearly the same score.
    distance = np.abs(np.array([it.box for it in again]) - trace.box).max(1)
    assert (distance < 4).mean() > 0.85


def test_a_stream_repeats_the_last_values_without_a_face_or_has_none(run: Path, video_with_sound: Path) -> None:
    face = affect.load(run).predict(video_with_sound).face
    threshold = f"predict.face_threshold={float(np.median(face))}"
    held = list(affect.load(run, settings=[threshold]).stream(video_with_sound))
    empty = list(affect.load(run, settings=[threshold, "predict.no_face=empty"]).stream(video_with_sound))
    assert [it.seen for it in held] == [not np.isnan(it.valence) for it in empty]
    last = float("nan")
    for one in held:
        if not one.seen:
            assert one.valence == last or (np.isnan(last) and np.isnan(one.valence))
        last = one.valence


def test_an_array_that_is_not_a_picture_is_refused(model: affect.Model) -> None:
    with pytest.raises(InputError, match=r"float64 \[4, 4\]"):
        next(model.stream([np.zeros((4, 4))]))  # pyright: ignore[reportArgumentType]


def test_several_people_are_written_to_one_table(trace: affect.Trace, tmp_path: Path) -> None:
    from dataclasses import replace

    people = [replace(trace, person=0), replace(trace, person=1, valence=-trace.valence)]
    table = {name: column.values for name, column in frame_columns(people).items()}
    assert list(table)[:4] == ["frame", "time", "person", "face"]
    for number, one in enumerate(people):
        own = table["person"] == number
        np.testing.assert_array_equal(table["frame"][own], one.frame)
        np.testing.assert_array_equal(table["valence"][own], one.valence)
    for name in FORMATS:
        frame_file(tmp_path / f"frames.{name}", people, name)
        clip_file(tmp_path / f"clips.{name}", people, name)
    assert (tmp_path / "clips.csv").read_text().startswith("person,clip,")
    assert len(json.loads((tmp_path / "frames.json").read_text())) == 2 * len(trace)
