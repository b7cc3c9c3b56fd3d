"""Unusual names, sound, picture sizes and matplotlib settings. A fault of one input is listed and ends no batch."""

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from affect.commands.session import record_failures
from affect.configs.schema import Config, load
from affect.pipeline.app.jobs import safe_name
from affect.pipeline.errors import VideoError, WorkError
from affect.pipeline.faults import one_input
from affect.pipeline.inference.outputs import SUFFIXES, output_names
from affect.pipeline.inference.trace import Moment
from affect.pipeline.ingest.video.decode import probe
from affect.pipeline.names import json_text, shorten_name, shown
from affect.pipeline.progress import Reporter
from affect.pipeline.records import Problem, StageReport
from affect.pipeline.stages.detect_boxes import detect_boxes
from affect.pipeline.stages.predict import PredictOptions, predict
from affect.pipeline.visualization.clip_page import player_pages
from affect.pipeline.visualization.mp4 import Mp4
from affect.pipeline.visualization.overlay import Overlay
from affect.pipeline.visualization.web_video import make_web_video
from affect.tests.child import output
from affect.tests.programs.memory import draw_figure
from affect.tests.sound import with_sound
from rich.console import Console

QUIET = Reporter(quiet=True)
TinyRun = Callable[..., Path]


def settings(*more: str) -> Config:
    small = ("frames.size=64", "stn.view=32", "stn.crop=32", "clip.length=16", "clip.hop=8", "head.project=8",
             "head.hidden=8", "head.dense=[8]", "runtime.device=cpu", "runtime.precision=fp32")  # fmt: skip
    return load("demo", [*small, *more])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_run: TinyRun) -> Path:
    return tiny_run(tmp_path_factory.mktemp("run"), "predict.face_threshold=0")


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "video.mp4"
    with Mp4(path, 96, 96, 25.0) as mp4:
        for number in range(12):
            mp4.add(np.random.default_rng(number).integers(0, 256, (96, 96, 3), np.uint8), number / 25)
    return path


def copies(video: Path, folder: Path, *names: str) -> list[Path]:
    folder.mkdir(exist_ok=True)
    return [Path(shutil.copy(video, folder / name)) for name in names]


def run(*words: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "affect", *words], cwd=cwd, env={**os.environ, **environment}, capture_output=True,
        check=False,
    )  # fmt: skip


# One input's fault


def test_an_unwritable_output_fails_only_its_video(model: Path, video: Path, tmp_path: Path) -> None:
    files, out = copies(video, tmp_path / "in", "a.mp4", "b.mp4", "c.mp4"), tmp_path / "out"
    (out / "a.csv" / "kept").mkdir(parents=True)
    (out / "b.overlay.mp4" / "kept").mkdir(parents=True)
    report = predict(settings(), files, model, out, QUIET, PredictOptions(overlay=True))
    assert [problem.name for problem in report.failed] == ["a", "b"]
    assert "Free space" not in "".join(problem.remedy for problem in report.failed)
    assert report.made == ("b", "c")
    assert "overlay" in report.failed[1].message
    assert (out / "b.csv").is_file() and (out / "b.png").is_file()  # noqa: PT018
    assert all((out / f"c{suffix}").is_file() for suffix in (".csv", ".clips.csv", ".png", ".overlay.mp4"))
    again = predict(settings(), files, model, out, QUIET, PredictOptions(overlay=True))
    assert (again.kept, len(again.failed)) == (("c",), 2)


def test_a_fault_of_one_input_is_listed_but_a_full_disk_stops_the_stage() -> None:
    failed: list[Problem] = []
    for error in (KeyError("x"), ValueError("odd"), MemoryError(), VideoError("v.mp4: is empty", "Restore it.")):
        with one_input("v", failed):
            raise error
    assert [problem.name for problem in failed] == ["v"] * 4
    assert all(problem.remedy for problem in failed)
    assert "test_odd_inputs.py, line" in failed[0].message
    for error in (OSError(28, "No space left on device", "x.h5"), OSError(30, "Read-only file system", "x.h5")):
        with pytest.raises(WorkError), one_input("v", failed):
            raise error
    with pytest.raises(KeyboardInterrupt), one_input("v", failed):
        raise KeyboardInterrupt


