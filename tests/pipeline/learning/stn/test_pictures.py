"""The STN's training pictures composed from pictures with boxes: the box goes with the face, wherever it is pasted."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from affect.models.theta import corners_from_theta
from affect.pipeline.ingest.boxed_pictures import Picture
from affect.pipeline.learning.augment import Augmentation
from affect.pipeline.learning.stn import compose, degrade, views
from affect.pipeline.learning.stn.compose import Composer, Source, load_sources
from affect.pipeline.learning.stn.objective import stn_loss
from affect.pipeline.learning.stn.picture_batches import Mixture, draw_mixed_batches, load_picture_set
from affect.pipeline.learning.stn.train_data import BoxedImages, ImagePool
from affect.pipeline.learning.stn.views import VIEWS, draw_views, prominence

CPU = torch.device("cpu")
BOX = (40, 30, 90, 100)


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without changes of light, blur and compression, and without things in front of the face."""
    monkeypatch.setattr(degrade, "SHARES", dict.fromkeys(degrade.SHARES, 0.0))
    monkeypatch.setattr(compose, "cover_face", lambda *_: None)
    monkeypatch.setattr(compose, "_relit", lambda pixels, _: pixels)
    monkeypatch.setattr(views, "AUGMENTATION", Augmentation(brightness=0, contrast=0, flip=0))


def portrait() -> np.ndarray:
    """A green ellipse in a box, on dark blue. No background is green."""
    pixels = np.full((130, 140, 3), (10, 10, 60), np.uint8)
    x0, y0, x1, y1 = BOX
    cv2.ellipse(pixels, (((x0 + x1 - 1) / 2, (y0 + y1 - 1) / 2), (x1 - x0, y1 - y0), 0), (0, 255, 0), -1)
    return pixels


def green(pixels: np.ndarray) -> np.ndarray:
    """x0 y0 x1 y1 of the green pixels of a picture [h, w, 3]; empty without any."""
    rows, columns = np.nonzero((pixels[..., 1] > 130) & (pixels[..., 0] < 90) & (pixels[..., 2] < 90))
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] if len(rows) else [])


def source(pixels: np.ndarray, *boxes: tuple[int, ...]) -> Source:
    encoded = cv2.imencode(".png", pixels[:, :, ::-1])[1].tobytes()
    return Source(encoded, np.array(boxes, np.float32).reshape(-1, 4))


@pytest.fixture
def composer(plain: None, monkeypatch: pytest.MonkeyPatch) -> Composer:
    monkeypatch.setattr(compose, "DRAWN_BACKGROUNDS", 0)
    return Composer([source(portrait(), BOX), source(np.full((90, 160, 3), 120, np.uint8))], 128, 0)


def test_boxes_go_with_faces_of_all_sizes_and_places(composer: Composer) -> None:
    heights, centres, alone = [], [], 0
    for seed in range(250):
        pixels, thetas = composer.draw(np.random.default_rng(seed))
        assert pixels.shape == (128, 128, 3)
        corners = corners_from_theta(torch.from_numpy(thetas), 128, 128).numpy()
        if len(corners) == 0:
            assert len(green(pixels)) < 1, "a face without a box"
        elif len(corners) == 1 and (corners > 2).all() and (corners < 126).all():
            alone += 1
            assert green(pixels) == pytest.approx(corners[0], abs=4)
            heights.append((corners[0, 3] - corners[0, 1]) / 128)
            centres.append((corners[0, :2] + corners[0, 2:]) / 256)
    assert alone > 80
    assert min(heights) < 0.12
    assert max(heights) > 0.8
    assert np.std(centres, axis=0) == pytest.approx([0.22, 0.22], abs=0.08), "not all in the middle"


def test_views_show_the_faces_that_they_say(composer: Composer) -> None:
    pictures, faces = [], torch.full((60, 12, 2, 3), float("nan"))
    for number in range(60):
        pixels, thetas = composer.draw(np.random.default_rng((1, number)))
        pictures.append(pixels)
        faces[number, : len(thetas)] = torch.from_numpy(thetas)
    stack = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
    drawn = draw_views(stack, faces, 96, torch.Generator().manual_seed(0))
    assert len(drawn) == 60 * VIEWS
    assert drawn.all_faces is not None
    counts = drawn.all_faces.isfinite().flatten(2).all(2).sum(1)
    assert ((counts > 0) == (drawn.face == 1)).all()
    checked = 0
    for pixels, theta, face, count in zip(drawn.pixels, drawn.theta, drawn.face, counts, strict=True):
        box = corners_from_theta(theta[None], 96, 96)[0].numpy()
        found = green(pixels.permute(1, 2, 0).numpy())
        if face == 0:
            assert len(found) == 0 or (found[2:] - found[:2]).min() < 24
        if face == 1 and count == 1 and (box > 2).all() and (box < 94).all():
            assert found == pytest.approx(box, abs=5)
            checked += 1
    assert checked > 40
    shares = [(drawn.face == said).float().mean().item() for said in (1, 0)]
    assert min(shares) > 0.15


