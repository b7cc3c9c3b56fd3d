"""The STN: it starts as the identity, stays within its bounds, and samples what the box says, without aliasing."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from affect.models.backbone import Backbone
from affect.models.localiser import keep_far_from_best, keep_near_best
from affect.models.pyramid import halve, halve_whole_numbers
from affect.models.stn import (
    MIN_HALF_SIDE,
    SECOND_PASS,
    THIRD_PASS,
    Kind,
    SpatialTransformer,
)
from affect.models.theta import around, box_iou, compose, corners_from_theta, theta_from_corners
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from torchvision import ops

KINDS: tuple[Kind, ...] = ("crop", "similarity", "affine")
LEFT, RIGHT = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)


def noise(n: int, height: int = 96, width: int = 96, seed: int = 0) -> Tensor:
    return torch.randint(
        0, 256, (n, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


def ramp(size: int) -> Tensor:
    """A picture whose red is x and whose green is y, both from 0 to 255 between the picture's edges."""
    steps = (torch.arange(size) + 0.5) / size * 255
    return torch.stack((steps.expand(size, size), steps[:, None].expand(size, size), torch.zeros(size, size)))[None]


def shaken(kind: Kind = "crop", view: int = 32, by: float = 0.5) -> SpatialTransformer:
    torch.manual_seed(1)
    stn = SpatialTransformer(kind, view, 32, 0.1)
    with torch.no_grad():
        for parameter in stn.parameters():
            parameter.add_(by * torch.randn_like(parameter))
    return stn.eval()


@pytest.mark.parametrize("kind", KINDS)
def test_it_starts_as_the_identity(kind: Kind) -> None:
    stn = SpatialTransformer(kind, 32, 96, 0.0).eval()
    frames = noise(3)
    look = stn(frames)
    torch.testing.assert_close(look.theta, torch.eye(2, 3).expand(3, 2, 3))
    torch.testing.assert_close(look.crop, frames.float(), atol=1e-2, rtol=0)
    assert look.presence.shape == (3,)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("by", [0.3, 3.0, 100.0])
def test_no_weights_move_the_box_out_of_the_picture(kind: Kind, by: float) -> None:
    theta, presence = shaken(kind, by=by).locate(noise(8))
    assert theta.isfinite().all()
    assert presence.isfinite().all()
    assert (theta[:, :, 2].abs() <= 1 + 1e-6).all()
    linear = theta[:, :, :2]
    assert (linear[:, :, 0].norm(dim=1) <= 1 + 1e-5).all()
    assert (linear[:, :, 0].norm(dim=1) >= MIN_HALF_SIDE - 1e-6).all()
    assert (torch.linalg.det(linear) > 0).all(), "mirrored or flat"
    if kind == "crop":
        assert not linear[:, 0, 1].any()
        assert not linear[:, 1, 0].any()
    else:
        roll = torch.atan2(linear[:, 1, 0], linear[:, 0, 0])
        assert (roll.abs() <= math.pi / 4 + 1e-5).all()


def test_values_beyond_a_bound_have_a_gradient_back() -> None:
    stn = SpatialTransformer("crop", 32, 32, 0.1)
    last = stn.localiser.says[-1]
    assert isinstance(last, torch.nn.Conv2d)
    assert last.bias is not None
    with torch.no_grad():
        last.bias[1:].copy_(torch.tensor([5.0, -5.0, 2.0, -9.0]))  # tx, ty, log sx, log sy, all beyond
    theta, _, _ = stn.locate_in_view(noise(2, 32, 32).float())
    theta[:, [0, 1, 0, 1], [2, 2, 0, 1]].sum().backward()
    assert last.bias.grad is not None
    assert (last.bias.grad[1:] != 0).all()


