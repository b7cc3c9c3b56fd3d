"""What teaches the STN: boxes move with their pictures, and a little training finds a simple face."""

import math
from collections.abc import Callable

import pytest
import torch
from affect.models.stn import Kind, SpatialTransformer
from affect.models.theta import box_iou
from affect.pipeline.learning.stn.objective import (
    area_under_roc,
    calibrate_presence,
    cell_targets,
    concatenate,
    draw_batches,
    measure,
    stn_loss,
)
from affect.pipeline.learning.stn.train_data import BoxedImages, ImagePool
from torch import Tensor

Faces = Callable[..., BoxedImages]
CPU = torch.device("cpu")


def test_an_epoch_is_the_same_for_the_same_seed_and_shows_each_picture_once(faces: Faces) -> None:
    pictures = faces(40)
    pictures.theta[:, 0, 2] = torch.arange(40)  # the number of the picture; far outside, so no face is left
    album = ImagePool(pictures)
    one, same, other = (list(draw_batches(album, 32, 8, seed, CPU)) for seed in (1, 1, 2))
    assert len(one) == 5
    assert all(torch.equal(a.pixels, b.pixels) for a, b in zip(one, same, strict=True))
    assert not torch.equal(one[0].pixels, other[0].pixels)


def test_the_beliefs_are_highest_on_the_box() -> None:
    theta = torch.tensor([[[0.25, 0.0, 0.5], [0.0, 0.25, -0.5]], [[0.01, 0.0, -0.9], [0.0, 0.01, 0.9]]])
    belief = cell_targets(theta, 64).view(2, 8, 8)
    torch.testing.assert_close(belief.sum((1, 2)), torch.ones(2))
    steps = (2 * torch.arange(8) + 1) / 8 - 1
    means = [((belief.sum(axis) * steps).sum(1)).tolist() for axis in (1, 2)]
    assert means[0] == pytest.approx([0.5, -0.87], abs=0.05)
    assert means[1] == pytest.approx([-0.5, 0.87], abs=0.05)


@pytest.mark.parametrize("kind", ["crop", "similarity", "affine"])
def test_the_truth_costs_nothing(kind: Kind) -> None:
    """The box part of the loss is 0 for the true box, and grows with any error."""
    stn = SpatialTransformer(kind, 32, 224, 0.1)
    truth = torch.tensor([[[0.25, 0.0, 0.5], [0.0, 0.3, -0.4]]])

    def box_loss(theta: Tensor) -> float:
        stn.locate_in_view = lambda view: (theta, torch.zeros(1), torch.zeros(1, 16))  # type: ignore[method-assign]
        return stn_loss(stn, BoxedImages(torch.zeros(1, 3, 32, 32), truth, torch.ones(1)))[1]["box"].item()

    assert box_loss(truth) == pytest.approx(0, abs=1e-6)
    for row, column in ((0, 0), (0, 2), (1, 1), (1, 2)):
        errors = []
        for size in (0.02, 0.1, 0.4, 1.5):
            wrong = truth.clone()
            wrong[0, row, column] += size
            errors.append(box_loss(wrong))
        assert errors == sorted(errors)
        assert errors[0] > 0.01


@pytest.mark.parametrize("face", [1.0, 0.0, -1.0])
def test_batches_of_one_class_work(face: float, faces: Faces) -> None:
    stn = SpatialTransformer("crop", 32, 224, 0.1)
    loss, _ = stn_loss(stn, BoxedImages(faces(4, 32).pixels.float(), faces(4).theta, torch.full((4,), face)))
    assert loss.isfinite()
    loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in stn.parameters())


def test_area_under_roc() -> None:
    score = torch.tensor([0.1, 0.4, 0.4, 0.9]).numpy()
    assert area_under_roc(score, torch.tensor([False, False, True, True]).numpy()) == pytest.approx(0.875)
    assert area_under_roc(score, torch.tensor([True, True, False, False]).numpy()) == pytest.approx(0.125)
    assert math.isnan(area_under_roc(score, torch.ones(4, dtype=torch.bool).numpy()))


def test_presence_is_balanced_about_one_half(faces: Faces) -> None:
    """However the logits lie, after it the faces are above 0 and the rest below, as far as they can be told apart."""
    stn, pictures = SpatialTransformer("crop", 32, 224, 0.1).eval(), faces(60, without=0.4)
    logits = torch.where(pictures.face, 7.0, 3.0) + torch.linspace(-1, 1, 60)
    stn.locate = lambda frames: (torch.zeros(60, 2, 3), logits + stn.localiser.presence.bias)  # type: ignore[method-assign]
    assert calibrate_presence(stn, pictures, CPU) == pytest.approx(-5, abs=0.5)
    assert torch.equal(stn.locate(pictures.pixels)[1] > 0, pictures.face)
    assert calibrate_presence(stn, faces(60), CPU) == 0


@pytest.mark.slow
def test_it_learns_to_find_a_simple_face(faces: Faces) -> None:
    torch.manual_seed(0)
    stn = SpatialTransformer("crop", 32, 224, 0.1)
    optimizer = torch.optim.AdamW(stn.parameters(), 3e-3)
    shown, truth = faces(512, 48, without=0.2), faces(128, 48, seed=1, without=0.2)
    album = ImagePool(shown)
    for epoch in range(20):
        for batch in draw_batches(album, 32, 32, epoch, CPU):
            optimizer.zero_grad()
            stn_loss(stn, batch)[0].backward()
            optimizer.step()
    figures = measure(stn.eval(), truth, CPU)
    assert figures["iou"] > 0.75
    assert figures["presence_auroc"] > 0.97
    theta, _ = stn.locate(truth.pixels)
    assert box_iou(theta, truth.theta)[truth.face].mean().item() == pytest.approx(figures["iou"], abs=1e-4)


def test_parts_are_joined_in_order(faces: Faces) -> None:
    one, two = faces(3), faces(4, seed=1)
    both = concatenate([one, two])
    assert len(both) == 7
    assert torch.equal(both.pixels[3:], two.pixels)
    assert len(concatenate([])) == 0
