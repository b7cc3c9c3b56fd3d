"""Every frame of any video gets its row, whatever the video; and a broken one does not stop the others."""

import csv
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from affect.configs.schema import Config, load
from affect.models.backbone import scratch
from affect.pipeline.errors import ConfigError, MissingStageError, WeightsError
from affect.pipeline.inference.inputs import find_videos
from affect.pipeline.inference.outputs import SUFFIXES, output_names
from affect.pipeline.inference.prediction import fill
from affect.pipeline.inference.tables import CLIP_COLUMNS, COLUMNS
from affect.pipeline.ingest.video.decode import probe
from affect.pipeline.ingest.video.timeline import read_timeline
from affect.pipeline.progress import Reporter
from affect.pipeline.stages.predict import PredictOptions, predict
from hypothesis import given
from hypothesis import strategies as st

QUIET = Reporter(quiet=True)
SMALL = (
    "frames.size=64", "stn.view=32", "stn.crop=32", "clip.length=16", "clip.hop=8", "head.project=8", "head.hidden=8",
    "head.dense=[8]", "runtime.device=cpu", "runtime.precision=fp32",
)  # fmt: skip
TinyRun = Callable[..., Path]


def settings(*more: str) -> Config:
    return load("demo", [*SMALL, *more])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_run: TinyRun) -> Path:
    return tiny_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def video(demo_data: Path) -> Path:
    return min(demo_data.rglob("videos/**/*.mp4"), key=lambda path: (path.stat().st_size, path))


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def column(rows: list[dict[str, str]], name: str) -> np.ndarray:
    return np.array([float(row[name] or "nan") for row in rows])


def assert_whole(rows: list[dict[str, str]], path: Path, frames: int) -> None:
    """One row a frame, at its time, with a box inside the picture."""
    facts = probe(path)
    assert column(rows, "frame").tolist() == list(range(frames))
    assert (np.diff(column(rows, "time")) > 0).all()
    np.testing.assert_allclose(column(rows, "time"), read_timeline(path).time, atol=1e-6)
    x0, y0, x1, y1 = (column(rows, name) for name in ("x0", "y0", "x1", "y1"))
    assert (x0 >= 0).all() and (x0 < x1).all() and (x1 <= facts.width).all()  # noqa: PT018
    assert (y0 >= 0).all() and (y0 < y1).all() and (y1 <= facts.height).all()  # noqa: PT018


def test_every_frame_has_a_row_and_every_clip(model: Path, video: Path, tmp_path: Path) -> None:
    report = predict(settings("predict.face_threshold=0"), [video], model, tmp_path, QUIET)
    assert (report.made, report.failed) == ((video.stem,), ())
    rows, frames = table(tmp_path / f"{video.stem}.csv"), probe(video).frames
    assert tuple(rows[0]) == COLUMNS
    assert_whole(rows, video, frames)
    clips = table(tmp_path / f"{video.stem}.clips.csv")
    assert tuple(clips[0]) == CLIP_COLUMNS
    assert [(clip["first_frame"], clip["last_frame"]) for clip in clips] == [
        (str(start), str(min(start + 16, frames) - 1)) for start in range(0, frames, 16)
    ]
    for clip in clips:
        part = rows[int(clip["first_frame"]) : int(clip["last_frame"]) + 1]
        assert (clip["start"], clip["end"]) == (part[0]["time"], part[-1]["time"])
        assert float(clip["valence"]) == pytest.approx(column(part, "valence").mean(), abs=1e-5)
    facts = report.facts[video.stem]
    assert facts["frames"] == frames
    assert facts["face_share"] == 1
    assert facts["arousal_max"] == pytest.approx(column(rows, "arousal").max(), abs=1e-5)
    assert column(rows, "arousal")[column(rows, "time").tolist().index(facts["liveliest"])] == pytest.approx(
        facts["arousal_max"], abs=1e-5
    )
    assert facts["frames_per_second"] > 0
    json.dumps(report.as_json(), allow_nan=False)
    assert (tmp_path / f"{video.stem}.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in tmp_path.iterdir()} == {
        f"{video.stem}{suffix}" for suffix in (".csv", ".clips.csv", ".png", ".facts.json")
    }


def test_what_is_up_to_date_is_kept(model: Path, video: Path, tmp_path: Path) -> None:
    first = predict(settings(), [video], model, tmp_path, QUIET)
    second = predict(settings(), [video], model, tmp_path, QUIET)
    assert (second.made, second.kept, second.facts) == ((), first.made, first.facts)
    assert predict(settings("predict.no_face=empty"), [video], model, tmp_path, QUIET).made
    (tmp_path / f"{video.stem}.png").unlink()
    assert predict(settings("predict.no_face=empty"), [video], model, tmp_path, QUIET).made


