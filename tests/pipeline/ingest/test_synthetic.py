"""The demo data depends only on the seed and has the layout and irregularities of the real set."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from affect.pipeline.errors import InputError, WorkError
from affect.pipeline.ingest.annotations import read_labels
from affect.pipeline.ingest.boxes import read_boxes
from affect.pipeline.ingest.catalog import find_catalog
from affect.pipeline.ingest.ferplus import majority, read_ferplus
from affect.pipeline.ingest.synthetic import draw_demo_data
from affect.pipeline.ingest.synthetic.faces import Expression, Portrait, Pose
from affect.pipeline.ingest.synthetic.ferplus import draw_portion, portions, write_ferplus
from affect.pipeline.ingest.synthetic.identity import draw_identity
from affect.pipeline.ingest.synthetic.video import SyntheticVideo, draw_video
from affect.pipeline.ingest.video.decode import probe
from affect.pipeline.ingest.video.timeline import read_timeline

DRAWN_FRAME = [
    [[40, 34, 57], [76, 63, 80], [38, 35, 64], [46, 50, 84]],
    [[94, 70, 73], [135, 90, 79], [80, 69, 84], [107, 82, 87]],
    [[95, 78, 83], [117, 89, 88], [145, 135, 135], [156, 144, 151]],
    [[179, 168, 167], [210, 199, 196], [175, 167, 165], [197, 193, 196]],
]
DRAWN_FACES = [
    [116.8, 124.1, 122.0, 117.6],
    [113.2, 124.0, 123.7, 113.9],
    [115.3, 129.5, 128.0, 116.2],
    [105.4, 108.6, 110.4, 103.8],
]


def digests(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


SMALLEST: dict[str, Any] = {"videos": 8, "frames": 16, "faces": 40, "seed": 1}


@pytest.fixture(scope="module")
def smallest(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A tree drawn in this process, and what was said of it. Read only."""
    root = tmp_path_factory.mktemp("smallest") / "tree"
    return root, draw_demo_data(root, **SMALLEST)


@pytest.fixture(scope="module")
def redrawn(
    demo_data: Path, smallest: tuple[Path, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """The same tree, drawn by three workers over a larger one that is unfinished and has files of the user."""
    copy = Path(shutil.copytree(demo_data, tmp_path_factory.mktemp("redrawn") / "tree"))
    mark = json.loads((copy / "demo.json").read_text())
    (copy / "demo.json").write_text(json.dumps({"wanted": mark["wanted"]}))
    (copy / "videos" / "stale.mp4").write_bytes(b"")
    (copy / "work").mkdir()
    (copy / "work" / "mine.txt").write_text("mine")
    return copy, draw_demo_data(copy, **SMALLEST, workers=3)


def test_same_seed_draws_the_same_bytes_whatever_the_number_of_workers(
    smallest: tuple[Path, dict[str, Any]], redrawn: tuple[Path, dict[str, Any]]
) -> None:
    assert redrawn[1] == smallest[1]
    drawn = {name: digest for name, digest in digests(redrawn[0]).items() if name != "work/mine.txt"}
    assert drawn == digests(smallest[0])


def test_another_seed_gives_other_people_and_positions(tmp_path: Path) -> None:
    videos = [SyntheticVideo(tmp_path / f"{seed}.mp4", seed, 4, 30.0) for seed in (1, 2)]
    (one,), (two,) = (draw_video(synthetic) for synthetic in videos)
    assert not np.array_equal(one.label, two.label)
    assert not np.array_equal(one.box, two.box)
    assert videos[0].path.read_bytes() != videos[1].path.read_bytes()


def test_the_drawings_are_those_of_their_version(tmp_path: Path) -> None:
    """Change demo_data.DRAWING together with these values. Block means, because encoders differ in the last bit."""
    synthetic = SyntheticVideo(tmp_path / "two.mp4", 5, 3, 10.0, 2, 160, 96)
    draw_video(synthetic)
    with av.open(str(synthetic.path)) as video:
        last = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)][-1]
    assert last.reshape(4, 24, 4, 40, 3).mean((1, 3)) == pytest.approx(np.array(DRAWN_FRAME), abs=1.5)
    faces, _ = draw_portion(portions(50, 0)[0])
    pixels = np.array([[int(value) for value in row.split(",")[1].split()] for row in faces]).reshape(-1, 48, 48)
    assert pixels.mean(0).reshape(4, 12, 4, 12).mean((1, 3)) == pytest.approx(np.array(DRAWN_FACES), abs=0.5)