def test_the_last_pass_sees_a_mirrored_view() -> None:
    """A lean that the network has in every view is added by the second glance and taken back by the mirrored third."""
    stn = SpatialTransformer("crop", 32, 32, 0.1)
    last = stn.localiser.says[-1]
    assert isinstance(last, torch.nn.Conv2d)
    assert last.bias is not None
    lean, half = 0.05, 0.5
    with torch.no_grad():
        last.bias[1].fill_(lean)
        last.bias[3:].fill_(math.log(half))
    second = lean + SECOND_PASS * half * lean
    third = second - THIRD_PASS * SECOND_PASS * half**2 * lean
    assert stn.locate(noise(1))[0][0, 0, 2].item() == pytest.approx((second + third) / 2, abs=1e-5)


def test_the_box_is_where_the_crop_comes_from() -> None:
    stn = SpatialTransformer("crop", 96, 64, 0.0)
    theta = theta_from_corners(torch.tensor([[64.0, 32.0, 128.0, 160.0]]), 256, 256)
    crop = stn.sample(ramp(256), theta)
    across, down = (torch.arange(64) + 0.5) / 64, (torch.arange(64) + 0.5) / 64
    torch.testing.assert_close(crop[0, 0, 0], (64 + 64 * across) / 256 * 255, atol=0.05, rtol=0)
    torch.testing.assert_close(crop[0, 1, :, 0], (32 + 128 * down) / 256 * 255, atol=0.05, rtol=0)


def test_the_margin_widens_the_crop_and_not_the_box() -> None:
    narrow, wide = SpatialTransformer("crop", 96, 64, 0.0), SpatialTransformer("crop", 96, 64, 0.5)
    box = theta_from_corners(torch.tensor([[64.0, 64.0, 128.0, 128.0]]), 256, 256)
    grown = theta_from_corners(torch.tensor([[48.0, 48.0, 144.0, 144.0]]), 256, 256)
    torch.testing.assert_close(wide.sample(ramp(256), box), narrow.sample(ramp(256), grown))
    frames = noise(2)
    wide.eval()
    narrow.eval()
    wide.load_state_dict(narrow.state_dict())
    torch.testing.assert_close(wide(frames).theta, narrow(frames).theta)


def test_whole_samples_just_the_picture() -> None:
    stn = SpatialTransformer("crop", 96, 96, 0.3)
    frames = noise(2)
    torch.testing.assert_close(stn.sample(frames, stn.whole(2)), frames.float(), atol=1e-2, rtol=0)


def test_fine_patterns_do_not_alias() -> None:
    """Stripes of one pixel become even grey when shrunk; plain bilinear sampling would leave them, or beat."""
    stripes = (torch.arange(448) % 2 * 255).to(torch.uint8).expand(1, 3, 448, 448).contiguous()
    stn = SpatialTransformer("crop", 96, 96, 0.0)
    for scale in (1.0, 0.9, 0.7, 0.5):
        crop = stn.sample(stripes, torch.eye(2, 3)[None] * scale)
        assert crop.std() < 3, scale


@pytest.mark.parametrize("scale", [1.0, 0.77, 0.6])
def test_shrinking_is_close_to_exact_filtering(scale: float) -> None:
    """Against torch's antialiased resize of the same part, on a picture with detail of all sizes."""
    torch.manual_seed(0)
    picture = sum(F.interpolate(torch.rand(1, 3, s, s), 448, mode="bicubic") for s in (7, 28, 112))
    assert isinstance(picture, Tensor)
    picture = (picture / picture.max() * 255).clamp(0, 255)
    reach = round(224 * scale)
    part = picture[:, :, 224 - reach : 224 + reach, 224 - reach : 224 + reach]
    exact = F.interpolate(part, 96, mode="bilinear", antialias=True, align_corners=False)
    naive = F.interpolate(part, 96, mode="bilinear", align_corners=False)
    crop = SpatialTransformer("crop", 96, 96, 0.0).sample(picture, torch.eye(2, 3)[None] * (reach / 224))
    assert (crop - exact).square().mean().sqrt() < 5
    assert (crop - exact).square().mean() < 0.5 * (naive - exact).square().mean()