def test_the_main_face_is_large_and_central() -> None:
    def face(size: float, x: float) -> torch.Tensor:
        return torch.tensor([[size, 0.0, x], [0.0, size, 0.0]])

    faces = torch.stack((face(0.1, 0.0), face(0.3, 0.6), face(0.3, -0.2), torch.full((2, 3), float("nan"))))
    assert prominence(faces[None])[0].argmax() == 2
    assert prominence(faces[None])[0, 3] == -float("inf")


def test_with_two_faces_a_box_on_either_costs_nothing_and_one_between_them_does() -> None:
    left = torch.tensor([[0.2, 0.0, -0.5], [0.0, 0.2, 0.0]])
    right = torch.tensor([[0.2, 0.0, 0.5], [0.0, 0.2, 0.0]])
    both = BoxedImages(torch.zeros(1, 3, 32, 32), left[None], torch.ones(1), torch.stack((left, right))[None])

    def box_loss(said: torch.Tensor, best: int) -> float:
        from affect.models.stn import SpatialTransformer

        stn = SpatialTransformer("crop", 32, 224, 0.1)
        beliefs = torch.zeros(1, 64)
        beliefs[0, best] = 5.0
        stn.locate_in_view = lambda view: (said[None], torch.zeros(1), beliefs)  # type: ignore[method-assign]
        return stn_loss(stn, both)[1]["box"].item()

    assert box_loss(left, 8 * 3 + 1) == pytest.approx(0, abs=1e-6)
    assert box_loss(right, 8 * 4 + 6) == pytest.approx(0, abs=1e-6)
    assert box_loss((left + right) / 2, 8 * 3 + 1) > 0.5


def test_an_epoch_is_the_same_for_the_same_seed(composer: Composer) -> None:
    frames = ImagePool(BoxedImages(torch.zeros(24, 3, 64, 64, dtype=torch.uint8), torch.eye(2, 3).repeat(24, 1, 1) / 2,
                                   torch.ones(24, dtype=torch.bool)))  # fmt: skip
    mixture = Mixture(frames, composer, 16)
    one, same, other = (list(draw_mixed_batches(mixture, 32, seed, CPU)) for seed in (1, 1, 2))
    assert len(one) == mixture.steps() == 2
    assert all(len(batch) == 16 for batch in one)
    assert all(torch.equal(a.pixels, b.pixels) for a, b in zip(one, same, strict=True))
    assert not torch.equal(one[0].pixels, other[0].pixels)
    assert sum(len(batch) for batch in draw_mixed_batches(Mixture(None, composer, 16), 32, 0, CPU)) == 16


def test_pictures_that_cannot_be_used_are_said(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "good.png"), portrait())
    cv2.imwrite(str(tmp_path / "small.png"), portrait()[:40, :40])
    (tmp_path / "torn.png").write_bytes(b"\x89PNG nothing")
    cv2.imwrite(str(tmp_path / "large.png"), np.zeros((300, 1500, 3), np.uint8))
    boxes = {name: np.array([BOX], np.float32) for name in ("good.png", "small.png", "torn.png")}
    boxes["large.png"] = np.array([[1000, 100, 1200, 300]], np.float32)
    pictures = [Picture(name, tmp_path / name, corners, ("face",)) for name, corners in boxes.items()]
    sources, problems = load_sources(pictures)
    assert [problem.name for problem in problems] == ["small.png", "torn.png"]
    assert "has a box outside its 40 x 40 pixels" in problems[0].message
    assert sources[0].corners.tolist() == [list(map(float, BOX))]
    assert sources[1].decode().shape == (102, 512, 3)
    assert sources[1].corners[0] == pytest.approx(np.array([1000, 100, 1200, 300]) * 512 / 1500)


def test_people_for_validation_are_not_trained_on(tmp_path: Path) -> None:
    rows = ["image,x0,y0,x1,y1"]
    for number in range(60):
        name = f"Person{number // 2:02}_{number % 2:04}.png"
        cv2.imwrite(str(tmp_path / name), portrait())
        rows.append(f"{name},{','.join(map(str, BOX))}")
    (tmp_path / "boxes.csv").write_text("\n".join(rows) + "\n")
    loaded, problems = load_picture_set([tmp_path], 64)
    assert not problems
    assert len(loaded.training) + len(loaded.truth) == 60
    assert 0 < len(loaded.truth) < 20
    assert len(loaded.truth) % 2 == 0, "both pictures of a person are on the same side"
    assert loaded.truth.face.all()
    corners = corners_from_theta(loaded.truth.theta, 140, 130)
    torch.testing.assert_close(corners, torch.tensor([BOX]).float().expand_as(corners))