def test_an_existing_data_set_is_not_drawn_again(demo_data: Path) -> None:
    record = json.loads((demo_data / "demo.json").read_text())
    before = {path: path.stat().st_mtime_ns for path in demo_data.rglob("*")}
    asked = {key: record["wanted"][key] for key in ("videos", "frames", "seed", "faces")}
    assert draw_demo_data(demo_data, **asked) == record["facts"]
    assert {path: path.stat().st_mtime_ns for path in demo_data.rglob("*")} == before


def test_an_unfinished_data_set_is_drawn_again_and_files_of_the_user_are_kept(
    redrawn: tuple[Path, dict[str, Any]],
) -> None:
    assert not (redrawn[0] / "videos" / "stale.mp4").exists()
    assert (redrawn[0] / "work" / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("content", ["precious.txt", "demo.json"])
def test_a_folder_with_other_content_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / content).write_text("not a mark")
    with pytest.raises(InputError, match="is not a demo data set"):
        draw_demo_data(tmp_path, videos=8, frames=16, faces=40)
    assert (tmp_path / content).read_text() == "not a mark"


def test_a_file_instead_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "demo").write_text("")
    with pytest.raises(InputError, match="is not a demo data set"):
        draw_demo_data(tmp_path / "demo", videos=8, frames=16, faces=40)


def test_a_folder_that_cannot_be_created_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkError, match="cannot be written"):
        draw_demo_data(tmp_path / "file" / "demo", videos=8, frames=16, faces=40)


@pytest.mark.parametrize("few", [{"videos": 7}, {"frames": 15}, {"faces": 39}])
def test_too_few_videos_frames_or_faces_are_refused(tmp_path: Path, few: dict[str, int]) -> None:
    asked: dict[str, Any] = {"videos": 8, "frames": 16, "faces": 40, **few}
    with pytest.raises(InputError, match="too few"):
        draw_demo_data(tmp_path / "demo", **asked)
    assert not (tmp_path / "demo").exists()


def test_the_data_set_has_the_irregularities_of_the_real_one(demo_data: Path) -> None:
    catalog = find_catalog(demo_data)
    names = {subject.name for subject in catalog.subjects}
    assert {subject.split for subject in catalog.subjects} == {"train", "validation", "test"}
    assert {video.path.suffix for video in catalog.videos} == {".mp4", ".avi"}
    pairs = {name.removesuffix("_left") for name in names if name.endswith("_left")}
    assert any(f"{pair}_right" in names for pair in pairs)
    assert any(f"{pair}_right" not in names for pair in pairs)
    assert "unlabelled" not in names
    differences, uneven = set(), 0
    for subject in catalog.subjects:
        video = next((video for video in catalog.videos if video.name == subject.video), None)
        if video and subject.name != "damaged":
            differences.add(len(read_labels(subject.annotation)) - probe(video.path).frames)
            uneven += bool(np.ptp(np.diff(read_timeline(video.path).time)) > 0.01)
    assert differences == {1, 0, 2, -1, 40}
    assert uneven == 1
    wrong = next(video for video in catalog.videos if video.name.endswith("60fps"))
    with av.open(str(wrong.path)) as container:
        rate = container.streams.video[0].average_rate
    assert rate is not None
    assert rate < 31


def test_labels_have_the_format_of_the_real_ones(demo_data: Path) -> None:
    for path in sorted((demo_data / "annotations").rglob("*.txt")):
        assert path.read_text().splitlines()[0] == "valence,arousal"
        labels = read_labels(path)
        if path.stem == "videoless":
            continue
        assert not labels.valid.all(), path
        known = labels.value[labels.valid]
        assert np.all(np.ptp(known, axis=0) > 0.7), path


