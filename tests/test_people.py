"""Two people stay who they are: while they move, leave and come back, and whatever else looks like a face."""

from pathlib import Path

import numpy as np
import pytest
from affect.pipeline.ingest.synthetic.film import Film, draw_film
from affect.pipeline.learning.people import follow_people, regions

W, H = 160, 120


def candidates(
    boxes: list[np.ndarray], seen: list[np.ndarray], seed: int, *, ball: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """What the STN would say of these people: boxes that tremble, the likeliest first, some missed, some that are
    none."""
    rng = np.random.default_rng(seed)
    n, k = len(boxes[0]), 4
    found, likely = np.zeros((n, k, 4)), np.zeros((n, k))
    found[..., 2:] = 5.0
    thing = np.array([W / 2 - 6, H - 20, W / 2 + 6, H - 6.0])
    for t in range(n):
        here = [
            (box[t] + rng.normal(0, 1, 4), rng.uniform(0.6, 1.0))
            for box, there in zip(boxes, seen, strict=True)
            if there[t] and rng.random() > 0.08
        ]
        if ball and rng.random() < 0.6:
            here.append((thing + rng.normal(0, 0.5, 4), rng.uniform(0.5, 0.95)))
        for place, (box, presence) in enumerate(sorted(here, key=lambda it: -it[1])):
            found[t, place], likely[t, place] = box, presence
    return found, likely


def centre(box: np.ndarray) -> np.ndarray:
    return (box[:, :2] + box[:, 2:]) / 2


@pytest.mark.parametrize("seed", range(4))
def test_the_people_of_a_film_are_never_swapped(tmp_path: Path, seed: int) -> None:
    """Two drawn people, who sway, tremble, and may leave by their side of the picture and come back."""
    film = Film(tmp_path / "two.mp4", seed, 75, 25.0, 2, W, H)
    acted = draw_film(film)
    boxes, seen = [it.box for it in acted], [it.seen for it in acted]
    time = np.arange(film.frames) / film.rate
    tracks = follow_people(*candidates(boxes, seen, seed, ball=seed % 2 == 1), time, 2)
    assert len(tracks) == 2
    for own, other, track, there in zip(boxes, boxes[::-1], tracks, seen, strict=True):
        near = np.linalg.norm(centre(track) - centre(own), axis=1)[there]
        far = np.linalg.norm(centre(track) - centre(other), axis=1)[there]
        assert (near < far).all()
        assert np.median(near) < 3


def walk(n: int, x: float, y: float = 60.0, half: float = 12.0) -> np.ndarray:
    across = x + 5 * np.sin(np.arange(n) / 15)
    return np.stack((across - half, np.full(n, y - half), across + half, np.full(n, y + half)), 1)


def test_who_comes_later_or_back_is_still_who_they_are() -> None:
    """The right one is there first, yet the left one is person 0; both go away and come back at different times."""
    n, time = 200, np.arange(200) / 25
    boxes = [walk(n, 40), walk(n, 120)]
    seen = [np.ones(n, bool), np.ones(n, bool)]
    seen[0][:60] = False
    seen[0][110:140] = False
    seen[1][130:170] = False
    tracks = follow_people(*candidates(boxes, seen, 7), time, 2)
    for track, box, there in zip(tracks, boxes, seen, strict=True):
        assert np.abs(centre(track) - centre(box))[there].max() < 6


def test_fewer_people_than_asked_for_are_told() -> None:
    n = 80
    boxes, likely = candidates([walk(n, 60)], [np.ones(n, bool)], 3)
    assert len(follow_people(boxes, likely, np.arange(n) / 25, 2)) == 1
    assert follow_people(boxes, np.zeros_like(likely), np.arange(n) / 25, 2) == []


def test_a_glimpse_is_nobody() -> None:
    """What looks like a face for a moment takes nobody's place."""
    n = 100
    blip = np.zeros(n, bool)
    blip[10:13] = True
    boxes, likely = candidates([walk(n, 40), walk(n, 80, 20), walk(n, 120)], [~blip | True, blip, ~blip | True], 5)
    tracks = follow_people(boxes, likely, np.arange(n) / 25, 2)
    assert [round(centre(track)[50, 0] / 40) for track in tracks] == [1, 3]


def test_nobodys_region_holds_another() -> None:
    """Each has their own face in it, whole, and not the other's middle; all within the picture."""
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


def test_a_region_is_never_empty_even_where_people_overlap() -> None:
    people = [walk(50, 70, half=30), walk(50, 80, half=8)]
    for part in regions(people, W, H):
        assert (part[:, 2:] - part[:, :2] > 0.03).all()
