"""Annotation files are read exactly, or refused with file and line."""

import codecs
from pathlib import Path

import numpy as np
import pytest
from affect.pipeline.errors import AnnotationError
from affect.pipeline.ingest.annotations import annotation_files, read_labels
from hypothesis import example, given, settings
from hypothesis import strategies as st

HEADER = "valence,arousal\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    folder = tmp_path / "VA_Set" / "Train_Set"
    folder.mkdir(parents=True)
    return folder / "102.txt"


def refused(file: Path, text: str) -> str:
    file.write_text(text, encoding="utf-8", newline="")
    with pytest.raises(AnnotationError) as caught:
        read_labels(file)
    assert str(caught.value).startswith("VA_Set/Train_Set/102.txt: ")
    assert caught.value.remedy
    return caught.value.problem.removeprefix("VA_Set/Train_Set/102.txt: ")


def test_values_and_annotated_rows_are_read(file: Path) -> None:
    file.write_text(HEADER + "0.1234567890123,-1\n-5,-5\n-5.0,0.5\n0.25,-5\n 1 , 1e-3\n")
    labels = read_labels(file)
    assert labels.valid.tolist() == [True, False, False, False, True]
    expected = [[0.1234567890123, -1], [0, 0], [0, 0], [0, 0], [1, 1e-3]]
    assert np.array_equal(labels.value, np.array(expected, np.float32))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        (HEADER, "has a header but no rows"),
        ("arousal,valence\n0,0\n", "line 1 is 'arousal,valence', expected 'valence,arousal'"),
        ("0.5,0.5\n0,0\n", "line 1 is '0.5,0.5'"),
        ("Valence, Arousal\n0,0\n", "line 1 is 'Valence, Arousal'"),
        (HEADER + "0,0\n0,0,0\n0,0\n", "line 3 has 3 values, expected 2 (valence,arousal)"),
        (HEADER + "0,0\n0\n", "line 3 has 1 value, expected 2"),
        (HEADER + "0\n0\n", "line 2 has 1 value, expected 2"),
        (HEADER + "0,0,0\n0,0,0\n", "line 2 has 3 values, expected 2"),
        (HEADER + "0,0\n\n0,0\n", "line 3 is blank"),
        (HEADER + "\n0,0\n", "line 2 is blank"),
        (HEADER + "0,0\r\r\n0,0\r\r\n", "line 3 is blank"),
        (HEADER + "0,0\n0,nan\n", "line 3 has 'nan' as arousal"),
        (HEADER + "inf,0\n", "line 2 has 'inf' as valence"),
        (HEADER + "1e999,0\n", "line 2 has '1e999' as valence"),
        (HEADER + "-5,nan\n", "line 2 has 'nan' as arousal"),
        (HEADER + "0,0\nhello,0\n", "line 3 has 'hello' as valence"),
        (HEADER + "0,0_1\n", "line 2 has '0_1' as arousal"),
        (HEADER + "٠,0\n", "line 2 has '٠' as valence"),
        (HEADER + "0,,0\n", "line 2 has 3 values"),
        (HEADER + "0,\n", "line 2 has '' as arousal"),
        (HEADER + "0,0\n0,1.0001\n0,2\n", "line 3 has arousal 1.0001, expected -1 to 1, or -5"),
        (HEADER + "-5.1,0\n", "line 2 has valence -5.1"),
        (HEADER + "0;0\n", "line 2 has 1 value"),
        (HEADER + "0,0\n\0\0,0\n", "line 3 has"),
        (HEADER + "0,0\n#0,0\n", "line 3 has '#0' as valence"),
        (HEADER + "0,\x1c0\n", "line 2 has '\\x1c0' as arousal"),
        (HEADER + "0,\u00a00\n", "line 2 has '\\xa00' as arousal"),
        (HEADER + "0,0\n\x0c\n", "line 3 has 1 value"),
    ],
)
def test_an_invalid_file_is_refused_with_its_line(file: Path, text: str, message: str) -> None:
    assert message in refused(file, text)


def test_a_file_that_is_binary_missing_or_a_folder_is_refused(file: Path) -> None:
    file.write_bytes(HEADER.encode() + b"0,0\n0,\xff\n")
    with pytest.raises(AnnotationError, match="line 3 is not text"):
        read_labels(file)
    file.unlink()
    with pytest.raises(AnnotationError, match="No such file"):
        read_labels(file)
    file.mkdir()
    with pytest.raises(AnnotationError, match="directory"):
        read_labels(file)


