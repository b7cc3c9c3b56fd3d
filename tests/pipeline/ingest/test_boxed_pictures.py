"""Folders of pictures with a boxes.csv: reading them, and the errors for wrong lines."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from affect.pipeline.errors import BoxError
from affect.pipeline.ingest.boxed_pictures import held_out, pictures_digest, read_pictures

HEADER = "image,x0,y0,x1,y1,label,by\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a/Ann_Lee_0001.jpg", "a/Ann_Lee_0002.jpg", "b/street.png", "c/tree.JPG"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), np.full((40, 60, 3), 90, np.uint8))
    (tmp_path / "notes.txt").write_text("not a picture")
    return tmp_path


def write(folder: Path, rows: str, header: str = HEADER) -> None:
    (folder / "boxes.csv").write_text(header + rows)


def test_pictures_have_their_boxes_and_others_show_no_face(folder: Path) -> None:
    write(
        folder,
        "a/Ann_Lee_0001.jpg,1,2,30.5,40,face,yunet\nb/street.png,1,2,3,4,masked,me\nb/street.png,5,6,7,8,face,me\n"
        "a/Ann_Lee_0002.jpg,,,,,none,me\n",
    )
    found = {picture.name: picture for picture in read_pictures(folder)}
    assert sorted(found) == ["a/Ann_Lee_0001.jpg", "a/Ann_Lee_0002.jpg", "b/street.png", "c/tree.JPG"]
    assert found["a/Ann_Lee_0001.jpg"].corners.tolist() == [[1, 2, 30.5, 40]]
    assert found["b/street.png"].corners.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert found["b/street.png"].labels == ("masked", "face")
    assert found["a/Ann_Lee_0002.jpg"].corners.shape == found["c/tree.JPG"].corners.shape == (0, 4)


def test_label_and_author_may_be_absent(folder: Path) -> None:
    write(folder, "b/street.png,1,2,3,4\n", "image,x0,y0,x1,y1\n")
    assert read_pictures(folder)[2].labels == ("",)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("b/street.png,1,2,3\n", r"line 3 holds 4 values, expected 7 \(image,x0,y0,x1,y1,label,by\)"),
        ("b/street.png,1,2,x,4,face,me\n", "line 3 holds 'x' as x1, expected a number of pixels"),
        ("b/street.png,1,2,nan,4,face,me\n", "line 3 holds 'nan' as x1"),
        ("b/street.png,5,2,5,4,face,me\n", r"line 3 holds the box 5,2,5,4, expected x1 > x0 and y1 > y0"),
        ("b/gone.png,1,2,3,4,face,me\n", "line 3 names 'b/gone.png', which is not a picture in"),
        ("../boxes.png,1,2,3,4,face,me\n", "line 3 names '../boxes.png', which is not a picture in"),
        ("a/Ann_Lee_0001.jpg,,,,,none,me\n", "line 3: a/Ann_Lee_0001.jpg has a box and the label none"),
        ("\n", "line 3 holds 0 values"),
        ("b/street.png,,,,,face,me\n", "line 3 holds '' as x0"),
    ],
)
def test_a_wrong_line_is_named(folder: Path, row: str, told: str) -> None:
    write(folder, "a/Ann_Lee_0001.jpg,1,2,3,4,face,me\n" + row + "b/street.png,1,2,3,4,face,me\n")
    with pytest.raises(BoxError, match=told) as caught:
        read_pictures(folder)
    assert caught.value.remedy


def test_a_folder_without_boxes_or_with_another_table_is_refused(folder: Path) -> None:
    with pytest.raises(BoxError, match=r"boxes\.csv: does not exist") as caught:
        read_pictures(folder)
    assert caught.value.remedy == "Name a folder with pictures and a boxes.csv."
    write(folder, "b/street.png,1\n", "image,age\n")
    with pytest.raises(BoxError, match=r"line 1 is 'image,age', expected image,x0,y0,x1,y1 and optionally label,by"):
        read_pictures(folder)


def test_all_pictures_of_a_person_are_held_out_together() -> None:
    people = [f"lfw/Person_{letter}{other}" for letter in "abcdefghijklmnopqrst" for other in "abcdefghij"]
    held = [held_out(f"{person}_0001.jpg", 0.2, "test") for person in people]
    assert held == [held_out(f"{person}_0012.jpg", 0.2, "test") for person in people]
    assert sum(held) / len(held) == pytest.approx(0.2, abs=0.08)
    assert held != [held_out(f"{person}_0001.jpg", 0.2, "another") for person in people]
    numbered = [held_out(f"crowd/picture{number}.jpg", 0.5, "test") for number in range(50)]
    assert 5 < sum(numbered) < 45, "a number that is part of the name is no number of a person"


def test_the_digest_changes_with_the_boxes_and_the_pictures(folder: Path) -> None:
    write(folder, "b/street.png,1,2,3,4,face,me\n")
    first = pictures_digest(folder)
    assert pictures_digest(folder) == first
    write(folder, "b/street.png,1,2,3,5,face,me\n")
    second = pictures_digest(folder)
    (folder / "c" / "tree.JPG").unlink()
    assert len({first, second, pictures_digest(folder)}) == 3
