"""Box files are read exactly, or refused with file and line."""

from pathlib import Path

import numpy as np
import pytest
from affect.pipeline.errors import BoxError, WorkError
from affect.pipeline.ingest.boxes import read_boxes, read_pts, write_boxes
from affect.pipeline.records import Boxes
from hypothesis import given, settings
from hypothesis import strategies as st

HEADER = "frame,x0,y0,x1,y1\n"
pixels = st.floats(-1e6, 1e6, width=32)
spans = st.tuples(pixels, pixels).filter(lambda span: span[0] < span[1])


@st.composite
def boxes(draw: st.DrawFn) -> Boxes:
    frames = sorted(draw(st.sets(st.integers(0, 10**9), max_size=12)))
    corners = [(x[0], y[0], x[1], y[1]) for x, y in (draw(st.tuples(spans, spans)) for _ in frames)]
    return Boxes(np.array(frames, np.int64), np.array(corners, np.float32).reshape(-1, 4))


@given(boxes())
def test_written_boxes_are_read_exactly(tmp_path_factory: pytest.TempPathFactory, given_boxes: Boxes) -> None:
    path = tmp_path_factory.mktemp("boxes") / "new" / "1.csv"
    write_boxes(path, given_boxes)
    again = read_boxes(path)
    assert np.array_equal(again.frame, given_boxes.frame)
    assert np.array_equal(again.corners, given_boxes.corners)
    assert [file.name for file in path.parent.iterdir()] == ["1.csv"]


def test_the_file_counts_frames_from_1_and_omits_frames_without_a_face(tmp_path: Path) -> None:
    path = tmp_path / "1.csv"
    write_boxes(path, Boxes(np.array([0, 4]), np.array([[1, 2, 3.5, 4], [0, 0, 64, 0.1]], np.float32)))
    assert path.read_text() == HEADER + "1,1,2,3.5,4\n5,0,0,64,0.1\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1 is missing"),
        ("frame,x,y,w,h\n1,0,0,1,1\n", "line 1 is 'frame,x,y,w,h'"),
        (HEADER + "0,0,0,1,1\n", "line 2 has frame 0, expected a whole number from 1"),
        (HEADER + "1.5,0,0,1,1\n", "line 2 has frame 1.5"),
        (HEADER + "1e300,0,0,1,1\n", "line 2 has frame 1e+300"),
        (HEADER + "2,0,0,1,1\n2,0,0,1,1\n", "line 3 has frame 2, expected increasing frame numbers"),
        (HEADER + "2,0,0,1,1\n1,0,0,1,1\n", "line 3 has frame 1"),
        (HEADER + "1,5,0,5,1\n", "line 2 has x1 5, expected x1 > x0"),
        (HEADER + "1,0,5,1,4\n", "line 2 has y1 4"),
        (HEADER + "1,0,0,1,1e300\n", "line 2 has"),
        (HEADER + "1,0,0,1\n", "line 2 has 4 values"),
        (HEADER + "1,0,0,1,nan\n", "line 2 has 'nan' as y1"),
        (HEADER + "1,0,0,1,1\n\n2,0,0,1,1\n", "line 3 is blank"),
    ],
)
def test_an_invalid_file_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bounding_boxes" / "1.csv"
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(BoxError) as caught:
        read_boxes(path)
    assert "bounding_boxes/1.csv: " in caught.value.problem
    assert message in caught.value.problem


def test_a_file_without_rows_has_no_boxes(tmp_path: Path) -> None:
    path = tmp_path / "1.csv"
    path.write_text(HEADER)
    assert len(read_boxes(path)) == 0


numbers = st.sampled_from(["1", "2", "3.5", "-4", "0", "1e39", "", "nan", "x", "1_0"])
lines = st.lists(numbers, min_size=3, max_size=6).map(",".join)


@settings(max_examples=300)
@given(st.binary(max_size=40) | st.lists(lines, max_size=5).map("\n".join).map(str.encode))
def test_any_bytes_are_read_correctly_or_refused(tmp_path_factory: pytest.TempPathFactory, body: bytes) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "1.csv"
    path.write_bytes(HEADER.encode() + body)
    try:
        found = read_boxes(path)
    except BoxError:
        return
    rows = [[float(field) for field in line.split(",")] for line in body.decode().split()]
    assert [row[0] - 1 for row in rows] == found.frame.tolist()
    assert np.array_equal(np.array([row[1:] for row in rows], np.float32).reshape(-1, 4), found.corners)
    assert (np.diff(found.frame) > 0).all()
    assert (found.corners[:, 2:] > found.corners[:, :2]).all()


def pts(folder: Path, name: str, points: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(f"version: 1\nn_points: 4\n{{\n{points}}}\n")


def test_pts_files_are_read_in_order_of_frame_number(tmp_path: Path) -> None:
    folder = tmp_path / "bboxes" / "train" / "105"
    pts(folder, "10.pts", "1 2\n1 8\n5 8\n5 2\n")
    pts(folder, "9.pts", "5.5 8\n1 2\n")
    (folder / "._9.pts").write_text("junk")
    (folder / "notes.txt").write_text("junk")
    found = read_boxes(folder)
    assert found.frame.tolist() == [9, 10]
    assert found.corners.tolist() == [[1, 2, 5.5, 8], [1, 2, 5, 8]]


@pytest.mark.parametrize(
    ("name", "points", "message"),
    [
        ("a.pts", "1 2\n3 4\n", "its name is not a frame number"),
        ("1.pts", "1 2\n3\n", "line 5 is '3', expected two numbers"),
        ("1.pts", "1 2\n3 x\n", "line 5 is '3 x'"),
        ("1.pts", "1 2\n1 2\n", "its 2 points do not enclose an area"),
        ("1.pts", "", "its 0 points do not enclose an area"),
        ("1.pts", "1 2\n1e300 4\n", "do not enclose an area"),
    ],
)
def test_an_invalid_pts_file_is_refused_with_its_name(tmp_path: Path, name: str, points: str, message: str) -> None:
    pts(tmp_path / "105", name, points)
    with pytest.raises(BoxError, match=name) as caught:
        read_pts(tmp_path / "105")
    assert message in caught.value.problem


def test_duplicate_frames_and_truncated_pts_files_are_refused(tmp_path: Path) -> None:
    pts(tmp_path / "105", "1.pts", "1 2\n3 4\n")
    pts(tmp_path / "105", "01.pts", "1 2\n3 4\n")
    with pytest.raises(BoxError, match="frame 1 has two files"):
        read_pts(tmp_path / "105")
    (tmp_path / "105" / "01.pts").unlink()
    (tmp_path / "105" / "1.pts").write_text("version: 1\nn_points: 4\n{\n1 2\n")
    with pytest.raises(BoxError, match="no points between braces"):
        read_pts(tmp_path / "105")


def test_the_error_names_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    found = Boxes(np.arange(2, dtype=np.int64), np.array([[1, 2, 3, 4], [2, 3, 4, 5]], np.float32))
    with pytest.raises(WorkError, match=r"s\.csv: cannot be written \(.*\)\. Choose another --out"):
        write_boxes(tmp_path / "file" / "s.csv", found)