def test_a_file_in_no_known_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=r"102\.json: is not an annotation in a known format"):
        read_labels(tmp_path / "102.json")


values = st.floats(-1, 1, width=64) | st.just(-5.0)


@given(
    rows=st.lists(st.tuples(values, values), min_size=1, max_size=30),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    tail=st.sampled_from(["", "\n", "\n\n", "\n \n\t\n"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-be"]),
)
def test_all_line_ends_and_encodings_are_read(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[float, float]], end: str, tail: str, encoding: str
) -> None:
    text = "\n".join(["valence,arousal", *(f"{valence!r},{arousal!r}" for valence, arousal in rows)]) + tail
    mark = codecs.BOM_UTF16_BE if encoding == "utf-16-be" else b""
    path = tmp_path_factory.mktemp("labels") / "1.txt"
    path.write_bytes(mark + text.replace("\n", end).encode(encoding))
    labels = read_labels(path)
    table = np.array(rows)
    valid = (table != -5).all(axis=1)
    assert np.array_equal(labels.valid, valid)
    assert np.array_equal(labels.value, np.where(valid[:, None], table, 0).astype(np.float32))


pieces = st.sampled_from(
    ["0", "1", "-5", ".", ",", "\n", "-", "e", " ", "nan", "0.5,0.5\n", "\r", "\ufeff", "_", "\x1c"]
)


@settings(max_examples=600)
@given(st.binary(max_size=60) | st.lists(pieces, max_size=20).map("".join).map(str.encode), st.booleans())
@example(b"0,0\n\n", True)
@example(b"\xff\xfe", False)
def test_any_bytes_are_read_correctly_or_refused(
    tmp_path_factory: pytest.TempPathFactory, body: bytes, header: bool
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "1.txt"
    path.write_bytes(HEADER.encode() + body if header else body)
    try:
        labels = read_labels(path)
    except AnnotationError:
        return
    text = path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n").rstrip(" \t\n")
    rows = [[float(field) for field in line.split(",")] for line in text.split("\n")[1:]]
    assert len(labels) == len(rows)
    for row, value, valid in zip(rows, labels.value, labels.valid, strict=True):
        assert valid == (-5 not in row)
        assert value.tolist() == (np.array(row, np.float32).tolist() if valid else [0, 0])


def affwild(tmp_path: Path, valence: str, arousal: str) -> tuple[Path, Path]:
    paths = (tmp_path / "train" / "valence" / "105.txt", tmp_path / "train" / "arousal" / "105.txt")
    for path, text in zip(paths, (valence, arousal), strict=True):
        path.parent.mkdir(parents=True)
        path.write_text(text)
    return paths


def test_affwild_labels_are_read_from_two_files(tmp_path: Path) -> None:
    valence, arousal = affwild(tmp_path, "0.5\n-0.25\n", "1\n0\n")
    labels = read_labels(valence)
    assert labels.value.tolist() == [[0.5, 1], [-0.25, 0]]
    assert labels.valid.all()
    assert annotation_files(valence) == (valence, arousal)


@pytest.mark.parametrize(
    ("valence", "arousal", "message"),
    [
        ("0\n0\n", "0\n", "train/arousal/105.txt: has 1 values, but train/valence/105.txt has 2"),
        ("0\n0\n", "0\n2\n", "train/arousal/105.txt: line 2 has arousal 2"),
        ("0\n\n0\n", "0\n0\n", "train/valence/105.txt: line 2 is blank"),
        ("0\n0\n", "", "train/arousal/105.txt: is empty"),
        ("0,1\n", "0\n", "train/valence/105.txt: line 1 has 2 values, expected 1"),
    ],
)
def test_an_affwild_error_names_the_wrong_file(tmp_path: Path, valence: str, arousal: str, message: str) -> None:
    path, _ = affwild(tmp_path, valence, arousal)
    with pytest.raises(AnnotationError) as caught:
        read_labels(path)
    assert caught.value.problem.startswith(message)


def test_affwild_labels_without_the_arousal_file_are_refused(tmp_path: Path) -> None:
    path, arousal = affwild(tmp_path, "0\n", "0\n")
    arousal.unlink()
    with pytest.raises(AnnotationError, match=r"arousal/105\.txt: cannot be read"):
        read_labels(path)
