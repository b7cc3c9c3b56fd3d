"""Each picture gets its row, with the values of a video of one frame; odd files are listed and the others are done."""

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import affect
import av
import numpy as np
import pytest
from affect.configs.schema import Config
from affect.pipeline.errors import InputError, PictureError
from affect.pipeline.inference.inputs import find_inputs
from affect.pipeline.inference.load import settings_for
from affect.pipeline.inference.pictures import MAX_SHRINK
from affect.pipeline.inference.tables import PICTURE_COLUMNS
from affect.pipeline.progress import Reporter
from affect.pipeline.records import StageReport, Work
from affect.pipeline.stages.predict import PredictOptions, predict
from affect.pipeline.visualization.report.videos import predicted
from PIL import Image

QUIET = Reporter(quiet=True)
SIZES = {"a.png": (60, 80), "b.PNG": (97, 131), "c.bmp": (64, 64), "d.tiff": (200, 33)}
"""Height and width."""
Row = dict[str, str]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_run: Callable[..., Path]) -> Path:
    return tiny_run(tmp_path_factory.mktemp("run"), "predict.face_threshold=0")


@pytest.fixture(scope="module")
def config(model: Path) -> Config:
    return settings_for(model)


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """A folder of pictures of different sizes. They are lossless, so that a video can have the same pixels."""
    (tmp_path / "album").mkdir()
    for name in SIZES:
        draw(tmp_path / "album" / name)
    return tmp_path / "album"


def draw(path: Path) -> Path:
    height, width = SIZES.get(path.name, (50, 70))
    squares = np.random.default_rng(height).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    Image.fromarray(squares.repeat(8, 0).repeat(8, 1)[:height, :width]).save(path)
    return path


def one_frame_video(picture: Path, path: Path) -> Path:
    pixels = np.asarray(Image.open(picture))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("png", rate=25)
        stream.height, stream.width = pixels.shape[:2]
        stream.pix_fmt = "rgb24"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def table(path: Path) -> list[Row]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "affect", *map(str, words)], capture_output=True, text=True)


@pytest.mark.parametrize("name", ["a.png", "c.bmp", "d.tiff"])
def test_a_picture_has_the_numbers_of_a_video_of_one_frame(
    model: Path, config: Config, album: Path, tmp_path: Path, name: str
) -> None:
    video = one_frame_video(album / name, tmp_path / "write_video.mov")
    predict(config, [album / name, video], model, tmp_path / "out", QUIET, PredictOptions(emotions=True))
    (picture,) = table(tmp_path / "out" / "pictures.csv")
    (frame,) = table(tmp_path / "out" / "write_video.csv")
    assert picture.pop("picture") == name
    assert picture == {key: cell for key, cell in frame.items() if key not in ("frame", "time")}
    assert picture["valence"]


def test_pictures_of_a_batch_have_the_values_they_have_alone(
    model: Path, config: Config, album: Path, tmp_path: Path
) -> None:
    predict(config, [album], model, tmp_path / "out", QUIET)
    rows = table(tmp_path / "out" / "pictures.csv")
    assert tuple(rows[0]) == PICTURE_COLUMNS
    assert [row["picture"] for row in rows] == list(SIZES)
    loaded = affect.load(model)
    for row in rows:
        found = loaded.predict_image(album / row["picture"])
        assert (found.height, found.width) == SIZES[row["picture"]]
        assert found.box is not None
        np.testing.assert_allclose(
            [float(row[name]) for name in PICTURE_COLUMNS[1:]],
            [found.face, found.valence, found.arousal, *found.box],
            atol=0.06,  # a box has one decimal
        )
        assert float(row["valence"]) == pytest.approx(found.valence, abs=1e-5)
    small = config.model_copy(update={"features": config.features.model_copy(update={"batch": 3})})
    predict(small, [album], model, tmp_path / "small", QUIET)
    for row, other in zip(rows, table(tmp_path / "small" / "pictures.csv"), strict=True):
        assert float(row["valence"]) == pytest.approx(float(other["valence"]), abs=2e-6)


@pytest.mark.parametrize("policy", ["hold", "empty"])
def test_a_picture_without_a_face_has_only_its_face_probability(
    model: Path, album: Path, tmp_path: Path, policy: str
) -> None:
    faces = sorted(affect.load(model).predict_image(album / name).face for name in SIZES)
    settings = (f"predict.face_threshold={(faces[1] + faces[2]) / 2}", f"predict.no_face={policy}")
    options = PredictOptions(emotions=True)
    report = predict(settings_for(model, settings), [album], model, tmp_path / "out", QUIET, options)
    assert report.facts["pictures"]["faces"] == 2
    rows = table(tmp_path / "out" / "pictures.csv")
    without = [dict(row) for row in rows if not row["valence"]]
    assert len(without) == 2
    for row in without:
        assert row.pop("picture")
        assert float(row.pop("face")) < (faces[1] + faces[2]) / 2
        assert set(row.values()) == {""}
        assert len(row) == 14
    loaded = affect.load(model, settings=settings)
    found = [loaded.predict_image(album / row["picture"], emotions=True) for row in rows]
    assert [one.seen for one in found] == [bool(row["valence"]) for row in rows]
    assert [one.box is None for one in found] == [np.isnan(one.arousal) for one in found]
    assert [one.box is None for one in found] == [not one.seen for one in found]


