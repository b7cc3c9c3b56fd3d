"""The demo data: the same for the same seed, in the shape of the real set, and worth learning from."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from affect.pipeline.errors import InputError
from affect.pipeline.ingest.annotations import read_labels
from affect.pipeline.ingest.boxes import read_boxes
from affect.pipeline.ingest.catalog import find_catalog
from affect.pipeline.ingest.ferplus import majority, read_ferplus
from affect.pipeline.ingest.synthetic import draw_tree
from affect.pipeline.ingest.synthetic.faces import Expression, Portrait, Pose
from affect.pipeline.ingest.synthetic.film import Film, draw_film
from affect.pipeline.ingest.synthetic.identity import draw_identity
from affect.pipeline.ingest.video import frame_times, probe


def digests(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_same_seed_draws_the_same_bytes_whatever_the_number_of_workers(tmp_path: Path) -> None:
    small: dict[str, Any] = {"videos": 8, "frames": 16, "faces": 40}
    facts = draw_tree(tmp_path / "alone", **small, seed=1)
    assert draw_tree(tmp_path / "together", **small, seed=1, workers=3) == facts
    assert digests(tmp_path / "alone") == digests(tmp_path / "together")


def test_another_seed_draws_other_people_in_other_places(tmp_path: Path) -> None:
    films = [Film(tmp_path / f"{seed}.mp4", seed, 4, 30.0) for seed in (1, 2)]
    (one,), (two,) = (draw_film(film) for film in films)
    assert not np.array_equal(one.label, two.label)
    assert not np.array_equal(one.box, two.box)
    assert films[0].path.read_bytes() != films[1].path.read_bytes()


def test_a_tree_that_is_there_is_left_alone(tree: Path) -> None:
    wanted = json.loads((tree / "demo.json").read_text())
    before = {path: path.stat().st_mtime_ns for path in tree.rglob("*")}
    asked = {key: wanted["wanted"][key] for key in ("videos", "frames", "seed", "faces")}
    assert draw_tree(tree, **asked) == wanted["facts"]
    assert {path: path.stat().st_mtime_ns for path in tree.rglob("*")} == before


def test_an_unfinished_tree_is_drawn_anew_and_keeps_what_is_not_its_own(tree: Path, tmp_path: Path) -> None:
    copy = tmp_path / "tree"
    shutil.copytree(tree, copy)
    mark = json.loads((copy / "demo.json").read_text())
    (copy / "demo.json").write_text(json.dumps({"wanted": mark["wanted"]}))
    (copy / "videos" / "stale.mp4").write_bytes(b"")
    (copy / "work").mkdir()
    (copy / "work" / "mine.txt").write_text("mine")
    draw_tree(copy, videos=8, frames=16, faces=40, workers=3)
    assert not (copy / "videos" / "stale.mp4").exists()
    assert (copy / "work" / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("content", ["precious.txt", "demo.json"])
def test_a_folder_of_something_else_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / content).write_text("not a mark")
    with pytest.raises(InputError, match="no demo tree"):
        draw_tree(tmp_path, videos=8, frames=16, faces=40)
    assert (tmp_path / content).read_text() == "not a mark"


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "demo").write_text("")
    with pytest.raises(InputError, match="no demo tree"):
        draw_tree(tmp_path / "demo", videos=8, frames=16, faces=40)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        draw_tree(tmp_path / "file" / "demo", videos=8, frames=16, faces=40)


@pytest.mark.parametrize("few", [{"videos": 7}, {"frames": 15}, {"faces": 39}])
def test_too_little_is_refused(tmp_path: Path, few: dict[str, int]) -> None:
    asked: dict[str, Any] = {"videos": 8, "frames": 16, "faces": 40, **few}
    with pytest.raises(InputError, match="too few"):
        draw_tree(tmp_path / "demo", **asked)
    assert not (tmp_path / "demo").exists()


def test_the_tree_has_the_quirks_of_the_real_set(tree: Path) -> None:
    catalog = find_catalog(tree)
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
            uneven += bool(np.ptp(np.diff(frame_times(video.path))) > 0.01)
    assert differences == {1, 0, 2, -1, 40}
    assert uneven == 1
    wrong = next(video for video in catalog.videos if video.name.endswith("60fps"))
    with av.open(str(wrong.path)) as container:
        rate = container.streams.video[0].average_rate
    assert rate is not None
    assert rate < 31


def test_labels_are_as_the_real_ones(tree: Path) -> None:
    for path in sorted((tree / "annotations").rglob("*.txt")):
        assert path.read_text().splitlines()[0] == "valence,arousal"
        labels = read_labels(path)
        if path.stem == "videoless":
            continue
        assert not labels.valid.all(), path
        known = labels.value[labels.valid]
        assert np.all(np.ptp(known, axis=0) > 0.7), path


def test_boxes_lie_in_the_picture_and_on_their_side(tree: Path) -> None:
    catalog = find_catalog(tree)
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


def test_a_box_goes_round_the_face_and_nothing_else() -> None:
    """Against a rendering of heads without hair: down to the chin, and as wide as the head below the ears."""
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


def test_every_part_of_an_expression_shows() -> None:
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


def test_a_face_outside_the_picture_draws_nothing() -> None:
    picture = np.full((90, 160, 3), 7, np.uint8)
    Portrait(draw_identity(np.random.default_rng(1))).draw(picture, Expression(), Pose(-400, 50, 40))
    assert (picture == 7).all()


def test_ferplus_has_parts_blank_names_and_clear_majorities(tmp_path: Path) -> None:
    draw_tree(tmp_path / "demo", videos=8, frames=16, faces=400, workers=3)
    folder = tmp_path / "demo" / "ferplus"
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