def test_each_frame_is_read_as_if_alone() -> None:
    """Boxes of all sizes in one batch come from different levels of the pyramid."""
    stn = SpatialTransformer("crop", 96, 32, 0.1)
    frames = noise(6, 200, 300)
    theta = torch.stack([torch.eye(2, 3) * scale for scale in (1.0, 0.05, 0.5, 0.25, 0.8, 0.1)])
    together = stn.sample(frames, theta)
    alone = torch.cat([stn.sample(frames[k : k + 1], theta[k : k + 1]) for k in range(6)])
    torch.testing.assert_close(together, alone, atol=1e-3, rtol=0)  # of 255


@pytest.mark.parametrize(("height", "width"), [(250, 250), (101, 333), (33, 64), (448, 448)])
def test_any_size_keeps_its_edges(height: int, width: int) -> None:
    """Odd sides are halved with uneven cells: a ramp stays a ramp from edge to edge."""
    across = ((torch.arange(width) + 0.5) / width * 255).expand(1, 3, height, width)
    crop = SpatialTransformer("crop", 96, 32, 0.0).sample(across, torch.eye(2, 3)[None])
    torch.testing.assert_close(crop[0, 0, 0, 2:-2], ((torch.arange(32) + 0.5) / 32 * 255)[2:-2], atol=4.0, rtol=0)


@pytest.mark.parametrize("scale", [1.0, 0.4, 0.1])
def test_whole_numbers_and_floats_are_nearly_the_same_to_it(scale: float) -> None:
    """Halves of whole numbers are whole numbers: within one grey level for each halving, of which there are two."""
    stn, frames = SpatialTransformer("crop", 96, 32, 0.0), noise(4, 128, 160)
    theta = (torch.eye(2, 3) * scale).expand(4, 2, 3)
    torch.testing.assert_close(stn.sample(frames, theta), stn.sample(frames.float(), theta), atol=2.0, rtol=0)


@pytest.mark.parametrize(("height", "width"), [(64, 96), (33, 70)])
def test_where_frames_lie_in_memory_changes_nothing(height: int, width: int) -> None:
    """channels_last is halved by other code of torch's; the GPU by a few steps of ours."""
    frames = noise(3, height, width)
    halved = halve(frames)
    assert torch.equal(halve(frames.contiguous(memory_format=torch.channels_last)), halved)
    steps = halve_whole_numbers(frames.float())
    torch.testing.assert_close(halved.float(), steps, atol=1.0, rtol=0)
    exact = F.adaptive_avg_pool2d(frames.float(), (halved.shape[2], halved.shape[3]))
    if height % 2 == 0 and width % 2 == 0:
        assert torch.equal(halved.float(), steps)
        torch.testing.assert_close(halved.float(), exact, atol=1.0, rtol=0)


def test_no_frames_give_no_crops() -> None:
    look = shaken()(noise(0))
    assert (look.crop.shape, look.theta.shape, look.presence.shape) == ((0, 3, 32, 32), (0, 2, 3), (0,))


def test_gradients_reach_theta_frames_and_weights() -> None:
    stn = shaken().train()
    frames = noise(4, 128, 128).float().requires_grad_()
    look = stn(frames)
    look.crop.square().mean().backward()
    assert frames.grad is not None
    assert frames.grad.isfinite().all()
    assert frames.grad.abs().sum() > 0
    assert all(p.grad is not None and p.grad.isfinite().all() for n, p in stn.named_parameters() if "presence" not in n)


