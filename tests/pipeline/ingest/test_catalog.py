"""The catalog finds the files of any release, pairs them by name, and reports files without a partner."""

import random
from pathlib import Path

import pytest
from affect.pipeline.errors import CatalogError
from affect.pipeline.ingest.catalog import find_catalog
from affect.pipeline.ingest.found_files import split_of
from affect.pipeline.records import Catalog

VA = "Annotations/VA_Estimation_Challenge"
LABELS = "valence,arousal\n0,0\n"


def build(root: Path, *names: str) -> Path:
    """Creates files with minimal content for their name. A name that ends with / is a folder."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            path.mkdir(exist_ok=True)
        elif "EXPR" in name:
            path.write_text("Neutral,Anger,Disgust\n0\n")
        else:
            path.write_text(LABELS if name.endswith(".txt") else "")
    return root


def pairs(catalog: Catalog) -> dict[str, tuple[str, str, str | None]]:
    return {subject.name: (subject.video, subject.split, subject.side) for subject in catalog.subjects}


def problems(catalog: Catalog) -> dict[str, str]:
    return {problem.name: problem.kind for problem in catalog.problems}


@pytest.mark.parametrize(
    "folder",
    [
        "Annotations/VA_Estimation_Challenge/Train_Set",
        "annotations/VA_Set/Training_Set",
        "6th ABAW Annotations/VA_Estimation_Challenge/train_set",
        "VA/TRAIN",
        "Train_Set",
        "annotations/Training_Set",
    ],
)
@pytest.mark.parametrize("video", ["videos/batch1/102.mp4", "102.AVI", "a/b/c/102.mkv", "train/102.webm", "v/102.mov"])
def test_videos_and_annotations_of_any_release_are_found(tmp_path: Path, folder: str, video: str) -> None:
    catalog = find_catalog(build(tmp_path, f"{folder}/102.txt", video))
    assert pairs(catalog) == {"102": ("102", "train", None)}
    assert catalog.subjects[0].annotation == tmp_path / folder / "102.txt"
    assert catalog.video("102").path == tmp_path / video
    assert catalog.problems == ()


@pytest.mark.parametrize(
    ("folder", "split"),
    [
        ("Train_Set", "train"), ("Training_Set", "train"), ("training set", "train"), ("train", "train"),
        ("Validation_Set", "validation"), ("Val_Set", "validation"), ("VALIDATION_SET", "validation"),
        ("Test_Set", "test"), ("test", "test"), ("VA_Set", None), ("batch1", None), ("", None), ("latest", None),
    ],
)  # fmt: skip
def test_the_name_of_the_folder_determines_the_split(folder: str, split: str | None) -> None:
    assert split_of(folder) == split


def test_annotations_of_other_tasks_are_ignored(tmp_path: Path) -> None:
    build(tmp_path, "v/1.mp4", "v/2.mp4", f"{VA}/Train_Set/1.txt", f"{VA}/Validation_Set/2.txt")
    for task in ("EXPR_Classification_Challenge", "AU_Detection_Challenge", "MTL_Challenge", "Expression_Set"):
        build(tmp_path, f"Annotations/{task}/Train_Set/1.txt", f"Annotations/{task}/Validation_Set/1.txt")
    build(tmp_path, "Annotations/readme.txt", f"{VA}/readme.txt".replace("VA_", "VA "))
    (tmp_path / f"{VA}/readme.txt").write_text("Thank you for downloading.")
    (tmp_path / "Annotations/VA Estimation_Challenge/readme.txt").write_text("Thank you for downloading.")
    catalog = find_catalog(tmp_path)
    assert pairs(catalog) == {"1": ("1", "train", None), "2": ("2", "validation", None)}
    assert catalog.problems == ()


def test_in_folders_without_a_task_the_header_identifies_other_tasks(tmp_path: Path) -> None:
    build(tmp_path, "v/1.mp4", "v/2.mp4", "x/Train_Set/1.txt", "y/Train_Set/2.txt", "z/Train_Set/2.txt")
    (tmp_path / "y/Train_Set/2.txt").write_text("AU1,AU2,AU4\n0,0,0\n")
    (tmp_path / "z/Train_Set/2.txt").write_text("Neutral,Anger\n0\n")
    assert pairs(find_catalog(tmp_path)) == {"1": ("1", "train", None)}


def test_a_folder_that_names_several_tasks_is_ignored(tmp_path: Path) -> None:
    top = "VA and EXPR and AU annotations"
    build(tmp_path, "1.mp4", f"{top}/VA_Set/Train_Set/1.txt", f"{top}/EXPR_Set/Validation_Set/1.txt")
    assert pairs(find_catalog(tmp_path)) == {"1": ("1", "train", None)}


def test_two_people_in_a_video_get_one_half_each(tmp_path: Path) -> None:
    names = ["a_left", "a_right", "b", "b_right", "c_left", "d_left"]
    videos = ["a.mp4", "b.mp4", "c.mp4", "d.mp4", "d_left.mp4"]
    catalog = find_catalog(build(tmp_path, *videos, *(f"{VA}/Train_Set/{name}.txt" for name in names)))
    assert pairs(catalog) == {
        "a_left": ("a", "train", "left"),
        "a_right": ("a", "train", "right"),
        "b": ("b", "train", None),
        "b_right": ("b", "train", "right"),
        "c_left": ("c", "train", "left"),
        "d_left": ("d_left", "train", None),  # a video with exactly this name takes precedence
    }
    assert catalog.subjects[0].region == (0, 0, 0.5, 1)
    assert problems(catalog) == {"d": "note"}


def test_boxes_and_crops_are_paired_with_subjects_and_crop_folders_are_not_searched(tmp_path: Path) -> None:
    build(
        tmp_path,
        "a.mp4", "b.mp4", f"{VA}/Train_Set/a_left.txt", f"{VA}/Train_Set/b.txt",
        "bounding_boxes/a_left.csv", "other/b.csv",
        "cropped_aligned/a_left/00001.jpg", "cropped_aligned/a_left/odd.mp4", "cropped_aligned_new/batch2/b/00001.jpg",
    )  # fmt: skip
    catalog = find_catalog(tmp_path)
    left, b = catalog.subjects
    assert (left.boxes, left.crops) == (tmp_path / "bounding_boxes/a_left.csv", tmp_path / "cropped_aligned/a_left")
    assert (b.boxes, b.crops) == (None, tmp_path / "cropped_aligned_new/batch2/b")
    assert len(catalog.videos) == 2


def test_an_aff_wild_release_is_found(tmp_path: Path) -> None:
    build(
        tmp_path,
        "videos/train/105.avi", "videos/train/106.mp4", "videos/train/107.mp4", "videos/test/9.mp4",
        "annotations/train/valence/105.txt", "annotations/train/arousal/105.txt",
        "annotations/train/valence/106.txt", "annotations/train/arousal/106.txt", "annotations/train/valence/107.txt",
        "bboxs/train/105/1.pts", "landmarks/train/105/1.pts", "landmarks/train/106/junk.mp4",
    )  # fmt: skip
    catalog = find_catalog(tmp_path)
    assert pairs(catalog) == {"105": ("105", "train", None), "106": ("106", "train", None)}
    assert catalog.subjects[0].annotation == tmp_path / "annotations/train/valence/105.txt"
    assert [subject.boxes for subject in catalog.subjects] == [tmp_path / "bboxs/train/105", None]
    assert [(problem.kind, problem.name) for problem in catalog.problems] == [
        ("missing", "107"),
        ("note", "107"),
        ("note", "9"),
    ]


def test_files_without_a_partner_are_reported(tmp_path: Path) -> None:
    build(
        tmp_path,
        "b2/one.mp4", "b1/one.avi", "two.mp4", "spare.mp4",
        f"{VA}/Train_Set/one.txt", f"{VA}/Train_Set/two.txt", f"{VA}/Validation_Set/two.txt",
        f"{VA}/Train_Set/lost.txt", f"{VA}/stray.txt",
    )  # fmt: skip
    catalog = find_catalog(tmp_path)
    assert pairs(catalog) == {"one": ("one", "train", None), "two": ("two", "train", None)}
    assert catalog.video("one").path == tmp_path / "b1/one.avi"
    assert problems(catalog) == {
        "one": "note",
        "two": "refused",
        "lost": "missing",
        "stray": "refused",
        "spare": "note",
    }
    assert "b1/one.avi is used, b2/one.mp4 is not" in str(catalog.problems[0])


def test_hidden_files_and_folders_are_ignored(tmp_path: Path) -> None:
    build(tmp_path, "1.mp4", f"{VA}/Train_Set/1.txt", "._1.mp4", f"{VA}/Train_Set/._1.txt", ".trash/2.mp4")
    build(tmp_path, "__MACOSX/._1.mp4")
    catalog = find_catalog(tmp_path)
    assert len(catalog.videos) == len(catalog.subjects) == 1
    assert catalog.problems == ()


def test_order_depends_on_names_only(tmp_path: Path) -> None:
    names = [f"{number}" for number in range(20)]
    files = [f"v{number % 3}/{name}.mp4" for number, name in enumerate(names)]
    files += [f"{VA}/{'Train' if number % 2 else 'Validation'}_Set/{name}.txt" for number, name in enumerate(names)]
    random.Random(1).shuffle(files)
    first = find_catalog(build(tmp_path / "a", *files))
    second = find_catalog(build(tmp_path / "b", *sorted(files)))
    assert list(pairs(first).items()) == list(pairs(second).items())
    assert [video.name for video in first.videos] == sorted(names)
    assert [video.name for video in second.videos] == sorted(names)


def test_links_are_followed_without_endless_loops(tmp_path: Path) -> None:
    real = build(tmp_path / "real", "1.mp4", f"{VA}/Train_Set/1.txt")
    data = tmp_path / "data"
    data.mkdir()
    (data / "set").symlink_to(real)
    (real / "up").symlink_to(data)
    catalog = find_catalog(data)
    assert pairs(catalog) == {"1": ("1", "train", None)}
    assert catalog.problems == ()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "contains 0 videos and 0 valence-arousal annotations"),
        (("1.mp4",), "contains 1 videos and 0"),
        ((f"{VA}/Train_Set/1.txt",), "contains 0 videos and 1"),
        (("1.mp4", "Annotations/EXPR_Set/Train_Set/1.txt"), "contains 1 videos and 0"),
    ],
)
def test_a_folder_without_videos_or_annotations_is_refused(
    tmp_path: Path, names: tuple[str, ...], message: str
) -> None:
    with pytest.raises(CatalogError, match=message):
        find_catalog(build(tmp_path, *names))


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="is not a folder"):
        find_catalog(tmp_path / "nowhere")
