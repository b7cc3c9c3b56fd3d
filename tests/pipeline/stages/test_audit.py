"""The audit says of every subject whether it can be used and why not, and remembers what it has seen."""

import io
import json
import os
import shutil
from pathlib import Path

import av
import numpy as np
import pytest
from affect.configs.schema import Config, load
from affect.pipeline.errors import CatalogError, MissingStageError, WorkError
from affect.pipeline.ingest.catalog import find_catalog
from affect.pipeline.progress import Reporter
from affect.pipeline.records import StageReport, Work
from affect.pipeline.stages.audit import audit
from affect.pipeline.storage.audit_file import accepted, accepted_subjects, load_audit, table
from rich.console import Console

FRAMES = 12


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of 12 frames."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(FRAMES):
            picture = np.full((48, 64, 3), 20 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def annotate(data: Path, name: str, rows: int, split: str = "Train_Set", row: str = "0.5,-0.5") -> Path:
    path = data / "VA" / split / f"{name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("valence,arousal\n" + f"{row}\n" * rows)
    return path


@pytest.fixture
def data(tmp_path: Path, clip: Path) -> Path:
    """One subject of each fate. The video of `two` has two people."""
    data = tmp_path / "data"
    (data / "videos").mkdir(parents=True)
    for name in ("exact", "more", "fewer", "far", "wrong", "blank", "two", "boxed", "misboxed"):
        shutil.copy(clip, data / "videos" / f"{name}.mp4")
    (data / "videos" / "broken.mp4").write_bytes(b"not a video" * 100)
    annotate(data, "exact", FRAMES)
    annotate(data, "more", FRAMES + 1)
    annotate(data, "fewer", FRAMES - 3, "Validation_Set")
    annotate(data, "far", FRAMES + 4)
    annotate(data, "wrong", FRAMES, row="0.5,7")
    annotate(data, "blank", FRAMES, row="-5,-5")
    annotate(data, "two_left", FRAMES)
    annotate(data, "two_right", FRAMES - 9)
    annotate(data, "broken", FRAMES)
    annotate(data, "absent", FRAMES)
    for name, frames in (("boxed", (1, 3)), ("misboxed", (3, 1))):
        annotate(data, name, FRAMES)
        path = data / "bounding_boxes" / f"{name}.csv"
        path.parent.mkdir(exist_ok=True)
        path.write_text("frame,x0,y0,x1,y1\n" + "".join(f"{frame},0,0,9,9\n" for frame in frames))
    crops = data / "cropped_aligned" / "boxed"
    crops.mkdir(parents=True)
    for number in (1, 2, 12):
        (crops / f"{number:05}.jpg").touch()
    return data


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return Work(tmp_path / "work")


def run(data: Path, work: Work) -> StageReport:
    return audit(Config(), data, work, Reporter(quiet=True))


def test_every_subject_has_its_fate(data: Path, work: Work) -> None:
    report = run(data, work)
    result = load_audit(work)
    assert {entry["name"]: (entry["status"], entry["difference"]) for entry in result["subjects"]} == {
        "exact": ("ok", 0),
        "more": ("note", 1),
        "fewer": ("note", -3),
        "far": ("refused", 4),
        "wrong": ("refused", None),
        "blank": ("note", 0),
        "two_left": ("ok", 0),
        "two_right": ("refused", -9),
        "broken": ("damaged", None),
        "boxed": ("ok", 0),
        "misboxed": ("refused", None),
    }
    assert [entry["name"] for entry in accepted(result)] == ["blank", "boxed", "exact", "more", "two_left", "fewer"]
    failed = {problem.name: problem for problem in report.failed}
    assert {name: problem.kind for name, problem in failed.items()} == {
        "absent": "missing", "broken": "damaged", "far": "refused", "misboxed": "refused", "two_right": "refused",
        "wrong": "refused",
    }  # fmt: skip
    assert all(problem.message and problem.remedy for problem in report.failed)
    assert "VA/Train_Set/wrong.txt: line 2 has arousal 7" in failed["wrong"].message
    assert "16 rows for 12 frames (+4)" in failed["far"].message
    assert "bounding_boxes/misboxed.csv: line 3" in failed["misboxed"].message
    assert "broken.mp4" in failed["broken"].message


def test_writes_what_files_hold(data: Path, work: Work) -> None:
    run(data, work)
    result = load_audit(work)
    boxed = next(entry for entry in result["subjects"] if entry["name"] == "boxed")
    expected = {"split": "train", "rows": 12, "valid": 12, "frames": 12, "boxes": 2, "crops": 3, "last_box": 3}
    assert expected.items() <= boxed.items()
    video = next(entry for entry in result["videos"] if entry["name"] == "boxed")
    assert {"path": "videos/boxed.mp4", "width": 64, "height": 48, "frames": 12}.items() <= video.items()
    assert len(video["digest"]) == 64


def test_a_second_audit_reads_only_changed_files_and_gives_the_same_result(data: Path, work: Work) -> None:
    first = run(data, work)
    before = load_audit(work)
    assert set(first.made) == {entry["name"] for entry in before["subjects"]}
    second = run(data, work)
    assert load_audit(work) == before
    assert second.failed == first.failed
    assert set(second.made) == {"broken", "wrong", "misboxed"}  # what was wrong may have been mended
    assert {"exact", "two_left", "far"} <= set(second.kept)


def test_a_repaired_file_is_used_at_once(data: Path, work: Work, clip: Path) -> None:
    run(data, work)
    annotate(data, "far", FRAMES, row="0.1,0.1")
    annotate(data, "wrong", FRAMES, row="0.2,0.2")
    shutil.copy(clip, data / "videos" / "broken.mp4")
    shutil.copy(clip, data / "videos" / "absent.mp4")
    (data / "bounding_boxes" / "misboxed.csv").unlink()
    (data / "cropped_aligned" / "boxed" / "00002.jpg").unlink()
    report = run(data, work)
    assert [problem.name for problem in report.failed] == ["two_right"]
    assert set(report.made) == {"far", "wrong", "broken", "absent", "boxed"}
    assert next(entry["crops"] for entry in load_audit(work)["subjects"] if entry["name"] == "boxed") == 2


def test_an_edit_that_keeps_size_and_time_is_detected(data: Path, work: Work) -> None:
    run(data, work)
    path = data / "VA" / "Train_Set" / "exact.txt"
    times = path.stat()
    path.write_text(path.read_text().replace("0.5,-0.5", "0.5,-9.5"))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert "exact" in {problem.name for problem in run(data, work).failed}


def test_the_same_data_give_the_same_file(data: Path, work: Work, tmp_path: Path) -> None:
    run(data, work)
    run(data, Work(tmp_path / "again"))
    assert work.audit.read_bytes() == (tmp_path / "again" / "audit.json").read_bytes()


def test_accepted_subjects_are_those_of_the_catalogue_and_of_this_very_data(data: Path, work: Work, clip: Path) -> None:
    run(data, work)
    subjects = accepted_subjects(work, find_catalog(data))
    assert [subject.name for subject in subjects] == ["blank", "boxed", "exact", "more", "two_left", "fewer"]
    shutil.copy(clip, data / "videos" / "absent.mp4")
    with pytest.raises(MissingStageError, match="absent was added or removed since the audit"):
        accepted_subjects(work, find_catalog(data))


def test_the_error_without_a_usable_audit_names_the_command(work: Work) -> None:
    for content in (None, "{", "[]", json.dumps({"format": "affect-audit", "version": 0}), "\ud800"):
        if content is not None:
            work.root.mkdir(exist_ok=True)
            work.audit.write_bytes(content.encode("utf-8", "surrogatepass"))
        with pytest.raises(MissingStageError, match="affect audit --data DATA --work "):
            load_audit(work)


def test_a_damaged_audit_is_written_again(data: Path, work: Work) -> None:
    work.root.mkdir()
    work.audit.write_text("{")
    run(data, work)
    assert load_audit(work)["subjects"]


def test_nothing_is_written_without_data_or_space(data: Path, work: Work, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CatalogError):
        run(tmp_path / "empty", work)
    assert not work.root.exists()
    (tmp_path / "file").touch()
    with pytest.raises(WorkError, match="cannot be written"):
        run(data, Work(tmp_path / "file"))


def test_the_table_names_what_failed_and_counts_equal_notes_together(data: Path, work: Work, clip: Path) -> None:
    for name in ("more2", "more[3]"):
        shutil.copy(clip, data / "videos" / f"{name}.mp4")
        annotate(data, name, FRAMES + 1)
    run(data, work)
    console = Console(file=io.StringIO(), width=200)
    console.print(table(load_audit(work)))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "more and 2 more" in text
    assert "1 more row than frames" in text
    for name in ("far", "wrong", "broken", "absent", "two_right", "misboxed"):
        assert name in text
    assert "validation" in text


def test_the_audit_of_the_demo_data_lists_its_irregularities(demo_data: Path, work: Work) -> None:
    report = run(demo_data, work)
    result = load_audit(work)
    assert len(accepted(result)) >= 4
    assert {entry["split"] for entry in accepted(result)} >= {"train", "validation"}
    assert report.facts["used"] + sum(entry["status"] not in ("ok", "note") for entry in result["subjects"]) == len(
        result["subjects"]
    )


@pytest.mark.slow
def test_worker_processes_write_the_same_audit_as_one_process(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = Work(tmp_path / "one"), Work(tmp_path / "two")
    expected = audit(Config(), data, one, Reporter(quiet=True))
    monkeypatch.setattr("affect.pipeline.stages.audit.MIN_FOR_WORKERS", 1)
    found = audit(load("demo", ["runtime.workers=2"]), data, two, Reporter(quiet=True))
    assert two.audit.read_bytes() == one.audit.read_bytes()
    assert (found.made, found.kept, found.failed) == (expected.made, expected.kept, expected.failed)