def test_theta_gets_the_true_gradient() -> None:
    """On a smooth picture, against finite differences."""
    stn = SpatialTransformer("crop", 96, 16, 0.1)
    x = torch.linspace(-2, 2, 256)
    picture = (127 + 100 * torch.sin(x + 0.5 * x[:, None])).expand(1, 3, 256, 256)
    theta = torch.tensor([[[0.4, 0.0, 0.1], [0.0, 0.5, -0.2]]], requires_grad=True)
    (gradient,) = torch.autograd.grad(stn.sample(picture, theta).square().mean(), theta)
    for row, column in itertools.product(range(2), range(3)):
        step = torch.zeros_like(theta)
        step[0, row, column] = 0.01
        with torch.no_grad():
            up, down = (stn.sample(picture, theta + sign * step).square().mean() for sign in (1, -1))
        assert gradient[0, row, column].item() == pytest.approx(((up - down) / 0.02).item(), rel=0.05, abs=5.0)


@pytest.mark.parametrize("region", [LEFT, RIGHT, (0.25, 0.125, 0.75, 0.625)])
def test_a_region_is_processed_as_its_own_picture(region: tuple[float, float, float, float]) -> None:
    """What lies outside the region changes nothing, and the box comes back in the whole picture's coordinates."""
    stn, frames = shaken(by=0.2), noise(3, 64, 64)
    x0, y0, x1, y1 = (round(64 * edge) for edge in region)
    regions = torch.tensor(region).expand(3, 4)
    whole, _ = stn.locate(frames, regions)
    changed = noise(3, 64, 64, seed=9)
    changed[:, :, y0:y1, x0:x1] = frames[:, :, y0:y1, x0:x1]
    torch.testing.assert_close(stn.locate(changed, regions)[0], whole)
    corners = corners_from_theta(whole, 1.0, 1.0)
    centre = (corners[:, :2] + corners[:, 2:]) / 2
    assert (centre >= torch.tensor(region[:2]) - 1e-6).all()
    assert (centre <= torch.tensor(region[2:]) + 1e-6).all()