def test_detect_boxes_lists_a_missing_video_and_numbers_equal_names(video: Path, tmp_path: Path) -> None:
    one, other = *copies(video, tmp_path / "1", "a.mp4"), *copies(video, tmp_path / "2", "a.mp4")
    report = detect_boxes(
        settings("runtime.workers=0"), QUIET, videos=[one, tmp_path / "nope.mp4", other], out=tmp_path / "out"
    )
    named = [(problem.kind, problem.name) for problem in report.failed]
    assert ("missing", str(tmp_path / "nope.mp4")) in named
    assert set(report.facts) == {"a", "a-2"}


# Names


LONG = ("가" * 83 + ".mp4", "😀" * 62 + ".mp4", "x" * 251 + ".mp4", "x" * 250 + "y.mp4")


def test_videos_with_any_name_are_predicted(model: Path, video: Path, tmp_path: Path) -> None:
    names = [*LONG, "12:30.mp4", "-dash.mp4", "new\nline.mp4", "[red]x[y].mp4"]
    if sys.platform == "linux":
        names.append(os.fsdecode(b"caf\xe9.mp4"))
    copies(video, tmp_path / "in:put", *names)
    words = ("predict", "in:put", "--model", model, "--out", "a:b", "--overlay", "--report", "--json")
    done = run(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    (made, _) = json.loads(done.stdout)
    assert len(set(made["made"])) == len(names)
    for name in made["made"]:
        for suffix in (".csv", ".clips.csv", ".png", ".overlay.mp4", ".facts.json", ".html"):
            assert (tmp_path / "a:b" / f"{name}{suffix}").is_file(), (name, suffix)
        (tmp_path / "a:b" / f"{name}.html").read_text(encoding="utf-8")
    assert not [path for path in (tmp_path / "a:b").iterdir() if path.name.startswith(".")]
    again = run(*words, cwd=tmp_path)
    assert len(json.loads(again.stdout)[0]["kept"]) == len(names)


def test_relative_names_with_a_colon_or_a_dash_are_files(model: Path, video: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    copies(video, tmp_path, "12:30.mp4", "-dash.mp4")
    words = ("--model", model, "--out", "p:q", "--format", "parquet", "--overlay", "--", "-dash.mp4", "12:30.mp4")
    done = run("predict", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    for name in ("-dash", "12:30"):
        for suffix in (".parquet", ".clips.parquet", ".overlay.mp4"):
            assert (tmp_path / "p:q" / f"{name}{suffix}").is_file()


def test_a_name_that_is_not_utf8_is_listed_in_failures(tmp_path: Path, model: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("names are UTF-8 here")
    name = os.fsdecode(b"caf\xe9")
    (tmp_path / f"{name}.mp4").write_bytes(b"no video" * 100)
    done = run("predict", f"{name}.mp4", "--model", model, "--out", "out", "--json", cwd=tmp_path)
    assert done.returncode == 3, done.stderr.decode(errors="replace")
    assert json.loads(done.stdout)["failed"][0]["name"] == name
    listed = json.loads((tmp_path / "out" / "failures.json").read_text(encoding="utf-8"))
    assert listed["predict"][0]["name"] == name
    assert b"caf\\xe9" in done.stderr


def test_failures_of_any_name_are_written(tmp_path: Path) -> None:
    problem = Problem("damaged", "caf\udce9 \ud83d", "is empty")
    record_failures(tmp_path / "failures.json", StageReport("predict", tmp_path, failed=(problem,)))
    assert json.loads((tmp_path / "failures.json").read_text(encoding="utf-8"))["predict"][0]["name"] == problem.name
    assert json.loads(json_text(["é", "\udce9"]).encode()) == ["é", "\udce9"]


def test_shortened_names_stay_distinct() -> None:
    for name in LONG:
        cut = shorten_name(Path(name).stem, 14)
        assert len(os.fsencode(cut)) <= 255 - 14
        cut.encode("utf-8")
    assert shorten_name("a" * 241, 14) == "a" * 241
    files = [Path(f"/{folder}/{name}") for folder in "12" for name in LONG]
    names = [name for name, _ in output_names(files)]
    assert len(set(names)) == len(files)
    assert max(len(os.fsencode(f"{name}{suffix}")) for name in names for suffix in SUFFIXES) <= 255


@pytest.mark.parametrize("letter", ["가", "𠀀", "x"])
def test_the_name_of_an_upload_is_short_enough_for_suffixes(letter: str) -> None:
    kept = safe_name(letter * 300 + ".MP4")
    assert kept is not None
    assert kept.endswith(".mp4")
    assert len(os.fsencode(kept)) <= 200


def test_progress_shows_brackets_and_control_characters_as_they_are() -> None:
    reporter = Reporter()
    reporter.console = Console(file=io.StringIO(), force_terminal=True, width=100, highlight=False)
    with reporter.progress("[/x] a\x1b[31m\udce9", 2, "frames") as tracker:
        tracker.advance(item="[/b]")
        tracker.note("[/c]")
    reporter.info("\x1b]0;title\x07 é")
    assert isinstance(reporter.console.file, io.StringIO)
    text = reporter.console.file.getvalue()
    assert "[/x]" in text
    assert r"\x1b]0;title\x07 é" in text
    assert shown("a\udce9\n") == "a\\xe9\n"


def test_names_with_colons_are_not_replaced_by_emoji(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = Reporter(verbose=True)
    reporter.info("a:b: 5 frames")
    reporter.warning("x:star:y")
    reporter.debug(":o:")
    assert capsys.readouterr().err.split("\n") == ["a:b: 5 frames", "x:star:y", ":o:", ""]


# Figures


def drawn(path: Path, **environment: str) -> bytes:
    output(draw_figure, path, environment={**os.environ, **environment})
    return path.read_bytes()


@pytest.mark.slow
def test_figures_do_not_depend_on_the_users_matplotlib(tmp_path: Path) -> None:
    plain = drawn(tmp_path / "plain.png")
    for backend in ("module://no_such_module.backend", "nonsense", "TkAgg"):
        assert drawn(tmp_path / "backend.png", MPLBACKEND=backend) == plain
    rules = "text.usetex: True\nsavefig.bbox: tight\nlines.linewidth: 9\naxes.prop_cycle: cycler(color='rgb')\n"
    (tmp_path / "matplotlibrc").write_text(rules)
    assert drawn(tmp_path / "rules.png", MATPLOTLIBRC=str(tmp_path / "matplotlibrc")) == plain
    (tmp_path / "matplotlibrc").write_bytes(b"# caf\xe9\ntext.usetex: True\n")
    assert drawn(tmp_path / "bytes.png", MATPLOTLIBRC=str(tmp_path / "matplotlibrc")) == plain


# Sound and pictures of overlay and page


def heard(path: Path | io.BytesIO) -> tuple[float, float]:
    """Seconds of sound, and how loud it is."""
    with av.open(path if isinstance(path, io.BytesIO) else str(path), "r") as video:
        frames = list(video.decode(video.streams.audio[0]))
    samples = np.concatenate([frame.to_ndarray()[0] for frame in frames])
    return len(samples) / frames[0].sample_rate, float(np.abs(samples).max())


def written_with_sound(sound: Path, path: Path) -> Path:
    with Mp4(path, 96, 96, 25.0, sound=sound) as mp4:
        for number in range(12):
            mp4.add(np.zeros((96, 96, 3), np.uint8), number / 25)
    assert not mp4.silent
    return path


@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [("a.mov", "pcm_s16le", 192000), ("a.mkv", "pcm_s16le", 20000), ("a.mkv", "flac", 37800),
     ("a.mkv", "libmp3lame", 8000), ("a.mkv", "libopus", 48000), ("a.ts", "aac", 48000)],
)  # fmt: skip
def test_sound_with_any_sample_rate_is_kept(video: Path, tmp_path: Path, name: str, codec: str, rate: int) -> None:
    source = with_sound(video, tmp_path / name, codec, rate)
    seconds, loud = heard(written_with_sound(source, tmp_path / "film.mp4"))
    assert seconds == pytest.approx(0.48, abs=0.2)
    assert loud > 0.1
    seconds, loud = heard(io.BytesIO(make_web_video(source, 1 << 20).data))
    assert seconds == pytest.approx(0.48, abs=0.2)
    assert loud > 0.1


@pytest.mark.parametrize("codec", ["aac", "mp2"])
def test_sound_with_decreasing_timestamps_is_kept(video: Path, tmp_path: Path, codec: str) -> None:
    """Two recordings joined by `cat`, the first one longer: its copy's timestamps begin again."""
    one = with_sound(video, tmp_path / "one.ts", codec, 48000, 2.0).read_bytes()
    two = with_sound(video, tmp_path / "two.ts", codec, 48000, 1.0).read_bytes()
    joined = tmp_path / "joined.ts"
    joined.write_bytes(one + two)
    seconds, _ = heard(written_with_sound(joined, tmp_path / "film.mp4"))
    assert seconds == pytest.approx(3.0, abs=0.3)
    with av.open(str(tmp_path / "film.mp4")) as container:
        times = [packet.dts for packet in container.demux(container.streams.audio[0]) if packet.dts is not None]
    assert (np.diff(times) > 0).all()


def with_damaged_sound(source: Path, path: Path, damage: str) -> Path:
    """A copy of a Matroska file whose sound is FLAC. damage: "codec" gives the sound an unknown codec; "packets" makes
    all of its packets undecodable."""
    data = source.read_bytes()
    if damage == "codec":
        data = data.replace(b"A_FLAC", b"A_XXXX")
    else:
        with av.open(str(source)) as container:
            for packet in container.demux(container.streams.audio[0]):
                data = data.replace(bytes(packet), bytes(packet.size)) if packet.size else data
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(("damage", "reason"), [("codec", "codec is unknown"), ("packets", "can be decoded")])
def test_a_video_whose_sound_is_lost_is_named_once_per_copy_and_on_the_page(
    model: Path, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str, reason: str
) -> None:
    source = with_damaged_sound(with_sound(video, tmp_path / "a.mkv", "flac", 44100), tmp_path / "talk.mkv", damage)
    config, out = settings("predict.face_threshold=0"), tmp_path / "out"
    report = predict(config, [source], model, out, Reporter(), PredictOptions(plot=False, overlay=True))
    assert report.failed == ()
    assert player_pages(config, ["talk"], out, Reporter()).failed == ()
    warnings = [line for line in capsys.readouterr().err.splitlines() if "sound" in line]
    assert len(warnings) == 2
    assert all("talk" in line and "no sound or only a part of it" in line and reason in line for line in warnings)
    assert "The video has no sound or only a part of it" in (out / "talk.html").read_text(encoding="utf-8")


def test_videos_with_and_without_sound_give_no_warning(model: Path, video: Path, tmp_path: Path) -> None:
    sound = with_sound(video, tmp_path / "talk.mkv", "flac", 44100)
    for source in (video, sound):
        assert make_web_video(source, 1 << 20).silent == ""
        with Mp4(tmp_path / "film.mp4", 96, 96, 25.0, sound=source) as mp4:
            mp4.add(np.zeros((96, 96, 3), np.uint8), 0.0)
        assert mp4.silent == ""


@pytest.mark.parametrize("people", [1, 4])
@pytest.mark.parametrize(
    "size", [(1, 1), (2, 2), (16, 16), (40, 30), (63, 65), (2, 1280), (8, 480), (1280, 2), (4000, 16), (16, 9000)]
)
def test_an_overlay_is_drawn_on_pictures_of_any_size(size: tuple[int, int], people: int, tmp_path: Path) -> None:
    overlay = Overlay(*size, people)
    picture = np.full((size[1], size[0], 3), 90, np.uint8)
    with Mp4(tmp_path / "film.mp4", *overlay.size, 25.0) as mp4:
        for number in range(3):
            box = (0.0, 0.0, float(size[0]), float(size[1]))
            moment = Moment(number, number / 25, 0.9, number != 1, float("nan") if number == 1 else 0.3, -0.2, box)
            mp4.add(overlay.draw(picture, [moment] * people), number / 25)
    assert probe(tmp_path / "film.mp4").frames == 3


def test_a_video_of_two_pixels_gets_a_table_an_overlay_and_a_page(model: Path, tmp_path: Path, real: Path) -> None:
    source = real / "cases" / "px2.mp4"
    if not source.is_file():
        pytest.skip("no odd cases beside this checkout")
    config = settings("predict.face_threshold=0")
    report = predict(config, [source], model, tmp_path, QUIET, PredictOptions(overlay=True))
    assert report.failed == ()
    assert probe(tmp_path / "px2.overlay.mp4").frames == probe(source).frames
    assert make_web_video(source, 1 << 20).data


def test_an_encoding_error_is_not_reported_as_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="40000 x 2") as caught, Mp4(tmp_path / "film.mp4", 40000, 2, 25.0) as mp4:
        mp4.add(np.zeros((2, 40000, 3), np.uint8), 0.0)
    assert "space" not in str(caught.value)
    assert not list(tmp_path.iterdir())
