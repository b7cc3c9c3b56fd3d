"""Boxes from a detector: one face is followed, holes are filled, false alarms are left alone."""

from pathlib import Path

import numpy as np
import pytest
from affect.configs.schema import Config
from affect.pipeline.errors import InputError, WeightsError
from affect.pipeline.ingest.boxes import read_boxes
from affect.pipeline.ingest.detector import Faces, open_detector, track_one_face
from affect.pipeline.progress import Reporter
from affect.pipeline.records import Boxes
from affect.pipeline.stages.detect_boxes import detect_boxes


def faces(*boxes: tuple[float, float, float, float, float]) -> Faces:
    """Each box is x0, y0, x1, y1, score."""
    table = np.array(boxes, np.float32).reshape(-1, 5)
    return table[:, :4], table[:, 4]


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    low, high = np.maximum(a[:, :2], b[:, :2]), np.minimum(a[:, 2:], b[:, 2:])
    common = np.clip(high - low, 0, None).prod(axis=1)
    return common / ((a[:, 2:] - a[:, :2]).prod(axis=1) + (b[:, 2:] - b[:, :2]).prod(axis=1) - common)


def test_follows_one_face_past_flashes_of_another() -> None:
    video = [faces((100 + t, 50, 160 + t, 110, 0.8)) for t in range(60)]
    for t in (10, 30, 31):
        video[t] = faces((100 + t, 50, 160 + t, 110, 0.6), (400, 200, 480, 280, 0.95))
    boxes = track_one_face(video, gap=5)
    assert boxes.frame.tolist() == list(range(60))
    assert np.abs(boxes.corners[:, 0] - (100 + np.arange(60))).max() < 3


def test_short_holes_are_filled_and_long_ones_stay() -> None:
    video = [faces((100 + t, 50, 160 + t, 110, 0.8)) for t in range(80)]
    for t in (*range(10, 14), *range(40, 60)):
        video[t] = faces()
    boxes = track_one_face(video, gap=5)
    assert boxes.frame.tolist() == [*range(40), *range(60, 80)]
    assert abs(boxes.corners[12, 0] - 112) < 1


def test_two_people_are_never_swapped() -> None:
    video = [faces((300 - t, 50, 360 - t, 110, 0.7), (100 + t, 200, 170 + t, 270, 0.9)) for t in range(200)]
    boxes = track_one_face(video, gap=5)
    assert (boxes.corners[:, 1] > 150).all()


def test_a_video_without_a_face_has_no_boxes() -> None:
    assert len(track_one_face([faces()] * 9, gap=3)) == 0


@pytest.fixture(scope="module")
def detected(real: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Boxes]:
    out = tmp_path_factory.mktemp("boxes")
    config = Config.model_validate({"runtime": {"workers": 0}})
    report = detect_boxes(config, Reporter(quiet=True), videos=[real / "titles-then-face.mov"], out=out)
    assert not report.failed
    assert report.facts["titles-then-face"]["frames"] == 169
    again = detect_boxes(config, Reporter(quiet=True), videos=[real / "titles-then-face.mov"], out=out)
    assert again.kept == ("titles-then-face",)
    assert not again.made
    return {path.stem: read_boxes(path) for path in out.glob("*.csv")}


def test_finds_the_man_and_not_the_titles(detected: dict[str, Boxes]) -> None:
    boxes = detected["titles-then-face"]
    assert boxes.frame[0] >= 90, "a title was taken for a face"
    assert len(boxes) >= 65
    truth = np.tile(np.array([300, 130, 590, 430], np.float32), (len(boxes), 1))
    assert iou(boxes.corners, truth).min() > 0.6


def test_missing_inputs_and_a_missing_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--data"):
        detect_boxes(Config(), Reporter(quiet=True))
    with pytest.raises(WeightsError, match="yunet"):
        open_detector(tmp_path / "yunet.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"no model at all")
    with pytest.raises(WeightsError, match="broken"):
        open_detector(tmp_path / "broken.onnx")