def test_boxes_are_inside_the_frame_and_on_the_right_side(demo_data: Path) -> None:
    catalog = find_catalog(demo_data)
    for subject in catalog.subjects:
        if not subject.boxes or subject.name == "damaged":
            continue
        facts, boxes = probe(catalog.video(subject.video).path), read_boxes(subject.boxes)
        x0, y0, x1, y1 = boxes.corners.T
        assert len(boxes) > 0.5 * facts.frames
        assert np.all((x0 >= 0) & (y0 >= 0) & (x1 <= facts.width) & (y1 <= facts.height))
        assert np.all((x1 > x0) & (y1 > y0))
        middle = np.median(x0 + x1) / 2 / facts.width
        assert {"left": middle < 0.5, "right": middle > 0.5, None: True}[subject.side]


def test_a_box_encloses_exactly_the_face() -> None:
    """Compares with rendered heads without hair: down to the chin, and as wide as the head below the ears."""
    rng = np.random.default_rng(4)
    for _ in range(12):
        who = replace(draw_identity(rng), style="bald", earrings=False, glasses="")
        portrait, pose = Portrait(who), Pose(160, 150, float(rng.uniform(40, 90)))
        picture = np.zeros((320, 320, 3), np.uint8)
        portrait.draw(picture, Expression(), pose)
        x0, y0, x1, y1 = portrait.box(pose)
        rows, columns = np.nonzero(picture.max(axis=2) > 30)
        assert rows.max() + 1 == pytest.approx(y1, abs=2)
        cheek = columns[rows == round(150 + 0.26 * pose.size)]
        assert cheek.min() == pytest.approx(x0, abs=0.04 * pose.size + 1)
        assert cheek.max() + 1 == pytest.approx(x1, abs=0.04 * pose.size + 1)
        assert y0 == pytest.approx(150 - 0.7 * pose.size, abs=0.05 * pose.size)
        assert portrait.box(replace(pose, roll=180)) == pytest.approx((320 - x1, 300 - y1, 320 - x0, 300 - y0))


def test_every_part_of_an_expression_changes_the_image() -> None:
    portrait = Portrait(draw_identity(np.random.default_rng(0)))

    def drawn(look: Expression) -> np.ndarray:
        picture = np.zeros((200, 200, 3), np.uint8)
        portrait.draw(picture, look, Pose(100, 100, 60))
        return picture.astype(int)

    plain = drawn(Expression())
    for look in (
        Expression(valence=0.3), Expression(valence=-0.3), Expression(arousal=0.3), Expression(arousal=-0.3),
        Expression(smirk=1), Expression(wrinkle=1), Expression(blink=1), Expression(gaze=(1, 0)),
    ):  # fmt: skip
        assert np.abs(drawn(look) - plain).max() > 60, look
    angry, afraid = (drawn(Expression(-0.7, 0.6, dominance)) for dominance in (1, -1))
    assert np.abs(angry - afraid).max() > 40


def test_a_face_outside_the_frame_draws_nothing() -> None:
    picture = np.full((90, 160, 3), 7, np.uint8)
    Portrait(draw_identity(np.random.default_rng(1))).draw(picture, Expression(), Pose(-400, 50, 40))
    assert (picture == 7).all()


def test_ferplus_has_parts_blank_names_and_clear_majorities(tmp_path: Path) -> None:
    folder = tmp_path / "ferplus"
    write_ferplus(folder, map(draw_portion, portions(400, seed=0)))
    counts = {}
    for usage in ("Training", "PublicTest", "PrivateTest"):
        faces = read_ferplus(folder, usage)
        counts[usage] = len(faces.pixels)
        assert np.all(faces.votes.sum(axis=1) == 10)
        assert np.mean(majority(faces.votes) >= 0) > 0.85
    assert counts["Training"] > 0.95 * 400
    assert min(counts["PublicTest"], counts["PrivateTest"]) > 0.9 * 50
    rows = (folder / "fer2013new.csv").read_text().splitlines()[1:]
    assert all(len(row.split(",")) == 12 for row in rows)
    assert any(not row.split(",")[1] for row in rows)