def test_a_broken_video_fails_alone_and_leaves_nothing(model: Path, video: Path, tmp_path: Path) -> None:
    broken, out = tmp_path / "broken.mp4", tmp_path / "out"
    shutil.copy(video, broken)
    predict(settings(), [broken], model, out, QUIET)
    assert len(list(out.iterdir())) == 4
    broken.write_bytes(b"no video" * 100)
    missing = tmp_path / "nope.mp4"
    report = predict(settings(), [broken, missing, video], model, out, QUIET)
    assert report.made == (video.stem,)
    assert {(problem.kind, problem.name) for problem in report.failed} == {
        ("damaged", "broken"), ("missing", str(missing))
    }  # fmt: skip
    assert all(problem.remedy for problem in report.failed)
    assert not list(out.glob("broken*"))


def test_videos_of_one_stem_do_not_overwrite_each_other(model: Path, video: Path, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        shutil.copy(video, tmp_path / folder / "talk.mp4")
    named = [tmp_path / "a" / "talk.mp4", tmp_path / "b", tmp_path / "*" / "talk.mp4"]
    report = predict(settings(), named, model, tmp_path / "out", QUIET)
    assert report.made == ("talk", "talk-2")
    assert len(table(tmp_path / "out" / "talk-2.csv")) == probe(video).frames


def test_a_second_video_of_the_same_name_gets_another_name(model: Path, video: Path, tmp_path: Path) -> None:
    """Neither overwrites the other, whatever the order, and a broken one takes only its own away."""
    paths = [tmp_path / folder / "talk.mp4" for folder in ("a", "b")]
    for path in paths:
        path.parent.mkdir()
        shutil.copy(video, path)
    out = tmp_path / "out"
    assert predict(settings(), paths[:1], model, out, QUIET).made == ("talk",)
    assert predict(settings(), paths[1:], model, out, QUIET).made == ("talk-2",)
    assert predict(settings(), paths[::-1], model, out, QUIET).kept == ("talk-2", "talk")
    paths[1].write_bytes(b"no video" * 100)
    assert [it.name for it in predict(settings(), paths[1:], model, out, QUIET).failed] == ["talk-2"]
    assert len(list(out.glob("talk.*"))) == 4
    assert not list(out.glob("talk-2*"))
    paths[0].rename(tmp_path / "a" / "speech.mp4")
    shutil.copy(video, paths[1])
    assert predict(settings(), paths[1:], model, out, QUIET).made == ("talk",), "the first one is gone"


def test_names_never_share_a_file() -> None:
    files = [Path(name) for name in ("a/x.mp4", "b/x.mov", "c/x-2.mp4", "d/X.avi", "e/x.clips.mp4")]
    names = [name for name, _ in output_names(files)]
    written = [f"{name}{suffix}".lower() for name in names for suffix in SUFFIXES]
    assert names[:2] == ["x", "x-2"]
    assert len(set(written)) == len(written)


def test_files_folders_and_patterns_name_videos_once(tmp_path: Path) -> None:
    for name in (
        "b/one.mp4",
        "b/deep/two.MOV",
        "b/notes.txt",
        "b/._one.mp4",
        "b/one.overlay.mp4",
        "b/.cache/three.mp4",
        "a [1].mp4",
        "empty/x.txt",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found, problems = find_videos(
        [tmp_path / "b", tmp_path / "b/one.mp4", tmp_path / "*.mp4", tmp_path / "empty", tmp_path / "*.avi"]
    )
    assert {path.name for path in found} == {"one.mp4", "two.MOV", "a [1].mp4"}
    assert len(found) == 3
    assert [Path(problem.name).name for problem in problems] == ["empty", "*.avi"]
    assert find_videos([tmp_path / "a [1].mp4"])[0] == [tmp_path / "a [1].mp4"]


@pytest.mark.parametrize("policy", ["hold", "interpolate", "empty"])
def test_frames_without_a_face_follow_the_policy(model: Path, video: Path, tmp_path: Path, policy: str) -> None:
    predict(settings("predict.face_threshold=0"), [video], model, tmp_path / "all", QUIET)
    everywhere = table(tmp_path / "all" / f"{video.stem}.csv")
    face = column(everywhere, "face")
    ordered = np.sort(face)
    widest = int(np.diff(ordered).argmax())
    threshold = float(ordered[widest : widest + 2].mean())
    config = settings(f"predict.face_threshold={threshold}", f"predict.no_face={policy}")
    report = predict(config, [video], model, tmp_path, QUIET)
    rows = table(tmp_path / f"{video.stem}.csv")
    seen = face >= threshold
    assert report.facts[video.stem]["face_share"] == pytest.approx(seen.mean(), abs=1e-4)
    values = column(everywhere, "valence")[:, None]
    expected = fill(values, seen, column(rows, "time"), policy)[:, 0]
    np.testing.assert_allclose(column(rows, "valence"), expected, atol=2e-6)


def test_a_video_without_a_face_has_empty_values_and_a_warning(
    model: Path, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = predict(settings("predict.face_threshold=1"), [video], model, tmp_path, Reporter(quiet=True))
    assert (report.failed, report.made) == ((), (video.stem,))
    rows = table(tmp_path / f"{video.stem}.csv")
    assert {row["valence"] + row["arousal"] for row in rows} == {""}
    assert {clip["valence"] for clip in table(tmp_path / f"{video.stem}.clips.csv")} == {""}
    assert len(rows) == probe(video).frames
    assert report.facts[video.stem]["valence_mean"] is None
    assert report.facts[video.stem]["liveliest"] is None
    assert "no face" in capsys.readouterr().err


def test_the_three_policies() -> None:
    seen = np.array([0, 1, 0, 0, 1, 0], bool)
    value, time = np.array([[9, 1, 9, 9, 4, 9]], np.float32).T, np.array([0, 1, 2, 5, 7, 8.0])
    assert fill(value, seen, time, "hold")[:, 0].tolist() == [1, 1, 1, 1, 4, 4]
    assert fill(value, seen, time, "interpolate")[:, 0].tolist() == [1, 1, 1.5, 3, 4, 4]
    np.testing.assert_array_equal(
        fill(value, seen, time, "empty")[:, 0], [math.nan, 1, math.nan, math.nan, 4, math.nan]
    )


@given(st.lists(st.tuples(st.booleans(), st.floats(-1, 1)), min_size=1), st.sampled_from(["hold", "interpolate"]))
def test_values_seen_stay_and_others_lie_among_them(frames: list[tuple[bool, float]], policy: str) -> None:
    seen = np.array([it for it, _ in frames])
    value = np.array([[it] for _, it in frames])
    filled = fill(value, seen, np.arange(len(frames)) / 30, policy)
    assert np.array_equal(filled[seen], value[seen])
    if seen.any():
        assert filled.min() >= value[seen].min() - 1e-12
        assert filled.max() <= value[seen].max() + 1e-12
    else:
        assert np.isnan(filled).all()


def test_emotions_are_eight_more_columns_that_sum_to_one(model: Path, video: Path, tmp_path: Path) -> None:
    predict(settings("predict.face_threshold=0"), [video], model, tmp_path, QUIET, PredictOptions(emotions=True))
    rows = table(tmp_path / f"{video.stem}.csv")
    names = [name for name in rows[0] if name not in COLUMNS]
    assert (names[0], len(names)) == ("neutral", 8)
    np.testing.assert_allclose(sum(column(rows, name) for name in names), 1, atol=1e-5)


def test_a_backbone_without_the_eight_emotions_is_an_error(video: Path, tmp_path: Path, tiny_run: TinyRun) -> None:
    model = tiny_run(tmp_path / "run", backbone=scratch(classes=("yes", "no")))
    with pytest.raises(WeightsError, match=r"2 classes.*pretrain backbone"):
        predict(settings(), [video], model, tmp_path / "out", QUIET, PredictOptions(emotions=True))


def test_a_model_without_a_localiser_uses_the_whole_picture(video: Path, tmp_path: Path, tiny_run: TinyRun) -> None:
    model = tiny_run(tmp_path / "run", "stn.localiser=none")
    report = predict(settings("predict.face_threshold=1"), [video], model, tmp_path / "out", QUIET)
    assert report.facts[video.stem]["face_share"] == 1
    facts = probe(video)
    for row in table(tmp_path / "out" / f"{video.stem}.csv"):
        assert [float(row[name]) for name in ("face", "x0", "y0", "x1", "y1")] == [1, 0, 0, facts.width, facts.height]


def test_a_missing_model_is_named_with_a_remedy(video: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingStageError, match="a run folder"):
        predict(settings(), [video], tmp_path, tmp_path / "out", QUIET)


@pytest.mark.parametrize(("name", "frames"), [("tears-to-laughter.mp4", 472), ("titles-then-face.mov", 169)])
def test_real_videos_have_a_row_for_every_frame(
    model: Path, real: Path, tmp_path: Path, name: str, frames: int
) -> None:
    predict(settings(), [real / name], model, tmp_path, QUIET)
    rows = table(tmp_path / f"{Path(name).stem}.csv")
    assert len(rows) == frames
    assert_whole(rows, real / name, frames)


@pytest.mark.parametrize("kind", ["lstm", "tcn"])
def test_a_causal_head_can_carry_its_state(kind: str, video: Path, tmp_path: Path, tiny_run: TinyRun) -> None:
    """Then the clip's length and hop change nothing, and there is still one row a frame."""
    more = (
        "head.bidirectional=false",
        f"head.kind={kind}",
        "head.blocks=1",
        "clip.carry=true",
        "clip.length=4",
        "predict.face_threshold=0",
    )
    model = tiny_run(tmp_path / "run", *more)
    found = []
    for batch, hop in ((3, 1), (64, 4)):
        out = tmp_path / str(hop)
        report = predict(settings(*more, f"features.batch={batch}", f"clip.hop={hop}"), [video], model, out, QUIET)
        assert report.made == (video.stem,)
        found.append(table(out / f"{video.stem}.csv"))
    assert len(found[0]) == probe(video).frames
    for name in ("valence", "arousal"):
        np.testing.assert_allclose(column(found[0], name), column(found[1], name), atol=2e-4)
    windows = tmp_path / "windows"
    predict(settings(*more, "clip.carry=false"), [video], model, windows, QUIET)
    assert table(windows / f"{video.stem}.csv") != found[0]


def test_a_bidirectional_head_cannot_carry_its_state(model: Path, video: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"clip\.carry"):
        predict(settings("clip.carry=true"), [video], model, tmp_path, QUIET)
