"""Tracking: people are not swapped while they move, leave, come back, or while an object looks like a face."""

from pathlib import Path

import numpy as np
import pytest
from affect.pipeline.inference.tracking import regions, track_faces
from affect.pipeline.ingest.synthetic.video import SyntheticVideo, draw_video

W, H = 160, 120


def candidates(
    boxes: list[np.ndarray], seen: list[np.ndarray], seed: int, *, ball: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Simulated candidates of the STN: boxes with noise, the most probable first, some missing, some without a face."""
    rng = np.random.default_rng(seed)
    n, k = len(boxes[0]), 4
    found, presence = np.zeros((n, k, 4)), np.zeros((n, k))
    found[..., 2:] = 5.0
    thing = np.array([W / 2 - 6, H - 20, W / 2 + 6, H - 6.0])
    for t in range(n):
        faces = [
            (box[t] + rng.normal(0, 1, 4), rng.uniform(0.6, 1.0))
            for box, visible in zip(boxes, seen, strict=True)
            if visible[t] and rng.random() > 0.08
        ]
        if ball and rng.random() < 0.6:
            faces.append((thing + rng.normal(0, 0.5, 4), rng.uniform(0.5, 0.95)))
        for column, (box, probability) in enumerate(sorted(faces, key=lambda it: -it[1])):
            found[t, column], presence[t, column] = box, probability
    return found, presence


def centre(box: np.ndarray) -> np.ndarray:
    return (box[:, :2] + box[:, 2:]) / 2


@pytest.mark.parametrize("seed", range(4))
def test_the_people_of_a_video_are_never_swapped(tmp_path: Path, seed: int) -> None:
    """Two drawn people who move, and may leave the picture at their side and come back."""
    video = SyntheticVideo(tmp_path / "two.mp4", seed, 75, 25.0, 2, W, H)
    acted = draw_video(video)
    boxes, seen = [it.box for it in acted], [it.seen for it in acted]
    time = np.arange(video.frames) / video.rate
    tracks = track_faces(*candidates(boxes, seen, seed, ball=seed % 2 == 1), time, 2)
    assert len(tracks) == 2
    for own, other, track, visible in zip(boxes, boxes[::-1], tracks, seen, strict=True):
        near = np.linalg.norm(centre(track) - centre(own), axis=1)[visible]
        far = np.linalg.norm(centre(track) - centre(other), axis=1)[visible]
        assert (near < far).all()
        assert np.median(near) < 3


def walk(n: int, x: float, y: float = 60.0, half: float = 12.0) -> np.ndarray:
    across = x + 5 * np.sin(np.arange(n) / 15)
    return np.stack((across - half, np.full(n, y - half), across + half, np.full(n, y + half)), 1)


def test_people_who_appear_late_or_return_keep_their_number() -> None:
    """The right person appears first, but the left one is person 0. Both leave and come back at different times."""
    n, time = 200, np.arange(200) / 25
    boxes = [walk(n, 40), walk(n, 120)]
    seen = [np.ones(n, bool), np.ones(n, bool)]
    seen[0][:60] = False
    seen[0][110:140] = False
    seen[1][130:170] = False
    tracks = track_faces(*candidates(boxes, seen, 7), time, 2)
    for track, box, visible in zip(tracks, boxes, seen, strict=True):
        assert np.abs(centre(track) - centre(box))[visible].max() < 6


def test_fewer_tracks_are_returned_if_fewer_people_are_visible() -> None:
    n = 80
    boxes, presence = candidates([walk(n, 60)], [np.ones(n, bool)], 3)
    assert len(track_faces(boxes, presence, np.arange(n) / 25, 2)) == 1
    assert track_faces(boxes, np.zeros_like(presence), np.arange(n) / 25, 2) == []


def test_a_face_seen_for_a_moment_is_not_a_person() -> None:
    """It does not replace one of the two people."""
    n = 100
    blip = np.zeros(n, bool)
    blip[10:13] = True
    always = np.ones(n, bool)
    boxes, presence = candidates([walk(n, 40), walk(n, 80, 20), walk(n, 120)], [always, blip, always], 5)
    tracks = track_faces(boxes, presence, np.arange(n) / 25, 2)
    assert [round(centre(track)[50, 0] / 40) for track in tracks] == [1, 3]


def test_a_region_contains_its_own_face_and_no_other() -> None:
    """It contains the whole face of its person, not the centre of the other face, and lies within the picture."""
    people = [walk(90, 60, half=20), walk(90, 110, half=14)]
    parts = regions(people, W, H)
    for part, own, other in zip(parts, people, people[::-1], strict=True):
        assert part.dtype == np.float32
        assert (part >= 0).all() and (part <= 1).all()  # noqa: PT018
        pixels = part * [W, H, W, H]
        assert (pixels[:, :2] <= own[:, :2] + 1).all()
        assert (pixels[:, 2:] >= own[:, 2:] - 1).all()
        middle = centre(other)
        assert not ((middle > pixels[:, :2]) & (middle < pixels[:, 2:])).all(axis=1).any()


def test_a_region_is_not_empty_if_people_overlap() -> None:
    people = [walk(50, 70, half=30), walk(50, 80, half=8)]
    for part in regions(people, W, H):
        assert (part[:, 2:] - part[:, :2] > 0.03).all()
