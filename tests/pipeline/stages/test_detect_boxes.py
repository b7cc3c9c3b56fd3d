"""Boxes from a detector: one face is followed, holes are filled, false alarms are left alone."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from affect.configs.schema import Config
from affect.pipeline.errors import InputError, WeightsError
from affect.pipeline.features.stn_init import SHIPPED
from affect.pipeline.ingest.boxes import read_boxes
from affect.pipeline.ingest.detector import Faces, track_one_face
from affect.pipeline.ingest.synthetic.video import SyntheticVideo, draw_video
from affect.pipeline.progress import Reporter
from affect.pipeline.records import Boxes
from affect.pipeline.stages.detect_boxes import detect_boxes
from affect.pipeline.storage.checkpoint import load_weights, save_weights
from affect.tests.child import output
from affect.tests.programs.commands import traced


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


QUIET = Reporter(quiet=True)


@pytest.fixture(scope="module")
def config() -> Config:
    return Config.model_validate({"runtime": {"workers": 0, "device": "cpu", "precision": "fp32"}})


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Boxes]]:
    """A data folder without boxes, with a video of one drawn person and a video of two, and the true boxes."""
    root = tmp_path_factory.mktemp("data")
    (root / "videos").mkdir()
    (root / "VA_Set" / "Train_Set").mkdir(parents=True)
    truth = {}
    for name, sides in (("one", ("",)), ("two", ("_left", "_right"))):
        video = SyntheticVideo(root / "videos" / f"{name}.mp4", 1, 25, 25.0, len(sides), 320, 240)
        for side, person in zip(sides, draw_video(video), strict=True):
            annotation = root / "VA_Set" / "Train_Set" / f"{name}{side}.txt"
            annotation.write_text("valence,arousal\n" + "0.1,0.1\n" * video.frames)
            frame = np.flatnonzero(person.seen).astype(np.int64)
            truth[f"{name}{side}"] = Boxes(frame, person.box[frame].astype(np.float32))
    return root, truth


def test_the_boxes_enclose_the_drawn_faces_of_one_and_of_two_people(
    drawn: tuple[Path, dict[str, Boxes]], config: Config
) -> None:
    data, truth = drawn
    report = detect_boxes(config, QUIET, data=data)
    assert (report.made, report.failed) == (("one", "two_left", "two_right"), ())
    for name, true in truth.items():
        boxes = read_boxes(data / "bounding_boxes" / f"{name}.csv")
        both, rows, true_rows = np.intersect1d(boxes.frame, true.frame, return_indices=True)
        assert len(both) >= 0.9 * len(true), name
        assert iou(boxes.corners[rows], true.corners[true_rows]).mean() > 0.7, name


def test_the_number_of_threads_does_not_change_the_boxes(
    drawn: tuple[Path, dict[str, Boxes]], config: Config, tmp_path: Path
) -> None:
    import torch

    before = torch.get_num_threads()
    for threads in (1, 3):
        torch.set_num_threads(threads)
        detect_boxes(config, QUIET, videos=[drawn[0] / "videos" / "one.mp4"], out=tmp_path / str(threads))
    torch.set_num_threads(before)
    assert (tmp_path / "1" / "one.csv").read_text() == (tmp_path / "3" / "one.csv").read_text()


def test_a_video_without_a_face_gets_an_empty_box_file_and_is_listed(
    write_video: Callable[[Path, int], Path], config: Config, tmp_path: Path
) -> None:
    report = detect_boxes(config, QUIET, videos=[write_video(tmp_path / "noise.mp4", 12)], out=tmp_path / "out")
    assert [(problem.name, problem.message) for problem in report.failed] == [("noise", "no face found in any frame")]
    assert "--detector" in report.failed[0].remedy
    assert report.facts["noise"] == {"frames": 12, "boxes": 0}
    assert len(read_boxes(tmp_path / "out" / "noise.csv")) == 0


def test_another_detector_replaces_its_own_boxes_but_not_those_of_others(
    drawn: tuple[Path, dict[str, Boxes]], config: Config, tmp_path: Path
) -> None:
    out, given = tmp_path / "out", "frame,x0,y0,x1,y1\n1,5,5,9,9\n"
    videos = [Path(shutil.copy(drawn[0] / "videos" / "one.mp4", tmp_path / f"{name}.mp4")) for name in ("a", "b", "c")]
    out.mkdir()
    (out / "a.csv").write_text(given)
    assert detect_boxes(config, QUIET, videos=videos, out=out).made == ("b", "c")
    assert detect_boxes(config, QUIET, videos=videos, out=out).kept == ("a", "b", "c")
    (out / "c.csv").write_text(given)

    state, metadata = load_weights(SHIPPED)
    other = tmp_path / "other.safetensors"
    save_weights(other, state, {**metadata, "version": "another"})
    report = detect_boxes(config, QUIET, videos=videos, out=out, detector=other)
    assert (report.made, report.kept) == (("b",), ("a", "c"))
    assert (out / "a.csv").read_text() == (out / "c.csv").read_text() == given
    assert detect_boxes(config, QUIET, videos=videos, out=out, overwrite=True).made == ("a", "b", "c")


def test_a_whole_model_is_a_detector_too(
    drawn: tuple[Path, dict[str, Boxes]], config: Config, tiny_run: Callable[..., Path], tmp_path: Path
) -> None:
    """As the base model, which replaces the shipped STN where it is installed."""
    from affect.models.stn import SpatialTransformer
    from affect.pipeline.learning.model_file import NAME, load_model, save_model

    net, info = load_model(tiny_run(tmp_path / "run"))
    state, metadata = load_weights(SHIPPED)
    net.stn = SpatialTransformer(**metadata["stn"])
    net.stn.load_state_dict(state)
    model = tmp_path / "run" / NAME
    save_model(model, net, fingerprint="f", encoder="e", config=info.config.model_dump(mode="json"))
    video = drawn[0] / "videos" / "one.mp4"
    for name, file in (("stn", SHIPPED), ("model", model)):
        detect_boxes(config, QUIET, videos=[video], out=tmp_path / name, detector=file)
    assert (tmp_path / "stn" / "one.csv").read_text() == (tmp_path / "model" / "one.csv").read_text()


def test_finds_the_man_and_not_the_titles(real: Path, config: Config, tmp_path: Path) -> None:
    report = detect_boxes(config, QUIET, videos=[real / "titles-then-face.mov"], out=tmp_path)
    assert report.facts["titles-then-face"]["frames"] == 169
    boxes = read_boxes(tmp_path / "titles-then-face.csv")
    assert boxes.frame[0] >= 90, "a title was taken for a face"
    assert len(boxes) >= 65
    truth = np.tile(np.array([325, 130, 555, 440], np.float32), (len(boxes), 1))
    assert iou(boxes.corners, truth).min() > 0.6


def test_yunet_finds_a_speaker_without_torch(real: Path, tmp_path: Path) -> None:
    yunet, video = real / "models" / "yunet_n_640_640.onnx", real / "videos" / "grid_bbaf2n.mpg"
    if not yunet.is_file() or not video.is_file():
        pytest.skip(f"needs {yunet} and {video}")
    words = ("detect-boxes", video, "--out", tmp_path, "--work", tmp_path, "--detector", yunet)
    assert output(traced, tmp_path / "trace.json", *words) == ""
    assert "torch" not in json.loads((tmp_path / "trace.json").read_text())["libraries"]
    boxes = read_boxes(tmp_path / "grid_bbaf2n.csv")
    truth = np.tile(np.array([100, 114, 206, 249], np.float32), (len(boxes), 1))
    assert len(boxes) == 75
    assert iou(boxes.corners, truth).min() > 0.6


def test_missing_inputs_and_unusable_detectors_are_refused(
    tmp_path: Path, config: Config, drawn: tuple[Path, Any]
) -> None:
    with pytest.raises(InputError, match="--data"):
        detect_boxes(config, QUIET)
    videos, out = [drawn[0] / "videos" / "one.mp4"], tmp_path / "out"
    with pytest.raises(WeightsError, match=r"yunet.onnx does not exist"):
        detect_boxes(config, QUIET, videos=videos, out=out, detector=tmp_path / "yunet.onnx")
    for name in ("broken.onnx", "broken.safetensors"):
        (tmp_path / name).write_bytes(b"no model at all")
        with pytest.raises(WeightsError, match="broken"):
            detect_boxes(config, QUIET, videos=videos, out=out, detector=tmp_path / name)
