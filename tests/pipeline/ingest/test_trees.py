"""Typical data folders: skipped files are reported, files of file managers are ignored, similar names are suggested."""

import contextlib
import json
import os
import shutil
import stat
import tempfile
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest
from affect.cli import app
from affect.pipeline.app.jobs import safe_name
from affect.pipeline.errors import CatalogError
from affect.pipeline.inference.inputs import find_videos
from affect.pipeline.inference.outputs import output_names
from affect.pipeline.ingest.catalog import find_catalog
from affect.pipeline.ingest.walk import VIDEO_SUFFIXES
from affect.pipeline.records import Catalog, Problem
from typer.testing import CliRunner, Result

WriteVideo = Callable[[Path, int], Path]
Form = Literal["NFC", "NFD"]
VA = "annotations/VA_Set/Train_Set"
LABELS = "valence,arousal\n0,0\n"
NOBODY = 65534
MP4 = b"\0\0\0\x18ftypisom\0\0\2\0isomiso2"
TRANSPORT = b"G@\0\x10" + bytes(184) + b"G@\0\x10" + bytes(184) + b"G"


def put(path: Path, content: bytes | str = MP4) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def write_files(root: Path, *names: str) -> Path:
    """A data folder: .txt files have labels, all other files start like a video."""
    for name in names:
        put(root / name, LABELS if name.endswith(".txt") else MP4)
    return root


def listed(named: Path | str, *more: Path | str) -> tuple[set[str], dict[str, Problem]]:
    """The names of the videos found, and the problems by name."""
    files, problems = find_videos([Path(it) for it in (named, *more)])
    return {file.name for file in files}, {Path(problem.name).name: problem for problem in problems}


def problems_by_name(catalog: Catalog) -> dict[str, Problem]:
    return {problem.name: problem for problem in catalog.problems}


def faults(problems: dict[str, Problem]) -> dict[str, str]:
    return {name: problem.kind for name, problem in problems.items() if problem.kind != "note"}


def affect(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)