def test_a_region_gives_the_result_of_its_cut_out() -> None:
    stn, alone = shaken(by=0.2), noise(3, 32, 32)
    frames = F.pad(alone.float(), (16, 16, 8, 24), mode="replicate")  # what lies beside is blended into the edge
    regions = torch.tensor((0.25, 0.125, 0.75, 0.625)).expand(3, 4)
    whole, presence = stn.locate(frames, regions)
    theta, alone_presence = stn.locate(alone)
    torch.testing.assert_close(whole, compose(theta_from_corners(regions, 1.0, 1.0), theta), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(presence, alone_presence, atol=1e-3, rtol=1e-3)


def test_it_is_the_same_in_half_precision_but_for_rounding() -> None:
    stn, frames = shaken(by=0.05), noise(4)
    exact, _ = stn.locate(frames)
    with torch.autocast("cpu", torch.bfloat16):
        look = stn(frames)
    assert look.theta.dtype == look.crop.dtype == look.presence.dtype == torch.float32
    torch.testing.assert_close(look.theta, exact, atol=0.03, rtol=0)


def test_the_whole_picture_counts_as_a_face() -> None:
    stn = shaken()
    stn.reset_to_whole_picture()
    theta, presence = stn.locate(noise(4))
    torch.testing.assert_close(theta, torch.eye(2, 3).expand(4, 2, 3))
    assert (presence.sigmoid() > 0.999).all()


@given(
    st.tuples(*[st.floats(0, 1) for _ in range(4)]),
    st.floats(16, 4000),
    st.floats(16, 4000),
)
@settings(max_examples=100, deadline=None)
def test_corners_and_theta_are_the_same_box(edges: tuple[float, ...], width: float, height: float) -> None:
    x0, x1, y0, y1 = sorted(edges[:2]) + sorted(edges[2:])
    corners = torch.tensor([[x0 * width, y0 * height, (x1 + 0.01) * width, (y1 + 0.01) * height]])
    there_and_back = corners_from_theta(theta_from_corners(corners, width, height), width, height)
    torch.testing.assert_close(there_and_back, corners, atol=1e-3 * max(width, height), rtol=0)


@given(st.lists(st.floats(0, 100, width=32), min_size=8, max_size=8))
@settings(max_examples=200, deadline=None)
def test_iou_is_torchvisions(numbers: list[float]) -> None:
    boxes = torch.tensor(numbers).view(2, 4)
    boxes = torch.cat((torch.minimum(boxes[:, :2], boxes[:, 2:]), torch.maximum(boxes[:, :2], boxes[:, 2:]) + 0.5), 1)
    ours = box_iou(theta_from_corners(boxes[:1], 128, 96), theta_from_corners(boxes[1:], 128, 96))
    torch.testing.assert_close(ours, ops.box_iou(boxes[:1], boxes[1:])[0], atol=1e-3, rtol=1e-3)


def test_a_face_that_rolls_is_no_larger() -> None:
    cos, sin = math.cos(0.5), math.sin(0.5)
    rolled = torch.tensor([[[0.3 * cos, -0.3 * sin, 0.1], [0.3 * sin, 0.3 * cos, 0.2]]])
    upright = torch.tensor([[[0.3, 0.0, 0.1], [0.0, 0.3, 0.2]]])
    torch.testing.assert_close(box_iou(rolled, upright), torch.ones(1))


def test_the_stn_costs_little(full_resnet: None) -> None:
    """At the settings of affwild2, against the backbone at 224."""
    stn, backbone = SpatialTransformer("crop", 96, 224, 0.1).eval(), Backbone().eval()
    with FlopCounterMode(display=False) as looking:
        stn.locate(noise(1, 448, 448))
    with FlopCounterMode(display=False) as seeing:
        backbone(torch.zeros(1, 3, 224, 224))
    assert looking.get_total_flops() <= 0.03 * seeing.get_total_flops()
    assert sum(p.numel() for p in stn.parameters()) < 250_000


def test_two_places_are_distinguished() -> None:
    """What lies between two faces is neither: each candidate is one place and its neighbours."""
    beliefs = torch.zeros(1, 144)
    beliefs[0, 14], beliefs[0, 15], beliefs[0, 100] = 5.0, 4.0, 4.5
    near, apart = keep_near_best(beliefs), keep_far_from_best(beliefs)
    assert near.argmax() == 14
    assert apart.argmax() == 100
    assert (near > -torch.inf).sum() == 9
    assert (apart > -torch.inf).sum() == 144 - 20


def test_candidates_may_be_more_than_there_are_places() -> None:
    """A map of 4 x 4 cells has at most four places that are three cells apart."""
    stn = shaken()
    stn.candidates = 8
    theta, presence = stn.locate(noise(5))
    assert theta.isfinite().all()
    assert presence.isfinite().all()


@pytest.mark.parametrize("sure", [True, False])
def test_further_candidates_matter_only_without_a_sure_face(sure: bool) -> None:
    stn, frames = shaken(view=96), noise(40, 96, 128)
    with torch.no_grad():
        stn.localiser.presence.weight.mul_(1e-6)
        stn.localiser.presence.bias.fill_(10.0 if sure else -10.0)
    two, _ = stn.locate(frames)
    stn.candidates = 4
    four, _ = stn.locate(frames)
    assert bool((two == four).all()) is sure


def test_around_stays_in_the_picture() -> None:
    theta = theta_from_corners(
        torch.tensor([[0.0, 0.0, 0.2, 0.3], [0.4, 0.4, 0.6, 0.6], [0.1, 0.0, 0.9, 1.0]]), 1.0, 1.0
    )
    corners = corners_from_theta(around(theta, 2.0), 1.0, 1.0)
    expected = [[0.0, 0.0, 0.4, 0.6], [0.3, 0.3, 0.7, 0.7], [0.0, 0.0, 1.0, 1.0]]
    torch.testing.assert_close(corners, torch.tensor(expected))