def test_odd_pictures_are_listed_and_the_others_are_done(model: Path, album: Path, tmp_path: Path) -> None:
    (album / "empty.jpg").touch()
    (album / "text.webp").write_text("not a picture")
    data = (album / "a.png").read_bytes()
    (album / "cut.png").write_bytes(data[: len(data) // 2])
    Image.new("1", (MAX_SHRINK * 64 + 1, 2)).save(album / "long.png")
    missing = tmp_path / "nope.jpg"
    done = run("predict", album, missing, "--model", model, "--out", tmp_path / "out", "--json")
    assert done.returncode == 3, done.stderr
    report = json.loads(done.stdout)
    failed = {Path(problem["name"]).name: problem for problem in report["failed"]}
    assert set(failed) == {"empty.jpg", "text.webp", "cut.png", "long.png", "nope.jpg"}
    assert all(problem["remedy"] for problem in failed.values())
    assert str(album / "empty.jpg") not in failed["empty.jpg"]["message"], "the name is not repeated"
    assert [row["picture"] for row in table(tmp_path / "out" / "pictures.csv")] == list(SIZES)
    assert f"{album / 'cut.png'}: cannot be decoded" in done.stderr
    for name in ("empty.jpg", "text.webp", "cut.png", "long.png"):
        (album / name).unlink()
    again = run("predict", album, "--model", model, "--out", tmp_path / "out", "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["kept"] == ["pictures"]


def test_pictures_beside_videos_are_used_only_by_name(
    tmp_path: Path, album: Path, write_video: Callable[[Path, int], Path]
) -> None:
    (album / "deep").mkdir()
    video = write_video(album / "deep" / "talk.mp4", 2)
    inputs = find_inputs([album])
    assert (inputs.videos, inputs.pictures) == ([video], [])
    (note,) = inputs.problems
    assert (note.kind, note.message.split()[0]) == ("note", "4")
    assert find_inputs([tmp_path / "*" / "**" / "*"]).pictures == []
    inputs = find_inputs([album, album / "a.png"])
    assert (inputs.videos, [picture.path for picture in inputs.pictures]) == ([video], [album / "a.png"])
    inputs = find_inputs([album / "*.*"])
    assert (inputs.videos, len(inputs.pictures), inputs.problems) == ([], 4, [])
    video.rename(album / "deep" / "talk.gif")
    assert find_inputs([album]).pictures == [], "a GIF is a video"


def test_each_picture_has_one_row_and_a_name_of_its_own(model: Path, config: Config, tmp_path: Path) -> None:
    for folder in ("1/sub", "2"):
        (tmp_path / folder).mkdir(parents=True)
        draw(tmp_path / folder / "a.png")
    draw(tmp_path / "1" / "b.png")
    named = [tmp_path / "1", tmp_path / "2" / "a.png", tmp_path / "1" / "b.png"]
    names = [picture.name for picture in find_inputs(named).pictures]
    assert names == ["b.png", "sub/a.png", "a.png"]
    both = [tmp_path / "1" / "sub", tmp_path / "2"]
    assert [picture.name for picture in find_inputs(both).pictures] == [str(folder / "a.png") for folder in both]
    predict(config, both, model, tmp_path / "out", QUIET, PredictOptions(overlay=True))
    assert len(list((tmp_path / "out").glob("*.overlay.png"))) == 2


def test_a_folder_without_videos_and_pictures_says_so(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    for named in (tmp_path, tmp_path / "*.jpg", tmp_path / "nope.jpg"):
        (problem,) = find_inputs([named]).problems
        assert problem.kind == "missing"
        assert "picture" in problem.remedy


def test_the_table_is_kept_until_something_changes(model: Path, config: Config, album: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def call(chosen: Config = config, named: Path = album, **options: bool | str) -> StageReport:
        return predict(chosen, [named], model, out, QUIET, PredictOptions(**options))  # pyright: ignore[reportArgumentType]

    assert call().made == ("pictures",)
    assert call().kept == ("pictures",)
    assert call(format="json").made == ("pictures",)
    assert {path.name for path in out.iterdir()} == {"pictures.csv", "pictures.json", "pictures.facts.json"}
    assert call(overlay=True).made == ("pictures",)
    assert call(overlay=True).kept == call(format="json").kept == ("pictures",)
    draw(album / "a.png").touch()
    os.utime(album / "a.png", ns=(1, 1))
    assert call().made == ("pictures",)
    assert {path.name for path in out.iterdir()} == {"pictures.csv", "pictures.facts.json"}, "no file has old values"
    assert call(named=album / "a.png").made == ("pictures",)
    assert len(table(out / "pictures.csv")) == 1
    assert call(settings_for(model, ["predict.face_threshold=1"]), album / "a.png").made == ("pictures",)


def test_a_video_of_the_name_pictures_shares_no_file_with_the_table(
    model: Path, config: Config, album: Path, tmp_path: Path, write_video: Callable[[Path, int], Path]
) -> None:
    video = write_video(tmp_path / "pictures.mp4", 2)
    report = predict(config, [video, album], model, tmp_path / "both", QUIET)
    assert report.made == ("pictures", "pictures-2")
    assert len(table(tmp_path / "both" / "pictures.csv")) == 4
    assert len(table(tmp_path / "both" / "pictures-2.csv")) == 2
    predict(config, [video], model, tmp_path / "out", QUIET)
    report = predict(config, [video, album], model, tmp_path / "out", QUIET)
    assert (report.kept, [problem.name for problem in report.failed]) == (("pictures",), ["pictures"])
    assert "another --out" in report.failed[0].remedy
    assert len(table(tmp_path / "out" / "pictures.csv")) == 2


def test_overlays_are_larger_copies_and_are_no_input_of_a_later_call(model: Path, config: Config, album: Path) -> None:
    predict(config, [album], model, album, QUIET, PredictOptions(overlay=True))
    with Image.open(album / "a.png.overlay.png") as overlay:
        assert overlay.format == "PNG"
        assert overlay.size == (640, 480)
    assert predict(config, [album], model, album, QUIET, PredictOptions(overlay=True)).kept == ("pictures",)


def test_several_people_are_refused_before_any_work(model: Path, config: Config, album: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--people 2.*without --people"):
        predict(config, [album], model, tmp_path / "out", QUIET, PredictOptions(people=2))
    assert not (tmp_path / "out").exists()


def test_reports_and_pages_are_for_videos_only(
    model: Path, config: Config, album: Path, tmp_path: Path, write_video: Callable[[Path, int], Path]
) -> None:
    video = write_video(tmp_path / "talk.mp4", 3)
    done = run("predict", album, video, "--model", model, "--out", tmp_path / "predict", "--report", "--json")
    assert done.returncode == 0, done.stderr
    assert [report["made"] for report in json.loads(done.stdout)] == [["pictures", "talk"], ["talk"]]
    assert "not for pictures" in done.stderr
    assert not (tmp_path / "predict" / "pictures.png").exists()
    assert predicted(Work(tmp_path)) == ["talk"]


def test_names_of_any_bytes_are_written_in_every_format(model: Path, config: Config, tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    name = os.fsdecode(b'caf\xe9 "1",2\n.png') if sys.platform == "linux" else 'a "1",2.png'
    shutil.move(draw(tmp_path / "a.png"), tmp_path / name)
    for format in ("csv", "json", "parquet"):  # noqa: A001
        predict(config, [tmp_path / name], model, tmp_path / "out", QUIET, PredictOptions(format=format))
    assert json.loads((tmp_path / "out" / "pictures.json").read_text(encoding="utf-8"))[0]["picture"] == name
    escaped = name.encode("utf-8", "backslashreplace").decode()
    assert table(tmp_path / "out" / "pictures.csv")[0]["picture"] == escaped
    assert pq.read_table(tmp_path / "out" / "pictures.parquet")["picture"].to_pylist() == [escaped]


def test_predict_image_takes_pixels_and_refuses_other_things(model: Path, album: Path) -> None:
    loaded = affect.load(model)
    by_path = loaded.predict_image(str(album / "a.png"), emotions=True)
    by_pixels = loaded.predict_image(np.asarray(Image.open(album / "a.png")), emotions=True)
    assert (by_path.valence, by_path.box, by_path.emotions) == (by_pixels.valence, by_pixels.box, by_pixels.emotions)
    assert sum(by_path.emotions.values()) == pytest.approx(1, abs=1e-5)
    assert (by_path.name, by_path.source, by_pixels.source) == ("a.png", album / "a.png", None)
    assert isinstance(by_path, affect.ImagePrediction)
    with pytest.raises(AttributeError):
        by_path.valence = 0.0  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(InputError, match=r"uint8 \[4, 4\]"):
        loaded.predict_image(np.zeros((4, 4), np.uint8))
    with pytest.raises(PictureError, match="no such file"):
        loaded.predict_image("nope.jpg")