@contextlib.contextmanager
def without_privileges() -> Iterator[None]:
    """Enforces permissions in this block, even if the tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can enter, unlike tmp_path."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
        for path in (folder, *folder.rglob("*")):
            if path.is_dir():
                path.chmod(0o755)


@pytest.mark.parametrize("suffix", sorted(VIDEO_SUFFIXES))
def test_predict_and_audit_find_every_video_suffix_in_any_case(tmp_path: Path, suffix: str) -> None:
    for number, written in enumerate((suffix, suffix.upper(), suffix.title())):
        put(tmp_path / f"v/{number}{written}", TRANSPORT)
        put(tmp_path / VA / f"{number}.txt", LABELS)
    assert len(find_videos([tmp_path])[0]) == 3
    assert len(find_catalog(tmp_path).subjects) == 3


def test_the_suffixes_of_cameras_phones_and_the_web_are_known() -> None:
    assert {".m4v", ".mts", ".m2ts", ".wmv", ".mpg", ".mpeg", ".3gp", ".ts", ".flv", ".gif", ".vob"} <= VIDEO_SUFFIXES


def test_typescript_files_are_not_videos(tmp_path: Path) -> None:
    put(tmp_path / "index.ts", "export const answer = 42;\n")
    put(tmp_path / "übersetzung.TS", "<?xml version='1.0'?><TS language='de'>ü</TS>")
    put(tmp_path / "stream.ts", TRANSPORT)
    assert listed(tmp_path) == ({"stream.ts"}, {})


def test_linked_folders_are_searched_once_without_endless_loops(tmp_path: Path) -> None:
    put(tmp_path / "disk/day1/one.mp4")
    put(tmp_path / "data/two.mp4")
    (tmp_path / "data/linked").symlink_to(tmp_path / "disk")
    (tmp_path / "data/again").symlink_to(tmp_path / "disk/day1")
    (tmp_path / "disk/day1/up").symlink_to(tmp_path / "data")
    (tmp_path / "data/here").symlink_to(".")
    assert listed(tmp_path / "data") == ({"one.mp4", "two.mp4"}, {})
    assert listed(tmp_path / "data", tmp_path / "disk")[0] == {"one.mp4", "two.mp4"}


def test_a_pattern_searches_the_folders_that_it_matches(tmp_path: Path) -> None:
    for name in ("set/day1/one.mp4", "set/day2/deep/two.mp4", "set/three.mp4", "set/notes.txt"):
        put(tmp_path / name)
    assert listed(tmp_path / "set/*") == ({"one.mp4", "two.mp4", "three.mp4"}, {})
    assert listed(tmp_path / "set/day?")[0] == {"one.mp4", "two.mp4"}


def test_dangling_links_are_reported(tmp_path: Path) -> None:
    put(tmp_path / "one.mp4")
    for name in ("gone.mp4", "day2", "notes.pdf"):
        (tmp_path / name).symlink_to(f"/nowhere/{name}")
    (tmp_path / "self.mp4").symlink_to("self.mp4")
    found, problems = listed(tmp_path)
    assert found == {"one.mp4"}
    assert faults(problems) == {"gone.mp4": "missing", "day2": "missing", "self.mp4": "missing"}
    assert "/nowhere/gone.mp4" in problems["gone.mp4"].message
    assert "itself" in problems["self.mp4"].message
    assert all(problem.remedy for problem in problems.values())


def test_pipes_among_videos_are_reported_and_not_opened(tmp_path: Path) -> None:
    put(tmp_path / "one.mp4")
    os.mkfifo(tmp_path / "camera.mp4")
    os.mkfifo(tmp_path / "control")
    found, problems = listed(tmp_path)
    assert found == {"one.mp4"}
    assert faults(problems) == {"camera.mp4": "refused"}
    assert "pipe" in problems["camera.mp4"].message


def test_folders_without_permission_are_reported(open_folder: Path) -> None:
    for name in ("one.mp4", "locked/two.mp4", "shut/three.mp4", "dim/link.mp4"):
        put(open_folder / name)
    (open_folder / "dim/link.mp4").unlink()
    (open_folder / "dim/link.mp4").symlink_to("../one.mp4")
    (open_folder / "locked").chmod(0)
    (open_folder / "shut").chmod(stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    (open_folder / "dim").chmod(0o444)
    with without_privileges():
        below = listed(open_folder)
        inside = listed(open_folder / "locked/two.mp4")
        pattern = listed(open_folder / "*/*.mp4")
    assert below[0] == {"one.mp4"}
    assert faults(below[1]) == {"locked": "missing", "shut": "missing", "link.mp4": "missing"}
    assert "Permission denied" in below[1]["locked"].message
    assert "permissions" in below[1]["locked"].remedy
    assert faults(inside[1]) == {"two.mp4": "missing"}
    assert "Permission denied" in inside[1]["two.mp4"].message
    assert {"locked", "shut"} <= faults(pattern[1]).keys()


def test_audit_continues_past_folders_without_permission(open_folder: Path) -> None:
    write_files(open_folder, "v/1.mp4", f"{VA}/1.txt", "lost/2.mp4", "dim/3.mp4")
    (open_folder / "dim/3.mp4").unlink()
    (open_folder / "dim/3.mp4").symlink_to("../v/1.mp4")
    (open_folder / "lost").chmod(0)
    (open_folder / "dim").chmod(0o444)
    with without_privileges():
        catalog = find_catalog(open_folder)
    assert [subject.name for subject in catalog.subjects] == ["1"]
    assert faults(problems_by_name(catalog)) == {"lost": "missing", "dim/3.mp4": "missing"}


def test_a_second_name_of_a_video_is_used_or_reported(tmp_path: Path) -> None:
    real = put(tmp_path / "talk.mp4")
    (tmp_path / "alias.mp4").symlink_to("talk.mp4")
    (tmp_path / "b").mkdir()
    (tmp_path / "b/talk.mp4").symlink_to("../talk.mp4")
    os.link(real, tmp_path / "hard.mp4")
    shutil.copy(real, tmp_path / "copy.mp4")
    files, problems = find_videos([tmp_path])
    left_out = [Path(problem.name) for problem in problems]
    assert sorted([*files, *left_out]) == sorted(path for path in tmp_path.rglob("*.mp4"))
    assert {problem.kind for problem in problems} == {"note"}
    assert {"hard.mp4", "copy.mp4"} <= {file.name for file in files}
    assert find_videos([real, real, tmp_path / "." / "talk.mp4"]) == ([real], [])


def test_videos_with_an_unknown_suffix_are_reported(tmp_path: Path) -> None:
    avi, mkv = b"RIFF\0\0\0\0AVI LIST", b"\x1a\x45\xdf\xa3\xa3\x42\x86\x81"
    contents = {"one.mp4": MP4, "noend": MP4, "two.video": avi, "three.mkv_": mkv, "four.mod": b"\0\0\1\xba\x44\0"}
    contents |= {"half.mp4.part": MP4, "GX01.LRV": MP4, "song.m4a": MP4, "voice": b"\0\0\0\x18ftypM4A \0", "data": b"1"}
    for name, content in contents.items():
        put(tmp_path / name, content)
    found, problems = listed(tmp_path)
    assert found == {"one.mp4"}
    assert faults(problems) == dict.fromkeys(("noend", "two.video", "three.mkv_", "four.mod"), "refused")
    assert {"half.mp4.part", "GX01.LRV"} == problems.keys() - faults(problems).keys()
    assert listed(tmp_path / "two.video")[0] == {"two.video"}, "a file given by name is read with any suffix"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.h264", b"\0\0\0\1\x67\x64"), ("a.264", b"\0\0\1\x67\x64"), ("a.hevc", b"\0\0\0\1\x40\1"),
        ("a.ivf", b"DKIF\0\0\x20\0VP90"), ("a.rm", b".RMF\0\0\0\x12"), ("a.y4m", b"YUV4MPEG2 W112"),
        ("a.nut", b"nut/multimedia container\0"), ("a.obu", b"\x12\0\x0a\x0a"),
    ],
)  # fmt: skip
def test_videos_that_few_programs_write_are_named_too(tmp_path: Path, name: str, content: bytes) -> None:
    put(tmp_path / "one.mp4")
    put(tmp_path / name, content)
    found, problems = listed(tmp_path)
    assert found == {"one.mp4"}
    assert faults(problems) == {name: "refused"}


def test_a_video_named_like_an_overlay_is_reported(tmp_path: Path) -> None:
    for name in ("one.mp4", "one.overlay.mp4", "two.overlay.mp4", "mine.overlay.mp4"):
        put(tmp_path / name)
    put(tmp_path / "two.facts.json", "{}")
    found, problems = listed(tmp_path)
    assert (found, set(problems)) == ({"one.mp4"}, {"mine.overlay.mp4"})


def test_predict_reports_skipped_files_and_exits_with_3(
    tmp_path: Path, write_video: WriteVideo, tiny_run: Callable[..., Path]
) -> None:
    (tmp_path / "v").mkdir()
    write_video(tmp_path / "v/one.mp4", 12)
    (tmp_path / "v/gone.mp4").symlink_to("/nowhere/gone.mp4")
    (tmp_path / "v/alias.mp4").symlink_to("one.mp4")
    model, out = tiny_run(tmp_path / "run"), tmp_path / "out"
    done = affect("predict", tmp_path / "v", "--model", model, "--out", out, "--no-plot")
    assert done.exit_code == 3
    assert "gone.mp4: is a link to /nowhere/gone.mp4" in done.stderr
    assert "alias.mp4: the same file as" in done.stderr
    assert [entry["kind"] for entry in json.loads((out / "failures.json").read_text())["predict"]] == ["missing"]
    assert len((out / "one.csv").read_text().splitlines()) == 13
    assert not (out / "alias.csv").exists()
    (tmp_path / "v/gone.mp4").unlink()
    assert affect("predict", tmp_path / "v", "--model", model, "--out", out, "--no-plot").exit_code == 0


LITTER = (
    "$RECYCLE.BIN/S-1-5-21/1.mp4", ".Trash-1000/files/1.mp4", ".Trashes/501/1.mp4", "__MACOSX/v/._1.mp4",
    "System Volume Information/1.mp4", "lost+found/1.mp4", "@eaDir/1.mp4/SYNO.mp4", "#recycle/1.mp4", "a/._1.mp4",
    "a/.DS_Store", "a/Thumbs.db", "a/desktop.ini", "a/Icon\r", f"{VA}/._1.txt", f"$RECYCLE.BIN/{VA}/1.txt",
)  # fmt: skip


@pytest.mark.parametrize("litter", LITTER)
def test_files_of_file_managers_are_ignored(tmp_path: Path, litter: str) -> None:
    write_files(tmp_path, "v/1.mp4", f"{VA}/1.txt", litter)
    catalog = find_catalog(tmp_path)
    assert (catalog.video("1").path, catalog.problems) == (tmp_path / "v/1.mp4", ())
    assert catalog.subjects[0].annotation == tmp_path / VA / "1.txt"
    assert listed(tmp_path) == ({"1.mp4"}, {})


def test_unreadable_folders_of_file_managers_are_not_reported(open_folder: Path) -> None:
    write_files(open_folder, "v/1.mp4", f"{VA}/1.txt")
    for name in ("lost+found", "System Volume Information", ".Trash-0"):
        (open_folder / name).mkdir()
        (open_folder / name).chmod(0)
    with without_privileges():
        assert find_catalog(open_folder).problems == ()
        assert listed(open_folder)[1] == {}


@pytest.mark.parametrize("name", ["README.txt", "readme.TXT", "LIESMICH.txt", "notes.txt", "file_list.txt"])
@pytest.mark.parametrize("folder", [VA, "annotations/Train_Set", "annotations/train/valence"])
def test_text_files_next_to_annotations_are_not_subjects(tmp_path: Path, folder: str, name: str) -> None:
    write_files(tmp_path, "v/1.mp4", f"{folder}/1.txt")
    if folder.endswith("valence"):
        put(tmp_path / "annotations/train/arousal/1.txt", "0.1\n")
    put(tmp_path / folder / name, "These labels were made in 2024.\n\nThank you.\n")
    catalog = find_catalog(tmp_path)
    assert [subject.name for subject in catalog.subjects] == ["1"]
    assert {problem.kind for problem in catalog.problems} == {"note"}


def test_a_readme_in_a_task_folder_does_not_hide_labels_in_other_folders(tmp_path: Path) -> None:
    write_files(tmp_path, "v/1.mp4", "mine/Train_Set/1.txt")
    put(tmp_path / "VA/Train_Set/README.txt", "Labels are in mine/.\n")
    assert [subject.name for subject in find_catalog(tmp_path).subjects] == ["1"]


def test_labels_that_are_not_used_are_noted(tmp_path: Path) -> None:
    write_files(tmp_path, "v/1.mp4", "v/2.mp4", "v/3.mp4", "VA/Train_Set/1.txt", "mine/Train_Set/2.txt", "labels/3.txt")
    problems = problems_by_name(find_catalog(tmp_path))
    assert "mine/Train_Set/2.txt" in str([it for it in find_catalog(tmp_path).problems if it.name == "2"])
    assert "labels/3.txt" in str([it for it in find_catalog(tmp_path).problems if it.name == "3"])
    assert faults(problems) == {}


def test_a_video_takes_precedence_over_its_gif_preview(tmp_path: Path) -> None:
    catalog = find_catalog(write_files(tmp_path, "a/1.gif", "a/1.flv", "z/1.mp4", f"{VA}/1.txt"))
    assert catalog.video("1").path == tmp_path / "z/1.mp4"
    files, _ = find_videos([tmp_path / "a"])
    assert [file.name for file in files] == ["1.flv", "1.gif"]


def test_audit_prints_the_full_paths_of_two_videos_with_one_name(tmp_path: Path, write_video: WriteVideo) -> None:
    first = "a study of some length/recordings of the first day of spring/camera-on-the-left-hand-side/batch1/talk.mp4"
    second = f"recordings-{'and-more-' * 14}/talk.mp4"
    for name in (first, second):
        (tmp_path / "data" / name).parent.mkdir(parents=True)
        write_video(tmp_path / "data" / name, 2)
    put(tmp_path / "data" / VA / "talk.txt", f"{LABELS}0,0\n")
    done = affect("audit", "--data", tmp_path / "data", "--work", tmp_path / "work")
    assert done.exit_code == 0
    assert f"{first} is used, {second} is not" in done.stdout


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_composed_and_decomposed_names_are_equal(tmp_path: Path, form: Form) -> None:
    """Names from macOS together with names from Linux, for video, labels, boxes and crops."""
    other: Form = "NFD" if form == "NFC" else "NFC"
    for word in ("Zoë", "한국어", "Việt_left", "Ångström"):
        mine, theirs = unicodedata.normalize(form, word), unicodedata.normalize(other, word)
        put(tmp_path / "v" / f"{mine.removesuffix('_left')}.mp4")
        put(tmp_path / VA / f"{theirs}.txt", LABELS)
        put(tmp_path / "bounding_boxes" / f"{mine}.csv", "frame,x0,y0,x1,y1\n")
        put(tmp_path / "cropped_aligned" / mine / "00001.jpg")
    catalog = find_catalog(tmp_path)
    assert catalog.problems == ()
    assert len(catalog.subjects) == 4
    for subject in catalog.subjects:
        assert subject.name == unicodedata.normalize("NFC", subject.name)
        assert subject.boxes is not None and subject.boxes.is_file()  # noqa: PT018
        assert subject.crops is not None and subject.crops.is_dir()  # noqa: PT018
        assert catalog.video(subject.video).path.is_file()


def test_composed_and_decomposed_names_in_one_folder_are_a_conflict(tmp_path: Path) -> None:
    names = [unicodedata.normalize(form, "é") for form in ("NFC", "NFD")]
    write_files(tmp_path, f"a/{names[0]}.mp4", f"b/{names[1]}.mp4", f"{VA}/{names[1]}.txt")
    (problem,) = find_catalog(tmp_path).problems
    assert "two videos have this name" in problem.message
    planned = [name for name, _ in output_names(find_videos([tmp_path])[0])]
    assert len({unicodedata.normalize("NFC", name) for name in planned}) == 2


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_predict_accepts_composed_and_decomposed_names(tmp_path: Path, form: Form) -> None:
    kept = put(tmp_path / f"{unicodedata.normalize(form, 'café')}.mp4")
    for typed in ("NFC", "NFD"):
        assert find_videos([tmp_path / f"{unicodedata.normalize(typed, 'café')}.mp4"]) == ([kept], [])


def test_the_app_keeps_decomposed_accents() -> None:
    assert safe_name(unicodedata.normalize("NFD", "café où.mp4")) == "café_où.mp4"


@pytest.mark.parametrize(
    ("video", "annotation", "suggestion"),
    [
        ("ABC.mp4", "abc", "ABC.txt"), ("abc.MP4", "Abc", "abc.txt"), ("day 1.mp4", "day_1", "day 1.txt"),
        ("007.mp4", "7", "007.txt"), ("abc.mp4", "abc_LEFT", "abc_left.txt"), ("ABC.mp4", "abc_right", "ABC_right.txt"),
        ("Straße.mp4", "STRASSE", "Straße.txt"),
    ],
)  # fmt: skip
def test_a_video_with_a_similar_name_is_suggested(tmp_path: Path, video: str, annotation: str, suggestion: str) -> None:
    write_files(tmp_path, "v/1.mp4", f"{VA}/1.txt", f"v/{video}", f"{VA}/{annotation}.txt")
    problem = problems_by_name(find_catalog(tmp_path))[annotation]
    assert problem.kind == "missing"
    assert f"v/{video} is similar" in problem.message
    assert suggestion in problem.remedy
    assert "Aff-Wild" not in str(problem)


@pytest.mark.parametrize("name", ["abc.xyz", "abc", "abc.mp4_", "ABC.mjpg"])
def test_a_file_with_an_unknown_suffix_is_suggested(tmp_path: Path, name: str) -> None:
    write_files(tmp_path, "v/1.mp4", f"{VA}/1.txt", f"v/{name}", f"{VA}/abc.txt")
    problem = problems_by_name(find_catalog(tmp_path))["abc"]
    assert f"v/{name} exists" in problem.message
    assert ".mp4" in problem.remedy


def test_boxes_and_crops_with_a_similar_name_are_noted(tmp_path: Path) -> None:
    write_files(tmp_path, "abc.mp4", f"{VA}/abc.txt", "bounding_boxes/ABC.csv", "cropped_aligned/Abc/00001.jpg")
    messages = [problem.message for problem in find_catalog(tmp_path).problems]
    assert any("bounding_boxes/ABC.csv has boxes of an unknown subject" in message for message in messages)
    assert any("cropped_aligned/Abc has crops of an unknown subject" in message for message in messages)


@pytest.mark.parametrize("name", ["own.csv", "own", "own.tsv"])
def test_labels_without_the_suffix_txt_are_reported(tmp_path: Path, name: str) -> None:
    write_files(tmp_path, "1.mp4", "own.mp4", f"{VA}/1.txt")
    put(tmp_path / VA / name, LABELS)
    problem = next(it for it in find_catalog(tmp_path).problems if it.kind == "refused")
    assert f"{VA}/{name}" in problem.message
    assert "own.txt" in problem.remedy
    shutil.copy(tmp_path / VA / name, tmp_path / VA / "own.txt")
    assert find_catalog(tmp_path).problems == ()


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("1.mp4", "Train_Set/1.csv"), "Train_Set/1.csv has labels"),
        (("1.mp4", "labels/1.txt"), "labels/1.txt has labels"),
        (("1.xyz", "Train_Set/1.txt"), "1.xyz has no known video suffix"),
        (("1.mp4",), "Train_Set/<subject>.txt"),
    ],
)
def test_the_error_for_an_unusable_folder_names_the_nearest_file(
    tmp_path: Path, names: tuple[str, ...], expected: str
) -> None:
    for name in names:
        put(tmp_path / name, LABELS if "/" in name else MP4)
    with pytest.raises(CatalogError) as caught:
        find_catalog(tmp_path)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("header", "remedy"),
    [
        ("Valence,Arousal", "lower case"), ("valence, arousal", "one comma, no spaces"),
        ("valence;arousal", "one comma"), ("arousal,valence", "valence first"),
        ("frame,valence,arousal", "Keep only the columns"), ("0.1,0.2", "above the rows"),
        ("neutral,anger", "Correct the file"),
    ],
)  # fmt: skip
def test_the_remedy_for_a_wrong_header_says_how_to_correct_it(
    tmp_path: Path, write_video: WriteVideo, header: str, remedy: str
) -> None:
    (tmp_path / "data").mkdir()
    write_video(tmp_path / "data/talk.mp4", 2)
    put(tmp_path / "data" / VA / "talk.txt", f"{header}\n0,0\n0,0\n")
    done = affect("audit", "--data", tmp_path / "data", "--work", tmp_path / "work")
    assert done.exit_code == 3
    assert remedy in done.stdout


def test_predict_suggests_a_file_with_a_similar_name(tmp_path: Path) -> None:
    put(tmp_path / "Talk 1.mp4")
    for typed in ("talk 1.mp4", "Talk_1.mp4", "Talk 1.mov", "Talk 1.MP4"):
        found, problems = listed(tmp_path / typed)
        assert found == set()
        assert str(tmp_path / "Talk 1.mp4") in problems[typed].remedy


@pytest.mark.parametrize(
    "source", ["https://host/talk.mp4", "rtsp://host:554/live?a=1*", "http://host/a[1].mp4", "udp://@:1234"]
)
def test_predict_refuses_urls_with_a_remedy(source: str) -> None:
    (problem,) = find_videos([Path(source)])[1]
    assert problem.name == source
    assert "`affect live` reads URLs" in problem.remedy
    assert "URL" in problem.message


def test_the_remedy_for_a_file_url_has_its_path() -> None:
    (problem,) = find_videos([Path("file:///home/me/talk.mp4")])[1]
    assert "/home/me/talk.mp4" in problem.remedy


def test_predict_refuses_pipes_with_a_remedy(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    for source in (tmp_path / "pipe.mp4", Path("-"), Path("/dev/stdin"), Path("/dev/fd/0"), Path("/dev/null")):
        found, (problem,) = find_videos([source])
        assert found == []
        assert "Give a file; `affect live` reads URLs." in problem.remedy


def test_predict_processes_videos_given_together_with_urls_and_pipes(
    tmp_path: Path, write_video: WriteVideo, tiny_run: Callable[..., Path]
) -> None:
    video, out = write_video(tmp_path / "one.mp4", 12), tmp_path / "out"
    os.mkfifo(tmp_path / "pipe.mp4")
    sources = ["https://host/talk.mp4", "/dev/stdin", "-", tmp_path / "pipe.mp4", video]
    done = affect("predict", *sources, "--model", tiny_run(tmp_path / "run"), "--out", out, "--no-plot")
    assert done.exit_code == 3
    assert done.stderr.count("`affect live` reads URLs") == 4
    assert len((out / "one.csv").read_text().splitlines()) == 13
