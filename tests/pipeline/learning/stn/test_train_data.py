"""The STN's training pictures: the box goes with the face, whatever else happens to the picture."""

from collections.abc import Callable

import pytest
import torch
from affect.models.theta import corners_from_theta
from affect.pipeline.learning.augment import Augmentation
from affect.pipeline.learning.stn import train_data as montage
from affect.pipeline.learning.stn.train_data import BoxedImages, ImagePool, draw_batch, draw_beside

Faces = Callable[..., BoxedImages]
PLAIN = Augmentation(brightness=0, contrast=0, flip=0)


def changed_all(pictures: BoxedImages, view: int, seed: int) -> BoxedImages:
    rows = torch.arange(len(pictures))
    return draw_batch(ImagePool(pictures), rows, view, torch.Generator().manual_seed(seed), torch.device("cpu"))


def test_boxes_go_with_their_pictures(monkeypatch: pytest.MonkeyPatch, faces: Faces) -> None:
    """The white of each changed picture fills the box that is said to be there, wherever it was moved."""
    monkeypatch.setattr(montage, "AUGMENTATION", PLAIN)
    pictures = faces(200, side=96)
    changed = changed_all(pictures, 96, 0)
    boxes = (corners_from_theta(changed.theta, 96, 96)).round().long()
    seen = 0
    for pixels, (x0, y0, x1, y1), face in zip(changed.pixels, boxes.tolist(), changed.face.tolist(), strict=True):
        white = (pixels > 200).all(0).nonzero()
        if face == 1 and len(white) > 50:
            found = [int(white[:, 1].min()), int(white[:, 0].min()), int(white[:, 1].max()), int(white[:, 0].max())]
            assert found == pytest.approx([x0, y0, x1 - 1, y1 - 1], abs=3)
            seen += 1
        if face == 0:
            assert len(white) < 0.15 * 96 * 96
    assert seen > 100


def test_a_cut_off_face_counts_as_face_no_face_or_unknown(monkeypatch: pytest.MonkeyPatch, faces: Faces) -> None:
    monkeypatch.setattr(montage, "AUGMENTATION", PLAIN)
    changed = changed_all(faces(400, without=0.3), 32, 1)
    share = [(changed.face == value).float().mean().item() for value in (1, 0, -1)]
    assert sum(share) == pytest.approx(1)
    assert share[0] > 0.5
    assert share[1] > 0.3
    assert share[2] < 0.15
    corners = corners_from_theta(changed.theta[changed.face == 1], 1, 1)
    assert (corners >= -1e-5).all()
    assert (corners <= 1 + 1e-5).all()


def test_what_lies_beside_a_face_is_without_it(faces: Faces) -> None:
    pictures = faces(300, without=0.2)
    generator = torch.Generator().manual_seed(0)
    parts = corners_from_theta(draw_beside(pictures.theta, pictures.face, generator), 1, 1)
    assert (parts >= -1e-6).all()
    assert (parts <= 1 + 1e-6).all()
    assert (parts[:, 2:] - parts[:, :2] > 0).all()
    box = corners_from_theta(pictures.theta, 1, 1)
    overlap = torch.minimum(parts[:, 2:], box[:, 2:]) - torch.maximum(parts[:, :2], box[:, :2])
    assert not (overlap > 0).all(1)[pictures.face].any()


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("with_faces", [True, False])
def test_small_batches_work(n: int, with_faces: bool, faces: Faces) -> None:
    changed = changed_all(faces(n, without=0.0 if with_faces else 1.1), 32, 0)
    assert changed.pixels.shape == (n, 3, 32, 32)
    assert changed.pixels.isfinite().all()
    assert changed.theta.isfinite().all()
    assert changed.pixels.amin() >= 0
    assert changed.pixels.amax() <= 255
    if not with_faces:
        assert (changed.face == 0).all()


def test_a_batch_has_the_requested_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(montage, "AUGMENTATION", PLAIN)
    for name in ("FACE_SWAP", "BACKGROUND_SWAP", "BACKGROUND_ONLY"):
        monkeypatch.setattr(montage, name, 0.0)
    pixels = torch.arange(10, dtype=torch.uint8)[:, None, None, None].expand(10, 3, 64, 64) * 20
    album = ImagePool(BoxedImages(pixels.contiguous(), torch.eye(2, 3).repeat(10, 1, 1) * 0.5, torch.ones(10).bool()))
    shown = draw_batch(album, torch.tensor([7, 2, 2]), 32, torch.Generator().manual_seed(0), torch.device("cpu"))
    assert shown.pixels.mean((1, 2, 3)).tolist() == pytest.approx([140, 40, 40], abs=1)


def test_boxes_without_a_face_have_no_influence(faces: Faces) -> None:
    pictures = faces(8, without=1.1)
    pictures.theta.fill_(float("nan"))
    assert changed_all(pictures, 32, 0).pixels.isfinite().all()
